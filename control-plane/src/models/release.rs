//! What the owners of a model sign about a version.

use dunlin_protocol::limits::MAX_RELEASE;
use dunlin_protocol::{DecodeError, List, Release, Signature, Signed, write_signed};
use dunlin_trust::{Dalek, Verifier as _, digest};

use super::store::Version;
use crate::clock::SECOND_US;
use crate::trust::KeySet;

/// Why a release is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReleaseRefused {
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    #[error("its {0} is not that of the version")]
    Mismatch(&'static str),
    #[error("nobody has signed it")]
    Unsigned,
    #[error("the key {0} is no release key of the newest root")]
    Key(String),
    #[error("the signature by the key {0} is wrong")]
    Signature(String),
    #[error("it expired at {0} s since 1970")]
    Expired(u64),
    #[error("it withdraws versions below {0}, and with them itself")]
    Floor(u32),
    #[error("there are no release keys yet; make them with: dunlin keys create")]
    NoRoot,
    #[error("the version has a release that was written later")]
    Older,
    #[error(
        "the version has a release that is signed by enough keys; replace it by one that is too: let {threshold} keys \
         sign before it is uploaded"
    )]
    Incomplete { threshold: u8 },
}

/// Checks a signed release of a version, and joins its signatures with those of the release that is there, if that
/// says the same.
pub(super) fn merge(
    message: &[u8],
    there: Option<&[u8]>,
    version: &Version,
    keys: &KeySet,
    now_us: i64,
) -> Result<Vec<u8>, ReleaseRefused> {
    let new: Signed<'_, Release<'_>> = Signed::decode(message)?;
    let release = new.message;
    for (field, is_same) in [
        ("model", release.model == version.model),
        ("version", i64::from(release.version) == version.version),
        ("digest", hex::encode(release.digest) == version.digest),
        ("size", i64::from(release.size) == version.size),
    ] {
        if !is_same {
            return Err(ReleaseRefused::Mismatch(field));
        }
    }
    if keys.threshold == 0 {
        return Err(ReleaseRefused::NoRoot);
    }
    if is_expired(&release, now_us) {
        return Err(ReleaseRefused::Expired(release.expires_unix_s));
    }
    if release.floor > release.version {
        return Err(ReleaseRefused::Floor(release.floor));
    }
    let signed = digest::<Release<'_>>(new.bytes);
    let mut signatures: Vec<Signature> = Vec::new();
    for signature in new.signatures.iter() {
        let key = || hex::encode(signature.key);
        if !keys.keys.contains(&signature.key) {
            return Err(ReleaseRefused::Key(key()));
        }
        if !Dalek.verify(&signature.key, &signed, &signature.signature) {
            return Err(ReleaseRefused::Signature(key()));
        }
        if signatures.iter().all(|other| other.key != signature.key) {
            signatures.push(signature);
        }
    }
    if signatures.is_empty() {
        return Err(ReleaseRefused::Unsigned);
    }
    // What is there was written by this function.
    if let Some(old) = there.and_then(|there| Signed::<Release<'_>>::decode(there).ok()) {
        if old.bytes == new.bytes {
            // Keys that were revoked since count no more; their signatures make room.
            let others = old.signatures.iter().filter(|old| keys.keys.contains(&old.key));
            let others: Vec<Signature> =
                others.filter(|old| signatures.iter().all(|new| new.key != old.key)).collect();
            signatures.extend(others);
        } else if release.issued_unix_s < old.message.issued_unix_s {
            return Err(ReleaseRefused::Older);
        } else if signers(&old, keys) >= usize::from(keys.threshold)
            && signatures.len() < usize::from(keys.threshold)
        {
            return Err(ReleaseRefused::Incomplete { threshold: keys.threshold });
        }
    }
    signatures.sort_by_key(|signature| signature.key);
    let mut out = vec![0; MAX_RELEASE];
    let length = write_signed(new.bytes, List::from(signatures.as_slice()), &mut out)
        .map_err(|_| DecodeError::Limit { field: "release" })?;
    out.truncate(length);
    Ok(out)
}

/// How many of the keys have signed.
pub(super) fn signers(signed: &Signed<'_, Release<'_>>, keys: &KeySet) -> usize {
    keys.keys.iter().filter(|key| signed.signatures.iter().any(|signature| signature.key == **key)).count()
}

/// Whether enough of the keys have signed.
pub(super) fn is_complete(signed: &Signed<'_, Release<'_>>, keys: &KeySet) -> bool {
    keys.threshold > 0 && signers(signed, keys) >= usize::from(keys.threshold)
}

/// Why devices would not install a version; `None` when they would. `message` is its release, `above` are those of the
/// model that withdraw it.
pub(super) fn obstacle(
    version: &Version,
    above: &[Vec<u8>],
    keys: &KeySet,
    hardware: &str,
    now_us: i64,
) -> Option<String> {
    let name = format!("version {} of {:?}", version.version, version.model);
    let sign = format!("dunlin model sign {} {}", version.model, version.version);
    let Some(signed) = version.release.as_deref().and_then(|message| Signed::decode(message).ok()) else {
        return Some(format!("{name} has no signed release; sign it with: {sign}"));
    };
    let release: &Release<'_> = &signed.message;
    if !is_complete(&signed, keys) {
        let (count, threshold) = (signers(&signed, keys), keys.threshold);
        return Some(format!(
            "the release of {name} is signed by {count} of the {threshold} keys that must; add one with: {sign}"
        ));
    }
    if is_expired(release, now_us) {
        return Some(format!("the release of {name} has expired; sign it again with: {sign}"));
    }
    let floors = above.iter().filter_map(|message| Signed::<Release<'_>>::decode(message).ok());
    let floors = floors.filter(|signed| is_complete(signed, keys)).map(|signed| signed.message);
    if let Some(other) = floors.max_by_key(|release| release.floor) {
        let (floor, by) = (other.floor, other.version);
        return Some(format!("{name} was withdrawn by the release of version {by}: {floor} is the lowest"));
    }
    let classes: Vec<&str> = release.hardware.iter().map(|class| class.0).collect();
    if !classes.is_empty() && !classes.contains(&hardware) {
        let classes = classes.join(", ");
        return Some(format!(
            "the release of {name} is for {classes}; the device's hardware is {hardware:?}"
        ));
    }
    None
}

fn is_expired(release: &Release<'_>, now_us: i64) -> bool {
    let now_unix_s = (now_us / SECOND_US).max(0).unsigned_abs();
    release.expires_unix_s != 0 && release.expires_unix_s < now_unix_s
}
