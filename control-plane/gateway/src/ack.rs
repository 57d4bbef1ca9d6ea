//! Acknowledgements: the token that a handler holds, and the order in which PUBACKs leave.

use crate::link::Link;
use std::{collections::VecDeque, fmt, sync::Arc};
use tokio::sync::OwnedSemaphorePermit;

/// The duty to acknowledge one publish. [`AckToken::done`] has its PUBACK sent, as soon as all earlier publishes of
/// the connection are done too (MQTT 5, 4.6: in the order of the PUBLISH packets). Dropping the token closes the
/// connection without a PUBACK. If the connection is gone already, both do nothing: the device sends again.
#[must_use = "dropping the token closes the connection"]
pub struct AckToken {
    /// The connection and the publish's number in it; none for QoS 0 and after the end.
    end: Option<(Arc<Link>, u64)>,
    /// The share of the bound on everything in flight; given back with the token.
    _share: OwnedSemaphorePermit,
}

impl AckToken {
    pub(crate) fn new(end: Option<(Arc<Link>, u64)>, share: OwnedSemaphorePermit) -> AckToken {
        AckToken { end, _share: share }
    }

    /// The message is committed: acknowledge it.
    pub fn done(mut self) {
        if let Some((link, number)) = self.end.take() {
            link.complete(number, true);
        }
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        if let Some((link, number)) = self.end.take() {
            link.complete(number, false);
        }
    }
}

impl fmt::Debug for AckToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AckToken")
    }
}

/// The publishes of one connection that have no PUBACK yet, in the order they came. Pure.
#[derive(Debug, Default)]
pub(crate) struct AckQueue {
    /// Number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    packet_id: u16,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Ready(Answer),
}

/// What a PUBACK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Committed,
    NotAuthorized,
}

impl AckQueue {
    /// Adds a publish that waits for its token; returns its number.
    pub(crate) fn push(&mut self, packet_id: u16) -> u64 {
        self.entries.push_back(Entry { packet_id, state: State::Waiting });
        self.first + self.entries.len() as u64 - 1
    }

    /// Adds a publish whose answer is known; it waits for its turn only.
    pub(crate) fn push_answer(&mut self, packet_id: u16, answer: Answer) {
        self.entries.push_back(Entry { packet_id, state: State::Ready(answer) });
    }

    /// The publish with this number is committed.
    pub(crate) fn complete(&mut self, number: u64) {
        let entry = number.checked_sub(self.first).and_then(|index| self.entries.get_mut(index as usize));
        if let Some(entry) = entry {
            entry.state = State::Ready(Answer::Committed);
        }
    }

    /// The next PUBACK that may leave.
    pub(crate) fn pop(&mut self) -> Option<(u16, Answer)> {
        let Entry { packet_id, state: State::Ready(answer) } = *self.entries.front()? else { return None };
        self.entries.pop_front();
        self.first += 1;
        if self.entries.is_empty() {
            self.entries = VecDeque::new(); // An idle connection keeps no memory for it.
        }
        Some((packet_id, answer))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_wait_for_their_turn() {
        let mut queue = AckQueue::default();
        let first = queue.push(10);
        queue.push_answer(11, Answer::NotAuthorized);
        let third = queue.push(12);
        queue.complete(third);
        assert_eq!(queue.pop(), None);
        queue.complete(first);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(10, Answer::Committed), (11, Answer::NotAuthorized), (12, Answer::Committed)]);
        // Numbers go on; an old one does nothing.
        assert_eq!(queue.push(13), 3);
        queue.complete(first);
        assert_eq!(queue.pop(), None);
    }

    proptest! {
        /// Whatever the order of completion, PUBACKs leave in the order of the publishes, and all leave in the end.
        #[test]
        fn any_order_of_completion(order in Just((0u16..50).collect::<Vec<_>>()).prop_shuffle()) {
            let mut queue = AckQueue::default();
            let numbers: Vec<u64> = (0..50).map(|id| queue.push(id + 1)).collect();
            let mut left = Vec::new();
            for index in order {
                queue.complete(numbers[index as usize]);
                left.extend(std::iter::from_fn(|| queue.pop()).map(|(id, _)| id));
            }
            prop_assert_eq!(left, (1..=50).collect::<Vec<u16>>());
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
