//! Releases: what the owners of a model sign about a version.

use dunlin_protocol::limits::MAX_RELEASE;
use dunlin_protocol::{Name, Release, Role, Signature, Signed, write_signed};
use dunlin_trust::{Dalek, SigningKey, Verifier as _, digest};
use serde_json::{Value, json};

use super::{Content, expiry, time};
use crate::error::Failure;

/// The artifact that is signed: what its bytes are, not what a server says of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version<'a> {
    pub(crate) model: &'a str,
    pub(crate) version: u32,
    pub(crate) digest: [u8; 32],
    pub(crate) size: u32,
}

/// What the owner says beside that.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Release")]
pub(crate) struct Terms {
    /// Withdraw the model's versions below this one: devices install them no more, whoever assigns them.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
    floor: Option<u32>,
    /// A hardware class that the version is for; repeat for more. Otherwise it is for all.
    #[arg(long, value_name = "CLASS")]
    hardware: Vec<String>,
    /// After how many days devices install it no more; those that run it go on. Otherwise never.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    expires: Option<u32>,
}

impl Terms {
    /// Whether anything is said.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Terms::default()
    }
}

/// A release and its signatures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SignedRelease {
    /// What is signed: exactly these bytes.
    bytes: Vec<u8>,
    signatures: Vec<Signature>,
}

impl SignedRelease {
    /// A release that nobody has signed yet.
    pub(crate) fn new(version: &Version<'_>, terms: &Terms, now_unix_s: u64) -> Result<Self, Failure> {
        let classes: Vec<Name<'_>> = terms.hardware.iter().map(|class| Name(class)).collect();
        let release = Release {
            model: version.model,
            version: version.version,
            digest: version.digest,
            size: version.size,
            issued_unix_s: now_unix_s,
            expires_unix_s: expiry(now_unix_s, terms.expires.unwrap_or_default()),
            floor: terms.floor.unwrap_or_default(),
            hardware: classes.as_slice().into(),
        };
        if release.floor > release.version {
            let message = format!("--floor {} withdraws version {} itself", release.floor, release.version);
            return Err(Failure::usage(message).way_out(format!("at most --floor {}", release.version)));
        }
        let mut bytes = vec![0; MAX_RELEASE];
        let len = release.encode(&mut bytes).map_err(|error| unwritable(&error))?;
        bytes.truncate(len);
        Ok(SignedRelease { bytes, signatures: Vec::new() })
    }

    /// Reads a release. Its signatures are not checked: the control plane does that.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, Failure> {
        let signed: Signed<'_, Release<'_>> =
            Signed::decode(message).map_err(|error| Failure::new(format!("is no release: {error}")))?;
        Ok(SignedRelease { bytes: signed.bytes.to_vec(), signatures: signed.signatures.iter().collect() })
    }

    /// What it says, for people and programs.
    pub(crate) fn describe(&self) -> Result<Value, Failure> {
        let message = self.encode()?;
        let signed: Signed<'_, Release<'_>> =
            Signed::decode(&message).map_err(|error| Failure::new(format!("the release: {error}")))?;
        let release = signed.message;
        let hardware: Vec<&str> = release.hardware.iter().map(|class| class.0).collect();
        let signers: Vec<String> =
            self.signatures.iter().map(|signature| hex::encode(signature.key)).collect();
        Ok(json!({
            "model": release.model, "version": release.version, "digest": hex::encode(release.digest),
            "size": release.size, "issued": time(release.issued_unix_s), "expires": time(release.expires_unix_s),
            "floor": release.floor, "hardware": hardware, "signers": signers,
        }))
    }

    /// The release that a control plane has, if it is about this version and an owner has signed it: then another one can
    /// sign the same.
    pub(crate) fn of(message: &[u8], version: &Version<'_>, root: &Content) -> Result<Self, Failure> {
        let signed: Signed<'_, Release<'_>> =
            Signed::decode(message).map_err(|error| Failure::new(format!("the release: {error}")))?;
        let Release { model, version: number, digest: artifact, size, .. } = signed.message;
        let same = Version { model, version: number, digest: artifact, size };
        if (same.model, same.version, same.digest, same.size)
            != (version.model, version.version, version.digest, version.size)
        {
            return Err(Failure::new("the release that the control plane has is about something else")
                .way_out("sign nothing and find out why"));
        }
        let hash = digest::<Release<'_>>(signed.bytes);
        let keys = root.keys(Role::Release);
        let valid = |signature: &Signature| {
            keys.contains(&signature.key) && Dalek.verify(&signature.key, &hash, &signature.signature)
        };
        Ok(SignedRelease {
            bytes: signed.bytes.to_vec(),
            signatures: signed.signatures.iter().filter(valid).collect(),
        })
    }

    /// How many owners have signed it.
    pub(crate) fn signatures(&self) -> usize {
        self.signatures.len()
    }

    /// Signs with so many of the keys, at most; those that have signed already add nothing.
    pub(crate) fn sign(&mut self, keys: &[SigningKey], count: usize) {
        let signed =
            |key: &&SigningKey| self.signatures.iter().any(|signature| signature.key == key.public());
        let new: Vec<_> = keys.iter().filter(|key| !signed(key)).take(count).collect();
        self.signatures.extend(new.into_iter().map(|key| key.sign::<Release<'_>>(&self.bytes)));
    }

    /// The release with its signatures, as devices get it.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Failure> {
        let mut message = vec![0; MAX_RELEASE];
        let written = write_signed(&self.bytes, self.signatures.as_slice().into(), &mut message);
        message.truncate(written.map_err(|error| unwritable(&error))?);
        Ok(message)
    }
}

fn unwritable(error: &impl std::fmt::Display) -> Failure {
    Failure::new(format!("the release cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version<'_> = Version { model: "kws", version: 3, digest: [7; 32], size: 100 };

    fn key(number: u8) -> SigningKey {
        SigningKey::from_secret(&[number; 32])
    }

    fn root() -> Content {
        let mut root = Content::first(key(1).public(), key(2).public(), key(3).public(), 1_000);
        root.add(Role::Release, key(4).public()).expect("new");
        root
    }

    #[test]
    fn owners_sign_the_same_one_after_another() {
        let terms = Terms { floor: Some(2), hardware: vec!["mcu".to_owned()], expires: Some(1) };
        let mut release = SignedRelease::new(&VERSION, &terms, 5_000).expect("a release");
        release.sign(&[key(2)], 1);
        let message = release.encode().expect("bytes");
        let mut joined = SignedRelease::of(&message, &VERSION, &root()).expect("the same");
        assert_eq!(joined, release);
        joined.sign(&[key(2), key(4), key(5)], 1);
        let message = joined.encode().expect("bytes");
        let signed: Signed<'_, Release<'_>> = Signed::decode(&message).expect("a release");
        assert_eq!(signed.signatures.iter().count(), 2);
        assert_eq!((signed.message.floor, signed.message.expires_unix_s), (2, 5_000 + 86_400));
    }

    #[test]
    fn what_a_server_made_up_is_not_signed() {
        let mut forged = SignedRelease::new(&VERSION, &Terms::default(), 5_000).expect("a release");
        forged.sign(&[key(9)], 1);
        let message = forged.encode().expect("bytes");
        assert_eq!(SignedRelease::of(&message, &VERSION, &root()).expect("readable").signatures(), 0);
        let other = Version { digest: [8; 32], ..VERSION };
        let line = SignedRelease::of(&message, &other, &root()).expect_err("another artifact").line();
        assert!(line.contains("about something else"), "{line}");
        let terms = Terms { floor: Some(4), ..Terms::default() };
        let line = SignedRelease::new(&VERSION, &terms, 5_000).expect_err("withdraws itself").line();
        assert!(line.contains("--floor 4") && line.contains("at most --floor 3"), "{line}");
    }
}
