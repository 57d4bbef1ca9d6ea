//! What has been counted and not been acknowledged, kept on disk.

mod journal;
mod medium;
mod record;

pub use journal::{Damage, Journal, JournalError};
pub use medium::{FileMedium, Medium};
pub use record::{Change, Key};
