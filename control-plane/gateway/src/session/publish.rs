//! Publishes from the device, and their PUBACKs in order.

use super::{Event, Phase, Session};
use crate::{CloseReason, topic};
use bytes::Bytes;
use mqtt_protocol_core::mqtt::{
    packet::{Packet, Qos, v3_1_1, v5_0},
    result_code::{DisconnectReasonCode, MqttError, PubackReasonCode},
};

/// A publish that has passed the topic check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) level: String,
    pub(crate) payload: Bytes,
    /// Its number in the queue of acknowledgements; none with QoS 0.
    pub(crate) number: Option<u64>,
}

/// What a PUBACK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Committed,
    NotAuthorized,
}

impl Session {
    pub(super) fn publish(&mut self, qos: Qos, packet_id: Option<u16>, topic: &str, payload: &[u8]) -> Event {
        if qos == Qos::ExactlyOnce {
            return self.close(CloseReason::QosNotSupported);
        }
        if packet_id == Some(0) {
            return self.close(CloseReason::Malformed);
        }
        // The protocol's own count is of identifiers: a client that uses one again and again would never exceed it.
        if packet_id.is_some() && self.acks.len() >= usize::from(self.limits.receive_maximum) {
            self.disconnect(DisconnectReasonCode::ReceiveMaximumExceeded);
            return Event::Close(CloseReason::Malformed);
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
}
