//! Acknowledgements: the token that a handler holds, and the order in which they leave.

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

/// Acknowledgements that must leave in the order of their messages (MQTT 5, 4.6), whatever the order in which the
/// messages are dealt with. Pure.
///
/// ```
/// let mut order = dunlin_gateway::InOrder::default();
/// let (first, second) = (order.push("first"), order.push("second"));
/// order.complete(second);
/// assert_eq!(order.pop(), None);
/// order.complete(first);
/// assert_eq!((order.pop(), order.pop()), (Some("first"), Some("second")));
/// ```
#[derive(Debug)]
pub struct InOrder<T> {
    /// Number of the first entry.
    first: u64,
    /// What to send, and whether it may be.
    entries: VecDeque<(T, bool)>,
}

impl<T> Default for InOrder<T> {
    fn default() -> InOrder<T> {
        InOrder { first: 0, entries: VecDeque::new() }
    }
}

impl<T> InOrder<T> {
    /// Adds an acknowledgement that must not be sent yet; returns its number.
    pub fn push(&mut self, acknowledgement: T) -> u64 {
        self.entries.push_back((acknowledgement, false));
        self.first + self.entries.len() as u64 - 1
    }

    /// Adds one that waits for its turn only.
    pub fn push_complete(&mut self, acknowledgement: T) {
        self.entries.push_back((acknowledgement, true));
    }

    /// The acknowledgement of this number may be sent. Numbers of those that were taken do nothing.
    pub fn complete(&mut self, number: u64) {
        let entry = number.checked_sub(self.first).and_then(|index| self.entries.get_mut(index as usize));
        if let Some((_, complete)) = entry {
            *complete = true;
        }
    }

    /// The next acknowledgement, if it is its turn.
    pub fn pop(&mut self) -> Option<T> {
        let (acknowledgement, _) = self.entries.pop_front_if(|(_, complete)| *complete)?;
        self.first += 1;
        if self.entries.is_empty() {
            self.entries = VecDeque::new(); // An idle connection keeps no memory for it.
        }
        Some(acknowledgement)
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_wait_for_their_turn() {
        let mut queue = InOrder::default();
        let first = queue.push(10);
        queue.push_complete(11);
        let third = queue.push(12);
        queue.complete(third);
        assert_eq!(queue.pop(), None);
        queue.complete(first);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [10, 11, 12]);
        // Numbers go on; an old one does nothing.
        assert_eq!(queue.push(13), 3);
        queue.complete(first);
        assert_eq!(queue.pop(), None);
    }

    proptest! {
        /// Whatever the order of completion, PUBACKs leave in the order of the publishes, and all leave in the end.
        #[test]
        fn any_order_of_completion(order in Just((0u16..50).collect::<Vec<_>>()).prop_shuffle()) {
            let mut queue = InOrder::default();
            let numbers: Vec<u64> = (0..50).map(|id| queue.push(id + 1)).collect();
            let mut left = Vec::new();
            for index in order {
                queue.complete(numbers[index as usize]);
                left.extend(std::iter::from_fn(|| queue.pop()));
            }
            prop_assert_eq!(left, (1..=50).collect::<Vec<u16>>());
            prop_assert_eq!(queue.len(), 0);
        }
    }
}
