//! Counters, of which most are zero: only the others are sent.

use core::fmt;

use crate::DecodeError;
use crate::limits::MAX_COUNT;
use crate::wire::Reader;

/// Counters in a message, the zero ones left out.
///
/// On the wire: a byte string of (gap, count) pairs, both postcard varints: `gap` is how many counters were left
/// out since the one before, `count` is at least 1.
#[derive(Clone, Copy)]
pub struct Bins<'a> {
    pairs: Reader<'a>,
}

impl<'a> Bins<'a> {
    /// Reads and checks a byte string of pairs for at most `counters` counters.
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        field: &'static str,
        counters: u32,
    ) -> Result<Self, DecodeError> {
        let pairs = reader.nested(field)?;
        let mut unread = pairs;
        let mut next = 0;
        while !unread.is_empty() {
            let (index, _) = pair(&mut unread, field, next)?;
            next = u64::from(index) + 1;
            if next > u64::from(counters) {
                return Err(DecodeError::Limit { field });
            }
        }
        Ok(Self { pairs })
    }

    /// The index of each counter that is not zero, in ascending order, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + 'a + use<'a> {
        let mut unread = self.pairs;
        let mut next = 0;
        core::iter::from_fn(move || {
            // Everything was checked by `read`.
            let (index, count) = pair(&mut unread, "bins", next).ok()?;
            next = u64::from(index) + 1;
            Some((index as usize, count))
        })
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.iter().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Whether all counters are zero.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn pair(reader: &mut Reader, field: &'static str, next: u64) -> Result<(u32, u64), DecodeError> {
    let gap: u32 = reader.take(field)?;
    let index = u32::try_from(next + u64::from(gap)).map_err(|_| DecodeError::Limit { field })?;
    match reader.take(field)? {
        0 => Err(DecodeError::Invalid { field }),
        count @ 1..=MAX_COUNT => Ok((index, count)),
        _ => Err(DecodeError::Limit { field }),
    }
}

impl PartialEq for Bins<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Bins<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
