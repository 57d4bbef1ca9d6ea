//! What has been counted and not been acknowledged, kept on disk.

mod entry;
mod journal;
mod medium;
mod record;
mod store;
#[cfg(test)]
mod testing;

pub use entry::Item;
pub use journal::{Damage, Journal, JournalError};
pub use medium::{FileMedium, Medium};
pub use record::{Change, Key};
pub use store::{Admitted, Body, Queue, QueueError, QueueLimits, Recovered};
