//! What is known of one boot of one device.

use dunlin_protocol::{SequenceWindow, Verdict};

use crate::bus::DeviceId;

/// One boot of one device: the numbers of its messages begin at 0 in each boot.
pub type SequenceKey = (DeviceId, u64);

/// Which messages of a boot are applied, and what they add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The applied messages.
    pub window: SequenceWindow,
    /// How often the row was written; 0: not yet. A writer that read an older version than it finds is refused.
    pub version: i64,
    /// Messages that were applied.
    pub applied: u64,
    /// Messages that the device gave up before they arrived.
    pub lost: u64,
    /// Reports among the applied ones.
    pub reports: u64,
    /// Inferences that the reports tell of.
    pub inferences: u64,
    /// Failed inferences that the reports tell of.
    pub failures: u64,
    /// When the first message was received, microseconds UTC.
    pub first_us: i64,
    /// When the last report was received, microseconds UTC; 0: none yet.
    pub report_us: i64,
    /// The number of the last state message that was applied; -1: none yet.
    pub state_seq: i64,
}

impl Sequence {
    /// A boot that was never heard of before.
    pub fn new(now_us: i64) -> Self {
        Sequence { first_us: now_us, state_seq: -1, ..Sequence::default() }
    }

    /// Takes note of a message; counts those that the device gave up.
    pub fn apply(&mut self, seq: u64, oldest: u64) -> Verdict {
        let before = self.window;
        let verdict = self.window.apply(seq, oldest);
        if verdict != Verdict::Malformed && oldest > before.base() {
            let skipped = oldest - before.base();
            // Bit i of the bitmap is message base + 1 + i: those below `oldest` were applied.
            let applied = match skipped.saturating_sub(1) {
                bits @ 0..=63 => before.bitmap() & ((1_u64 << bits) - 1),
                _ => before.bitmap(),
            };
            self.lost = self.lost.saturating_add(skipped - u64::from(applied.count_ones()));
        }
        if verdict == Verdict::Fresh {
            self.applied += 1;
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_that_a_device_gives_up_are_counted_once() {
        let mut sequence = Sequence::new(0);
        assert_eq!(sequence.apply(0, 0), Verdict::Fresh);
        assert_eq!(sequence.apply(3, 0), Verdict::Fresh);
        // 1, 2 and 4 never arrived, and never will.
        assert_eq!(sequence.apply(5, 5), Verdict::Fresh);
        assert_eq!((sequence.applied, sequence.lost, sequence.window.base()), (3, 3, 6));
        assert_eq!(sequence.apply(4, 4), Verdict::Duplicate);
        assert_eq!(sequence.apply(200, 200), Verdict::Fresh);
        assert_eq!((sequence.applied, sequence.lost), (4, 3 + 194));
        assert_eq!(sequence.apply(300, 100), Verdict::Malformed);
        assert_eq!((sequence.applied, sequence.lost), (4, 3 + 194));
    }

    proptest! {
        /// Every number below the base was either applied or lost, never both.
        #[test]
        fn applied_and_lost_add_up(steps in proptest::collection::vec((0_u64..400, 0_u64..64), 0..200)) {
            let mut sequence = Sequence::new(0);
            for (oldest, ahead) in steps {
                sequence.apply(oldest + ahead, oldest);
                let ahead = u64::from(sequence.window.bitmap().count_ones());
                prop_assert_eq!(sequence.window.base() + ahead, sequence.applied + sequence.lost);
            }
        }
    }
}
