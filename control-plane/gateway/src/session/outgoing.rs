//! Messages to the device.

use super::{Phase, Session, subscribe::Filter};
use crate::{Message, topic};
use mqtt_protocol_core::mqtt::{
    connection::event::Event as MqttEvent,
    packet::{Packet, Qos, v3_1_1, v5_0},
};

impl Session {
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
}
