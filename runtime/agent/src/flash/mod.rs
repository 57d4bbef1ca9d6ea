//! What a device keeps in NOR flash: small values that are replaced as a whole ([`Cell`]), and the two places of a model
//! slot ([`BankWriter`]).
//!
//! Everything goes through `embedded-storage`, so it works with the flash driver of any board. Power may be lost at any
//! moment: a value that was being written is then the old one or the new one, and a bank holds what a record says is
//! there.

mod bank;
mod cell;

use core::fmt;

pub use bank::BankWriter;
pub use cell::Cell;

/// Why flash could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlashError<E> {
    /// The driver said so.
    Driver(E),
    /// The region does not consist of whole erase pages (of a cell: of an even number of them), or what is written is no
    /// multiple of what the flash writes at once.
    Layout,
    /// More than there is room for.
    Full,
    /// What was written is not there: the flash is worn out, or protected.
    Worn,
}

impl<E> From<E> for FlashError<E> {
    fn from(error: E) -> Self {
        Self::Driver(error)
    }
}

impl<E: fmt::Debug> fmt::Display for FlashError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => write!(f, "the flash failed: {error:?}"),
            Self::Layout => f.write_str("the region does not fit the flash's pages or words"),
            Self::Full => f.write_str("there is no room for it"),
            Self::Worn => f.write_str("what was written to the flash is not there"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for FlashError<E> {}

/// Whether the region consists of whole pages.
fn fits_pages(region: &core::ops::Range<u32>, page: usize) -> bool {
    let Ok(page) = u32::try_from(page) else { return false };
    page > 0
        && region.start.is_multiple_of(page)
        && region.end.is_multiple_of(page)
        && region.start < region.end
}
