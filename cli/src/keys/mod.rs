//! The owner's side of trust: the keys that root and releases are signed with, and the roots that name them.
//!
//! The control plane only passes roots on. So nothing here believes it more than a device does: a root is derived from
//! the newest one that follows, signature by signature, from the one that the key folder remembers.

mod file;
mod folder;
mod release;
mod root;
mod server;

pub(crate) use file::SignedFile;
pub(crate) use folder::{Folder, read_key};
pub(crate) use release::{SignedRelease, Terms, Version};
pub(crate) use root::{Content, SignedRoot};
pub(crate) use server::ServerTrust;

use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_control_plane::time::Timestamp;
use serde_json::Value;

use crate::error::Failure;

/// An Ed25519 public key.
pub(crate) type Key = [u8; 32];

/// A public key as people write it.
pub(crate) fn parse_key(text: &str) -> Result<Key, Failure> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).map_err(|_| {
        Failure::usage(format!("{text:?} is no public key"))
            .way_out("64 hexadecimal digits, as `dunlin keys public FILE` prints them")
    })?;
    Ok(key)
}

/// Seconds since 1970 UTC.
pub(crate) fn now_unix_s() -> Result<u64, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.map_err(|_| Failure::new("the clock of this machine is not set"))?.as_secs())
}

/// When something ends that is valid for so many days; 0, which is never, for none.
pub(crate) fn expiry(from_unix_s: u64, days: u32) -> u64 {
    const DAY_S: u64 = 86_400;
    if days == 0 { 0 } else { from_unix_s.saturating_add(u64::from(days).saturating_mul(DAY_S)) }
}

/// A time of a root or a release as JSON; null for 0, which is never.
pub(crate) fn time(unix_s: u64) -> Value {
    const SECOND_US: u64 = 1_000_000;
    let micros = i64::try_from(unix_s.saturating_mul(SECOND_US)).unwrap_or(i64::MAX);
    match unix_s {
        0 => Value::Null,
        _ => serde_json::to_value(Timestamp(micros)).unwrap_or_default(),
    }
}
