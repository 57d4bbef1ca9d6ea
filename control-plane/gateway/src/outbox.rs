//! What waits to be sent to one device. Pure.

use bytes::Bytes;
use std::{collections::VecDeque, sync::Arc};

/// A message to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The whole topic; no wildcards. Sent only if the device has subscribed to it.
    pub topic: Arc<str>,
    /// The body.
    pub payload: Bytes,
    /// Deliver at least once while the connection lasts (QoS 1), or at most once (QoS 0). A subscription with QoS 0
    /// lowers it.
    pub at_least_once: bool,
    /// The message is a state: a newer one of the same topic replaces it while it waits. Other messages are dropped,
    /// oldest first, when the device does not keep up.
    pub retained: bool,
}

/// The queue of one connection: bounded, and the latest retained message of each topic wins.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Waiting>,
}

/// A message and where it comes from.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) message: Message,
    /// Sent because of a SUBSCRIBE: carries the RETAIN flag (MQTT 5, 3.3.1.3).
    pub(crate) on_subscribe: bool,
}

impl Outbox {
    /// Adds a message; the queue has at most `limit` (>= 1) afterwards. Returns how many were dropped or replaced.
    pub(crate) fn push(&mut self, message: Message, limit: usize) -> usize {
        let mut lost = 0;
        if message.retained {
            let same = |waiting: &Waiting| waiting.message.retained && waiting.message.topic == message.topic;
            if let Some(old) = self.queue.iter().position(same) {
                self.queue.remove(old);
                lost += 1;
            }
        }
        while self.queue.len() >= limit {
            let oldest = self.queue.iter().position(|waiting| !waiting.message.retained).unwrap_or(0);
            self.queue.remove(oldest);
            lost += 1;
        }
        self.queue.push_back(Waiting { message, on_subscribe: false });
        lost
    }

    /// Adds the answer to a SUBSCRIBE. It was asked for earlier, so a message that waits already is newer and wins.
    pub(crate) fn push_retained(&mut self, message: Message, limit: usize) {
        let newer = self.queue.iter().any(|waiting| waiting.message.topic == message.topic);
        if !newer && self.queue.len() < limit {
            self.queue.push_back(Waiting { message, on_subscribe: true });
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front();
        if self.queue.is_empty() {
            self.queue = VecDeque::new(); // An idle connection keeps no memory for it.
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, body: u8, retained: bool) -> Message {
        Message {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(&[body]),
            at_least_once: true,
            retained,
        }
    }

    fn drain(outbox: &mut Outbox) -> Vec<u8> {
        std::iter::from_fn(|| outbox.pop()).map(|waiting| waiting.message.payload[0]).collect()
    }

    #[test]
    fn the_latest_state_wins_and_the_oldest_acks_are_dropped() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(message("desired", 1, true), 3), 0);
        assert_eq!(outbox.push(message("ack", 2, false), 3), 0);
        assert_eq!(outbox.push(message("ack", 3, false), 3), 0);
        assert_eq!(outbox.push(message("ack", 4, false), 3), 1);
        assert_eq!(outbox.push(message("desired", 5, true), 3), 1);
        assert_eq!(drain(&mut outbox), [3, 4, 5]);
    }

    #[test]
    fn an_answer_does_not_overtake_a_newer_state() {
        let mut outbox = Outbox::default();
        outbox.push(message("desired", 2, true), 3);
        outbox.push_retained(message("desired", 1, true), 3);
        assert_eq!(drain(&mut outbox), [2]);
    }
}
