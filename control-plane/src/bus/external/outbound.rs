//! What waits to be published. Pure.

use crate::bus::{DeviceId, DownKind, embedded::at_least_once};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// Messages given to the client at a time.
pub(super) const WINDOW: usize = 64;
/// Most messages that wait besides desired states, of which there is one for each device. The oldest are dropped.
const MAX_OTHERS: usize = 16_384;
/// Most pieces of artifacts that wait: some 4 MiB. The oldest are dropped.
const MAX_CHUNKS: usize = 1_024;

/// One message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) device: DeviceId,
    pub(super) kind: DownKind,
    pub(super) payload: Bytes,
}

/// Desired states wait until the broker has acknowledged them, over connections; the latest of each device counts.
/// Other messages are published once.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Devices whose desired state waits, in order.
    order: VecDeque<DeviceId>,
    desired: HashMap<DeviceId, Bytes>,
    others: VecDeque<Outgoing>,
    /// After all others, which are short.
    chunks: VecDeque<Outgoing>,
    /// Given to the client, in order, without a packet id yet.
    submitted: VecDeque<Outgoing>,
    /// On their way to the broker, by packet id.
    in_flight: HashMap<u16, Outgoing>,
}

impl Outbound {
    pub(super) fn push(&mut self, device: DeviceId, kind: DownKind, payload: Bytes) {
        if kind.is_retained() {
            if self.desired.insert(device.clone(), payload).is_none() {
                self.order.push_back(device);
            }
            return;
        }
        let (queue, most) = match kind {
            DownKind::Chunk => (&mut self.chunks, MAX_CHUNKS),
            DownKind::Desired | DownKind::Ack | DownKind::Cert => (&mut self.others, MAX_OTHERS),
        };
        if queue.len() >= most {
            queue.pop_front();
        }
        queue.push_back(Outgoing { device, kind, payload });
    }

    /// The next message for the client. It has to be given back by [`Outbound::published`].
    pub(super) fn submit(&mut self) -> Option<Outgoing> {
        if self.submitted.len() + self.in_flight.len() >= WINDOW {
            return None;
        }
        let desired = || {
            let device = self.order.pop_front()?;
            let payload = self.desired.remove(&device)?;
            Some(Outgoing { device, kind: DownKind::Desired, payload })
        };
        let next = self.others.pop_front().or_else(desired).or_else(|| self.chunks.pop_front())?;
        self.submitted.push_back(next.clone());
        Some(next)
    }

    /// The client has written the oldest submitted message, with this packet id (0 for QoS 0).
    pub(super) fn published(&mut self, packet_id: u16) {
        if let Some(outgoing) = self.submitted.pop_front()
            && at_least_once(outgoing.kind)
        {
            self.in_flight.insert(packet_id, outgoing);
        }
    }

    /// The broker has it. Returns the message.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> Option<Outgoing> {
        self.in_flight.remove(&packet_id)
    }

    /// The connection is gone: desired states that the broker may not have are published again, unless newer ones wait.
    pub(super) fn disconnected(&mut self) {
        let mut by_id: Vec<(u16, Outgoing)> = self.in_flight.drain().collect();
        by_id.sort_by_key(|(id, _)| *id);
        let in_flight = by_id.into_iter().map(|(_, outgoing)| outgoing);
        // Of two for a device the later one counts; it was submitted last.
        let lost: Vec<Outgoing> = in_flight.chain(self.submitted.drain(..)).collect();
        for outgoing in lost.into_iter().rev() {
            if outgoing.kind.is_retained() && !self.desired.contains_key(&outgoing.device) {
                self.push(outgoing.device, outgoing.kind, outgoing.payload);
            }
        }
        self.others.clear();
        self.chunks.clear();
    }

    /// Whether desired states wait or are on their way.
    pub(super) fn owes_desired(&self) -> bool {
        let on_their_way = self.submitted.iter().chain(self.in_flight.values());
        !self.desired.is_empty() || on_their_way.into_iter().any(|outgoing| outgoing.kind.is_retained())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).unwrap()
    }

    fn bodies(outbound: &mut Outbound) -> Vec<Bytes> {
        std::iter::from_fn(|| outbound.submit()).map(|outgoing| outgoing.payload).collect()
    }

    #[test]
    fn the_latest_desired_state_counts_and_survives_the_connection() {
        let mut outbound = Outbound::default();
        for (name, body) in [("a", "a1"), ("b", "b1"), ("a", "a2")] {
            outbound.push(device(name), DownKind::Desired, body.into());
        }
        outbound.push(device("a"), DownKind::Ack, "ack".into());
        assert_eq!(bodies(&mut outbound), ["ack", "a2", "b1"]);
        outbound.published(0);
        outbound.published(1);
        assert_eq!(outbound.acknowledged(1).unwrap().payload, "a2");
        outbound.push(device("a"), DownKind::Ack, "lost".into());
        outbound.disconnected();
        assert!(outbound.owes_desired());
        assert_eq!(bodies(&mut outbound), ["b1"]);
        outbound.published(1);
        // A newer one is in the queue when the older one's connection goes.
        outbound.push(device("b"), DownKind::Desired, "b2".into());
        outbound.disconnected();
        assert_eq!(bodies(&mut outbound), ["b2"]);
        outbound.published(7);
        outbound.acknowledged(7);
        assert!(!outbound.owes_desired());
        outbound.disconnected();
        assert_eq!(outbound.submit(), None);
    }

    #[test]
    fn pieces_of_artifacts_keep_nothing_else_waiting_and_are_bounded() {
        let mut outbound = Outbound::default();
        for index in 0..MAX_CHUNKS + 10 {
            outbound.push(device("a"), DownKind::Chunk, index.to_string().into());
        }
        outbound.push(device("a"), DownKind::Desired, "desired".into());
        outbound.push(device("a"), DownKind::Ack, "ack".into());
        assert_eq!(bodies(&mut outbound)[..4], ["ack", "desired", "10", "11"]);
        outbound.disconnected();
        assert_eq!(bodies(&mut outbound), ["desired"]);
    }

    #[test]
    fn the_window_and_the_queue_are_bounded() {
        let mut outbound = Outbound::default();
        for index in 0..MAX_OTHERS + 10 {
            outbound.push(device("a"), DownKind::Ack, index.to_string().into());
        }
        let first = bodies(&mut outbound);
        assert_eq!(first.len(), WINDOW);
        assert_eq!(first[0], "10");
        // QoS 0: written is done.
        outbound.published(0);
        assert_eq!(bodies(&mut outbound).len(), 1);
    }
}
