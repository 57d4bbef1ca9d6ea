//! The MQTT side of one connection, without I/O, clock or handler: bytes go in, events and bytes come out.

use crate::{CloseReason, Limits, Message, ack::InOrder, topic};
use bytes::Bytes;
use mqtt_protocol_core::mqtt::{
    self,
    common::Cursor,
    connection::{event::Event as MqttEvent, role::Server},
    packet::{
        GenericPacketTrait, MaximumPacketSize, MaximumQos, Packet, Property, Qos, ReceiveMaximum,
        RetainHandling, ServerKeepAlive, SessionExpiryInterval, SharedSubscriptionAvailable, SubEntry,
        SubscriptionIdentifierAvailable, v3_1_1, v5_0,
    },
    result_code::{
        ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError, PubackReasonCode,
        SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
    },
};
use std::{sync::Arc, time::Duration};

/// The first byte of a CONNECT packet, which is the first one of a connection.
const CONNECT: u8 = 0x10;

/// A client must take packets of this size: CONNACK and the acknowledgements with what belongs to them.
const LEAST_PACKET_BYTES: u32 = 64;

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

/// The parts of a CONNECT that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Bytes>,
}

/// A publish that has passed the topic check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) level: String,
    pub(crate) payload: Bytes,
    /// Its number in the queue of acknowledgements; none with QoS 0.
    pub(crate) number: Option<u64>,
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

/// What a PUBACK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Committed,
    NotAuthorized,
}

#[derive(Debug)]
struct Filter {
    filter: String,
    at_least_once: bool,
    /// The next answer with retained messages is for this filter.
    wants_retained: bool,
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

    fn connect_v3(&mut self, connect: &v3_1_1::Connect) -> Event {
        self.keep_alive = self.effective_keep_alive(connect.keep_alive());
        self.login(Connect {
            client_id: connect.client_id().to_owned(),
            username: connect.user_name().map(str::to_owned),
            password: connect.password().map(Bytes::copy_from_slice),
        })
    }

    fn connect_v5(&mut self, connect: &v5_0::Connect) -> Event {
        self.is_v5 = true;
        for property in connect.props() {
            match property {
                Property::ReceiveMaximum(maximum) => self.send_maximum = self.send_maximum.min(maximum.val()),
                Property::AuthenticationMethod(_) => {
                    self.refuse_v5(ConnectReasonCode::BadAuthenticationMethod);
                    return Event::Close(CloseReason::BadCredential);
                }
                // Not even the answers would fit.
                Property::MaximumPacketSize(maximum) if maximum.val() < LEAST_PACKET_BYTES => {
                    self.refuse_v5(ConnectReasonCode::PacketTooLarge);
                    return Event::Close(CloseReason::PacketTooLarge);
                }
                _ => {}
            }
        }
        self.keep_alive = self.effective_keep_alive(connect.keep_alive());
        self.login(Connect {
            client_id: connect.client_id().to_owned(),
            username: connect.user_name().map(str::to_owned),
            password: connect.password().map(Bytes::copy_from_slice),
        })
    }

    fn effective_keep_alive(&self, asked: u16) -> Duration {
        match Duration::from_secs(asked.into()) {
            Duration::ZERO => self.limits.keep_alive_max,
            asked => asked.min(self.limits.keep_alive_max),
        }
    }

    fn login(&mut self, connect: Connect) -> Event {
        self.phase = Phase::Login;
        Event::Login(Box::new(connect))
    }

    /// Lets the client in as `device`.
    pub(crate) fn accept(&mut self, device: Arc<str>) {
        self.device = device;
        self.phase = Phase::Open;
        let packet = if self.is_v5 {
            self.connack_properties().and_then(|properties| {
                let connack =
                    v5_0::Connack::builder().session_present(false).reason_code(ConnectReasonCode::Success);
                connack.props(properties).build().map(Packet::from)
            })
        } else {
            let connack = v3_1_1::Connack::builder().session_present(false);
            connack.return_code(ConnectReturnCode::Accepted).build().map(Packet::from)
        };
        self.reply(packet);
    }

    /// What this server does not do, and its limits (MQTT 5, 3.2.2.3).
    fn connack_properties(&self) -> Result<Vec<Property>, MqttError> {
        let seconds = u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX);
        Ok(vec![
            SessionExpiryInterval::new(0)?.into(),
            ReceiveMaximum::new(self.limits.receive_maximum)?.into(),
            MaximumQos::new(1)?.into(),
            MaximumPacketSize::new(self.limits.packet_bytes)?.into(),
            SubscriptionIdentifierAvailable::new(0)?.into(),
            SharedSubscriptionAvailable::new(0)?.into(),
            ServerKeepAlive::new(seconds)?.into(),
        ])
    }

    /// Does not let the client in.
    pub(crate) fn refuse(&mut self, reason: CloseReason) {
        let (v5, v3) = match reason {
            CloseReason::IdentityMismatch => {
                (ConnectReasonCode::ClientIdentifierNotValid, ConnectReturnCode::IdentifierRejected)
            }
            CloseReason::BadCredential => {
                (ConnectReasonCode::BadUserNameOrPassword, ConnectReturnCode::BadUserNameOrPassword)
            }
            CloseReason::Banned => (ConnectReasonCode::Banned, ConnectReturnCode::NotAuthorized),
            CloseReason::CertificateExpired => {
                (ConnectReasonCode::NotAuthorized, ConnectReturnCode::NotAuthorized)
            }
            _ => (ConnectReasonCode::ServerUnavailable, ConnectReturnCode::ServerUnavailable),
        };
        if self.is_v5 {
            self.refuse_v5(v5);
        } else {
            let connack = v3_1_1::Connack::builder().session_present(false).return_code(v3);
            self.reply(connack.build().map(Packet::from));
            self.phase = Phase::Closed;
        }
    }

    fn refuse_v5(&mut self, code: ConnectReasonCode) {
        let connack = v5_0::Connack::builder().session_present(false).reason_code(code);
        self.reply(connack.build().map(Packet::from));
        self.phase = Phase::Closed;
    }

    fn publish(&mut self, qos: Qos, packet_id: Option<u16>, topic: &str, payload: &[u8]) -> Event {
        if qos == Qos::ExactlyOnce {
            return self.close(CloseReason::QosNotSupported);
        }
        if packet_id == Some(0) {
            return self.close(CloseReason::Malformed);
        }
        match topic::up_level(&self.device, topic) {
            Some(level) => Event::Publish(Incoming {
                level: level.to_owned(),
                payload: Bytes::copy_from_slice(payload),
                number: packet_id.map(|id| self.acks.push((id, Answer::Committed))),
            }),
            None => {
                self.tally.publishes_refused += 1;
                match packet_id {
                    Some(id) if self.is_v5 => {
                        self.acks.push_complete((id, Answer::NotAuthorized));
                        self.acknowledge();
                        Event::Handled
                    }
                    // There is no other way to say it.
                    _ => self.close(CloseReason::ForbiddenTopic),
                }
            }
        }
    }

    fn subscribe_v3(&mut self, subscribe: &v3_1_1::Subscribe) -> Event {
        let granted = self.subscribe(subscribe.entries());
        let codes = granted.iter().map(|granted| match granted {
            Ok(false) => SubackReturnCode::SuccessMaximumQos0,
            Ok(true) => SubackReturnCode::SuccessMaximumQos1,
            Err(_) => SubackReturnCode::Failure,
        });
        let answer = v3_1_1::Suback::builder().packet_id(subscribe.packet_id()).return_codes(codes.collect());
        self.subscribed(answer.build().map(Packet::from))
    }

    fn subscribe_v5(&mut self, subscribe: &v5_0::Subscribe) -> Event {
        if subscribe.props().iter().any(|property| matches!(property, Property::SubscriptionIdentifier(_))) {
            self.disconnect(DisconnectReasonCode::SubscriptionIdentifiersNotSupported);
            return Event::Close(CloseReason::Malformed);
        }
        let granted = self.subscribe(subscribe.entries());
        let codes = granted.iter().map(|granted| match granted {
            Ok(false) => SubackReasonCode::GrantedQos0,
            Ok(true) => SubackReasonCode::GrantedQos1,
            Err(code) => *code,
        });
        let answer = v5_0::Suback::builder().packet_id(subscribe.packet_id()).reason_codes(codes.collect());
        self.subscribed(answer.build().map(Packet::from))
    }

    /// For each entry whether QoS 1 is granted, or why nothing is.
    fn subscribe(&mut self, entries: &[SubEntry]) -> Vec<Result<bool, SubackReasonCode>> {
        entries.iter().map(|entry| self.subscribe_one(entry)).collect()
    }

    fn subscribe_one(&mut self, entry: &SubEntry) -> Result<bool, SubackReasonCode> {
        let text = entry.topic_filter();
        let refused = if text.starts_with("$share/") {
            Some(SubackReasonCode::SharedSubscriptionsNotSupported)
        } else if !topic::may_subscribe(&self.device, text) {
            Some(SubackReasonCode::NotAuthorized)
        } else {
            None
        };
        if let Some(code) = refused {
            self.tally.subscriptions_refused += 1;
            return Err(code);
        }
        let options = entry.sub_opts();
        let at_least_once = options.qos() != Qos::AtMostOnce;
        let full = self.filters.len() >= self.limits.subscriptions;
        let known = self.filters.iter_mut().find(|filter| filter.filter == text);
        let wants_retained = match options.rh() {
            RetainHandling::SendRetained => true,
            RetainHandling::SendRetainedIfNotExists => known.is_none(),
            RetainHandling::DoNotSendRetained => false,
        };
        match known {
            Some(known) => {
                known.at_least_once = at_least_once;
                known.wants_retained |= wants_retained;
            }
            None if full => return Err(SubackReasonCode::QuotaExceeded),
            None => self.filters.push(Filter { filter: text.to_owned(), at_least_once, wants_retained }),
        }
        Ok(at_least_once)
    }

    fn subscribed(&mut self, suback: Result<Packet, MqttError>) -> Event {
        self.reply(suback);
        if self.filters.iter().any(|filter| filter.wants_retained) {
            self.sent_since_asked.get_or_insert_default();
            return Event::Subscribed;
        }
        Event::Handled
    }

    fn unsubscribe<'a>(&mut self, filters: impl Iterator<Item = &'a str>) -> Vec<UnsubackReasonCode> {
        let one = |text| match self.filters.iter().position(|filter| filter.filter == text) {
            Some(index) => {
                self.filters.swap_remove(index);
                UnsubackReasonCode::Success
            }
            None => UnsubackReasonCode::NoSubscriptionExisted,
        };
        filters.map(one).collect()
    }

    /// A publish is committed; its PUBACK leaves with [`Session::acknowledge`].
    pub(crate) fn complete(&mut self, number: u64) {
        self.acks.complete(number);
    }

    /// Writes every PUBACK whose turn it is.
    pub(crate) fn acknowledge(&mut self) {
        while self.phase == Phase::Open {
            let Some((packet_id, answer)) = self.acks.pop() else { return };
            let packet = match answer {
                Answer::Committed => {
                    self.tally.acknowledged += 1;
                    self.puback(packet_id)
                }
                Answer::NotAuthorized => {
                    let puback = v5_0::Puback::builder().packet_id(packet_id);
                    puback.reason_code(PubackReasonCode::NotAuthorized).build().map(Packet::from)
                }
            };
            self.reply(packet);
        }
    }

    fn puback(&self, packet_id: u16) -> Result<Packet, MqttError> {
        match self.is_v5 {
            true => v5_0::Puback::builder().packet_id(packet_id).build().map(Packet::from),
            false => v3_1_1::Puback::builder().packet_id(packet_id).build().map(Packet::from),
        }
    }

    /// Whether a message to the device can be written now.
    pub(crate) fn may_send(&self) -> bool {
        self.phase == Phase::Open && self.sending < self.send_maximum
    }

    /// Writes a message if the device has subscribed to its topic. `on_subscribe`: it is the answer to a SUBSCRIBE.
    pub(crate) fn send(&mut self, message: &Message, on_subscribe: bool) {
        let Some(granted) = self.granted(&message.topic) else { return };
        if !on_subscribe
            && message.retained
            && let Some(sent) = &mut self.sent_since_asked
            && !sent.contains(&message.topic)
        {
            sent.push(message.topic.clone());
        }
        let qos = if message.at_least_once && granted { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let packet_id = match qos {
            Qos::AtMostOnce => None,
            // At most `send_maximum` are in use: there is a free one.
            _ => self.protocol.acquire_packet_id().ok(),
        };
        let packet = if self.is_v5 {
            v5_0::Publish::builder().topic_name(&*message.topic).and_then(|publish| {
                let publish = publish.qos(qos).retain(on_subscribe).payload(&message.payload[..]);
                publish.packet_id(packet_id).build().map(Packet::from)
            })
        } else {
            v3_1_1::Publish::builder().topic_name(&*message.topic).and_then(|publish| {
                let publish = publish.qos(qos).retain(on_subscribe).payload(&message.payload[..]);
                publish.packet_id(packet_id).build().map(Packet::from)
            })
        };
        self.sending += u16::from(packet_id.is_some());
        if self.reply(packet) {
            self.tally.sent += 1;
        } else if let Some(id) = packet_id {
            // It may have been given back already.
            for event in self.protocol.release_packet_id(id) {
                if matches!(event, MqttEvent::NotifyPacketIdReleased(_)) {
                    self.sending = self.sending.saturating_sub(1);
                }
            }
        }
    }

    /// The best quality of the filters that select the topic.
    fn granted(&self, topic: &str) -> Option<bool> {
        let selecting = self.filters.iter().filter(|filter| topic::matches(&filter.filter, topic));
        selecting.map(|filter| filter.at_least_once).max()
    }

    /// Of the handler's retained messages those that the latest subscriptions ask for and that are not outdated.
    pub(crate) fn retained(&mut self, messages: Vec<Message>) -> Vec<Message> {
        let newer = self.sent_since_asked.take().unwrap_or_default();
        let asking: Vec<&Filter> = self.filters.iter().filter(|filter| filter.wants_retained).collect();
        let asked =
            |message: &Message| asking.iter().any(|filter| topic::matches(&filter.filter, &message.topic));
        let chosen = messages.into_iter().filter(|message| asked(message) && !newer.contains(&message.topic));
        let chosen = chosen.collect();
        for filter in &mut self.filters {
            filter.wants_retained = false;
        }
        chosen
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::Index};

    /// What well-behaved clients send, as bytes: raw material for what others send.
    fn packets(is_v5: bool) -> Vec<Vec<u8>> {
        let texts: [&[u8]; 4] = [
            &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'],
            &[0x32, 17, 0, 11, b'd', b'/', b'a', b'/', b'u', b'p', b'/', b'x', b'y', b'z', b'!', 0, 1, 1, 2],
            &[0x82, 13, 0, 2, 0, 8, b'd', b'/', b'a', b'/', b'd', b'o', b'w', b'n', 1],
            &[0xa2, 12, 0, 3, 0, 8, b'd', b'/', b'a', b'/', b'd', b'o', b'w', b'n'],
        ];
        let v5: [&[u8]; 4] = [
            &[0x10, 19, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 5, 0x11, 0, 0, 0, 1, 0, 1, b'a'],
            &[0x32, 16, 0, 8, b'd', b'/', b'a', b'/', b'u', b'p', b'/', b'x', 0, 1, 2, 1, 0, 9],
            &[0x82, 16, 0, 2, 0, 0, 10, b'd', b'/', b'a', b'/', b'd', b'o', b'w', b'n', b'/', b'#', 1],
            &[0xa2, 15, 0, 3, 0, 0, 10, b'd', b'/', b'a', b'/', b'd', b'o', b'w', b'n', b'/', b'#'],
        ];
        let both: [&[u8]; 5] = [&[0xc0, 0], &[0x40, 2, 0, 1], &[0x62, 2, 0, 1], &[0x50, 2, 0, 1], &[0xe0, 0]];
        let own = if is_v5 { v5 } else { texts };
        own.into_iter().chain(both).map(<[u8]>::to_vec).collect()
    }

    /// Feeds everything as the driver would, and ends when the session does. Nothing may panic; bytes are always
    /// taken; a session that is not logged in delivers nothing; output is bounded by input.
    fn run(input: &[u8], piece: usize) {
        let mut session = Session::new(Arc::new(Limits { packet_bytes: 256, ..Limits::default() }));
        for mut piece in input.chunks(piece) {
            while !piece.is_empty() && session.may_feed() {
                let before = piece.len();
                let event = session.feed(&mut piece);
                match event {
                    Event::Login(_) => session.accept(Arc::from("a")),
                    Event::Publish(incoming) => {
                        assert!(session.is_open());
                        if let Some(number) = incoming.number {
                            session.complete(number);
                            session.acknowledge();
                        }
                    }
                    Event::Subscribed => {
                        let message = Message {
                            topic: "d/a/down/desired".into(),
                            payload: Bytes::from_static(b"state"),
                            at_least_once: true,
                            retained: true,
                        };
                        for message in session.retained(vec![message]) {
                            if session.may_send() {
                                session.send(&message, true);
                            }
                        }
                    }
                    Event::Close(_) => return assert!(!session.may_feed()),
                    Event::More | Event::Handled => {}
                }
                assert!(piece.len() < before, "no progress");
            }
        }
        assert!(session.output.len() <= 64 + 64 * input.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_bytes(input in vec(any::<u8>(), 0..600), piece in 1usize..100) {
            run(&input, piece);
        }

        /// Packets in any order, some bytes of which are changed, and one end of which may be cut.
        #[test]
        fn damaged_packets(
            is_v5: bool,
            order in vec(any::<Index>(), 0..30),
            damage in vec((any::<Index>(), any::<u8>()), 0..6),
            cut in any::<Index>(),
            piece in 1usize..100,
        ) {
            let packets = packets(is_v5);
            let mut input = packets[0].clone();
            order.iter().for_each(|index| input.extend(index.get(&packets)));
            for (at, byte) in damage {
                let at = at.index(input.len());
                input[at] = byte;
            }
            run(&input, piece);
            input.truncate(cut.index(input.len()));
            run(&input, piece);
        }
    }

    #[test]
    fn the_raw_material_is_good() {
        for is_v5 in [false, true] {
            let packets = packets(is_v5);
            let mut session = Session::new(Arc::default());
            assert!(matches!(session.feed(&mut &packets[0][..]), Event::Login(_)));
            session.accept(Arc::from("a"));
            let publish = session.feed(&mut &packets[1][..]);
            assert!(matches!(publish, Event::Publish(_)), "{publish:?}");
        }
    }

    #[test]
    fn a_message_that_the_client_does_not_take_is_left_out() {
        let mut session = Session::new(Arc::default());
        // A CONNECT with a maximum packet size of 64 bytes.
        let connect = [0x10, 19, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 5, 0x27, 0, 0, 0, 64, 0, 1, b'a'];
        assert!(matches!(session.feed(&mut &connect[..]), Event::Login(_)));
        session.accept(Arc::from("a"));
        assert!(matches!(session.feed(&mut &packets(true)[2][..]), Event::Subscribed));
        let written = session.output.len();
        let mut message = Message {
            topic: "d/a/down/desired".into(),
            payload: Bytes::from_static(&[0; 100]),
            at_least_once: true,
            retained: true,
        };
        for _ in 0..100 {
            assert!(session.may_send(), "what is left out takes no place");
            session.send(&message, false);
        }
        assert_eq!((session.output.len(), session.tally.sent), (written, 0));
        message.payload = Bytes::from_static(b"short");
        session.send(&message, false);
        assert_eq!(session.tally.sent, 1);
        // A client that takes less cannot be answered.
        let mut session = Session::new(Arc::default());
        let mut connect = connect;
        connect[17] = 63;
        assert!(matches!(session.feed(&mut &connect[..]), Event::Close(CloseReason::PacketTooLarge)));
    }

    #[test]
    fn an_answer_older_than_what_was_sent_is_left_out() {
        let mut session = Session::new(Arc::default());
        let packets = packets(true);
        session.feed(&mut &packets[0][..]);
        session.accept(Arc::from("a"));
        assert!(matches!(session.feed(&mut &packets[2][..]), Event::Subscribed));
        let state = |body: &'static [u8]| Message {
            topic: "d/a/down/desired".into(),
            payload: Bytes::from_static(body),
            at_least_once: true,
            retained: true,
        };
        // The handler has been asked; before it answers, a newer state is sent.
        session.send(&state(b"newer"), false);
        assert_eq!(session.retained(vec![state(b"older")]), []);
        // Asked again, its answer is good.
        assert!(matches!(session.feed(&mut &packets[2][..]), Event::Subscribed));
        assert_eq!(session.retained(vec![state(b"newer")]), [state(b"newer")]);
    }
}
