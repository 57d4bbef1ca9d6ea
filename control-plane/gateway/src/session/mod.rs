//! The MQTT side of one connection, without I/O, clock or handler: bytes go in, events and bytes come out.
//!
//! Here is the state, and the way of a packet in and out; each kind of packet has a module.

mod login;
mod outgoing;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "fuzzing"))]
mod trial;

use crate::{CloseReason, Limits, ack::InOrder};
use mqtt_protocol_core::mqtt::{
    self,
    common::Cursor,
    connection::{event::Event as MqttEvent, role::Server},
    packet::{GenericPacketTrait, Packet, v3_1_1, v5_0},
    result_code::{DisconnectReasonCode, MqttError},
};
use publish::Answer;
use std::{sync::Arc, time::Duration};
use subscribe::Filter;

pub(crate) use login::Connect;
pub(crate) use publish::Incoming;
#[cfg(any(test, feature = "fuzzing"))]
pub use trial::Trial;

/// The first byte of a CONNECT packet, which is the first one of a connection.
const CONNECT: u8 = 0x10;

/// What came of feeding bytes. At most one packet is taken at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// All bytes are taken, and the packet is not complete.
    More,
    /// A packet was dealt with here.
    Handled,
    /// A CONNECT: nothing may be fed until [`Session::accept`] or [`Session::refuse`].
    Login(Box<Connect>),
    /// A publish to one of the device's own topics.
    Publish(Incoming),
    /// The device has subscribed to something: retained messages are to be asked for.
    Subscribed,
    /// The connection must end; a DISCONNECT is in the output if one is due.
    Close(CloseReason),
}

/// One connection's protocol state.
pub(crate) struct Session {
    protocol: mqtt::Connection<Server>,
    limits: Arc<Limits>,
    phase: Phase,
    is_v5: bool,
    /// Empty until the login is accepted.
    device: Arc<str>,
    keep_alive: Duration,
    filters: Vec<Filter>,
    acks: InOrder<(u16, Answer)>,
    /// QoS 1 messages to the device without a PUBACK yet, and how many there may be.
    sending: u16,
    send_maximum: u16,
    /// Retained topics sent since the handler was asked for retained messages: its answer may be older than these.
    sent_since_asked: Option<Vec<Arc<str>>>,
    /// Bytes to write.
    pub(crate) output: Vec<u8>,
    /// What happened since the driver last looked.
    pub(crate) tally: Tally,
}

/// Counts for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: usize,
    pub(crate) publishes_refused: usize,
    pub(crate) subscriptions_refused: usize,
    pub(crate) sent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not a byte has come.
    Nothing,
    /// In the CONNECT.
    Connect,
    /// Between CONNECT and CONNACK.
    Login,
    Open,
    Closed,
}

impl Session {
    pub(crate) fn new(limits: Arc<Limits>) -> Session {
        let options =
            mqtt::connection::ConnectionOptions::new().maximum_packet_size_recv(limits.packet_bytes);
        let mut protocol = mqtt::Connection::with_options(mqtt::Version::Undetermined, options);
        protocol.set_auto_ping_response(true);
        Session {
            protocol,
            phase: Phase::Nothing,
            is_v5: false,
            device: Arc::from(""),
            keep_alive: Duration::ZERO,
            filters: Vec::new(),
            acks: InOrder::default(),
            sending: 0,
            send_maximum: limits.send_maximum,
            sent_since_asked: None,
            output: Vec::new(),
            tally: Tally::default(),
            limits,
        }
    }

    /// The device, once the login is accepted.
    pub(crate) fn device(&self) -> Option<&Arc<str>> {
        (!self.device.is_empty()).then_some(&self.device)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// How long the device may be silent, once the login is accepted.
    pub(crate) fn silence(&self) -> Duration {
        self.keep_alive * 3 / 2
    }

    /// Publishes without a PUBACK.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.acks.len()
    }

    /// Whether a packet may be fed: not while a login is checked. An MQTT 3.1.1 client does not know the receive
    /// maximum, so it is not read from while that is used up; an MQTT 5 client that exceeds it is disconnected.
    pub(crate) fn may_feed(&self) -> bool {
        match self.phase {
            Phase::Nothing | Phase::Connect => true,
            Phase::Open => self.is_v5 || self.acks.len() < usize::from(self.limits.receive_maximum),
            Phase::Login | Phase::Closed => false,
        }
    }

    /// Takes bytes from the front of `input`, up to the end of a packet.
    pub(crate) fn feed(&mut self, input: &mut &[u8]) -> Event {
        if self.phase == Phase::Nothing
            && let Some(first) = input.first()
        {
            if *first != CONNECT {
                // Another protocol, most likely; its "packet" would be waited for in vain.
                return self.close(CloseReason::Malformed);
            }
            self.phase = Phase::Connect;
        }
        let mut cursor = Cursor::new(*input);
        let events = self.protocol.recv(&mut cursor);
        *input = &input[cursor.position() as usize..];
        if events.is_empty() {
            return Event::More;
        }
        let mut received = None;
        let mut failed = None;
        let mut closing = false;
        for event in events {
            match event {
                MqttEvent::NotifyPacketReceived(packet) => received = Some(packet),
                MqttEvent::RequestSendPacket { packet, .. } => self.write(&packet),
                MqttEvent::NotifyError(error) => failed = Some(error),
                MqttEvent::RequestClose => closing = true,
                MqttEvent::NotifyPacketIdReleased(_) => self.sending = self.sending.saturating_sub(1),
                // The keep-alive is the driver's.
                MqttEvent::RequestTimerReset { .. } | MqttEvent::RequestTimerCancel(_) => {}
            }
        }
        if failed.is_some() || closing {
            self.phase = Phase::Closed;
            return Event::Close(match failed {
                Some(MqttError::PacketTooLarge) => CloseReason::PacketTooLarge,
                _ => CloseReason::Malformed,
            });
        }
        match received {
            Some(packet) => self.received(packet),
            None => Event::Handled,
        }
    }

    fn received(&mut self, packet: Packet) -> Event {
        let before_login = self.phase == Phase::Connect;
        match packet {
            Packet::V3_1_1Connect(connect) if before_login => self.connect_v3(&connect),
            Packet::V5_0Connect(connect) if before_login => self.connect_v5(&connect),
            _ if self.phase != Phase::Open => self.close(CloseReason::Malformed),
            Packet::V3_1_1Publish(publish) => {
                let payload = publish.payload().as_slice();
                self.publish(publish.qos(), publish.packet_id(), publish.topic_name(), payload)
            }
            Packet::V5_0Publish(publish) => {
                let payload = publish.payload().as_slice();
                self.publish(publish.qos(), publish.packet_id(), publish.topic_name(), payload)
            }
            Packet::V3_1_1Subscribe(subscribe) => self.subscribe_v3(&subscribe),
            Packet::V5_0Subscribe(subscribe) => self.subscribe_v5(&subscribe),
            Packet::V3_1_1Unsubscribe(unsubscribe) => {
                self.unsubscribe(unsubscribe.entries().iter().map(|entry| entry.as_str()));
                let answer = v3_1_1::Unsuback::builder().packet_id(unsubscribe.packet_id()).build();
                self.reply(answer.map(Packet::from));
                Event::Handled
            }
            Packet::V5_0Unsubscribe(unsubscribe) => {
                let codes = self.unsubscribe(unsubscribe.entries().iter().map(|entry| entry.as_str()));
                let answer = v5_0::Unsuback::builder().packet_id(unsubscribe.packet_id()).reason_codes(codes);
                self.reply(answer.build().map(Packet::from));
                Event::Handled
            }
            Packet::V3_1_1Puback(_) | Packet::V5_0Puback(_) => Event::Handled,
            Packet::V3_1_1Pingreq(_) | Packet::V5_0Pingreq(_) => Event::Handled,
            Packet::V3_1_1Disconnect(_) | Packet::V5_0Disconnect(_) => {
                self.phase = Phase::Closed;
                Event::Close(CloseReason::Device)
            }
            // QoS 2 and AUTH exchanges cannot have begun.
            _ => self.close(CloseReason::Malformed),
        }
    }

    /// Ends the session. An MQTT 5 client is told why; others just see the end.
    pub(crate) fn close(&mut self, reason: CloseReason) -> Event {
        let code = match reason {
            CloseReason::KeepAlive => DisconnectReasonCode::KeepAliveTimeout,
            CloseReason::TakenOver => DisconnectReasonCode::SessionTakenOver,
            CloseReason::Kicked => DisconnectReasonCode::AdministrativeAction,
            CloseReason::ShuttingDown => DisconnectReasonCode::ServerShuttingDown,
            CloseReason::ForbiddenTopic | CloseReason::CertificateExpired => {
                DisconnectReasonCode::NotAuthorized
            }
            CloseReason::QosNotSupported => DisconnectReasonCode::QosNotSupported,
            CloseReason::Withheld => DisconnectReasonCode::ServerBusy,
            CloseReason::PacketTooLarge => DisconnectReasonCode::PacketTooLarge,
            _ => DisconnectReasonCode::ProtocolError,
        };
        self.disconnect(code);
        Event::Close(reason)
    }

    fn disconnect(&mut self, code: DisconnectReasonCode) {
        if self.is_v5 && self.phase == Phase::Open {
            self.reply(v5_0::Disconnect::builder().reason_code(code).build().map(Packet::from));
        }
        self.phase = Phase::Closed;
    }

    /// Sends a packet through the protocol state; true if it is in the output. What exceeds the client's own maximum
    /// packet size is left out, as MQTT 5, 3.1.2.11.4 has it.
    fn reply(&mut self, packet: Result<Packet, MqttError>) -> bool {
        let mut sent = false;
        if let Ok(packet) = packet {
            for event in self.protocol.send(packet) {
                match event {
                    MqttEvent::RequestSendPacket { packet, .. } => {
                        self.write(&packet);
                        sent = true;
                    }
                    MqttEvent::NotifyPacketIdReleased(_) => self.sending = self.sending.saturating_sub(1),
                    _ => {}
                }
            }
        }
        sent
    }

    fn write(&mut self, packet: &Packet) {
        self.output.extend_from_slice(&packet.to_continuous_buffer());
    }
}
