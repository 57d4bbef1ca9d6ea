//! An owner of models with keys, and what they sign.

use dunlin_protocol::{
    Desired, DesiredSlot, List, Name, PublicKey, Release, Role, RoleKeys, Root, write_signed,
};
use dunlin_trust::SigningKey;

pub(crate) const DEVICE: &str = "pump-7";
pub(crate) const HARDWARE: &str = "cortex-m4";
pub(crate) const NOW: u64 = 1_795_000_000;
pub(crate) const DAY: u64 = 86_400;

/// The key with this number.
pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_secret(&[number; 32])
}

/// Keys of the three roles by number, and how many of each must sign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authority {
    pub(crate) number: u32,
    pub(crate) expires: u64,
    pub(crate) root: (&'static [u8], u8),
    pub(crate) release: (&'static [u8], u8),
    pub(crate) director: (&'static [u8], u8),
}

pub(crate) const FIRST: Authority =
    Authority { number: 1, expires: 0, root: (&[1], 1), release: (&[2], 1), director: (&[3], 1) };

impl Authority {
    /// The root, signed by these keys.
    pub(crate) fn root(&self, signers: &[u8]) -> Vec<u8> {
        let lists = [self.root, self.release, self.director]
            .map(|(keys, _)| keys.iter().map(|number| PublicKey(key(*number).public())).collect::<Vec<_>>());
        let thresholds = [self.root.1, self.release.1, self.director.1];
        let names = [Role::Root, Role::Release, Role::Director];
        let roles: Vec<RoleKeys<'_>> = names
            .into_iter()
            .zip(thresholds)
            .zip(&lists)
            .map(|((role, threshold), keys)| RoleKeys { role, threshold, keys: keys.as_slice().into() })
            .collect();
        root(self.number, self.expires, &roles, signers)
    }
}

pub(crate) fn root(number: u32, expires: u64, roles: &[RoleKeys<'_>], signers: &[u8]) -> Vec<u8> {
    let root =
        Root { number, issued_unix_s: NOW - 10 * DAY, expires_unix_s: expires, roles: List::from(roles) };
    signed(|out| root.encode(out).unwrap(), |key, bytes| key.sign::<Root<'_>>(bytes), signers)
}

/// A version of the model `kws`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) version: u32,
    pub(crate) digest: [u8; 32],
    pub(crate) size: u32,
    pub(crate) floor: u32,
    pub(crate) expires: u64,
    pub(crate) hardware: &'static [Name<'static>],
}

/// A version whose digest is made of its number.
pub(crate) fn version(version: u32) -> Version {
    let (digest, size) = ([version as u8; 32], 1000_u32.wrapping_add(version));
    Version { version, digest, size, floor: 0, expires: 0, hardware: &[] }
}

impl Version {
    pub(crate) fn release(&self, signers: &[u8]) -> Vec<u8> {
        let release = Release {
            model: "kws",
            version: self.version,
            digest: self.digest,
            size: self.size,
            issued_unix_s: NOW - DAY,
            expires_unix_s: self.expires,
            floor: self.floor,
            hardware: self.hardware.into(),
        };
        signed(|out| release.encode(out).unwrap(), |key, bytes| key.sign::<Release<'_>>(bytes), signers)
    }

    pub(crate) fn slot<'a>(&self, release: &'a [u8]) -> DesiredSlot<'a> {
        DesiredSlot {
            slot: "main",
            version: self.version,
            model: self.digest,
            size: self.size,
            url: "",
            settings: List::default(),
            name: "kws",
            release,
        }
    }
}

/// The assignment of a generation, written at that many seconds after [`NOW`], valid for a day.
pub(crate) fn desired<'a>(generation: u64, slots: &'a [DesiredSlot<'a>]) -> Desired<'a> {
    Desired {
        generation,
        issued_unix_s: NOW + generation,
        expires_unix_s: NOW + generation + DAY,
        slots: slots.into(),
        device: DEVICE,
        root: 1,
        ..Desired::default()
    }
}

pub(crate) fn assignment(desired: &Desired<'_>, signers: &[u8]) -> Vec<u8> {
    signed(|out| desired.encode(out).unwrap(), |key, bytes| key.sign::<Desired<'_>>(bytes), signers)
}

fn signed(
    encode: impl Fn(&mut [u8]) -> usize,
    sign: impl Fn(&SigningKey, &[u8]) -> dunlin_protocol::Signature,
    signers: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    let len = encode(&mut bytes);
    bytes.truncate(len);
    let signatures: Vec<_> = signers.iter().map(|number| sign(&key(*number), &bytes)).collect();
    let mut out = vec![0; 8192];
    let len = write_signed(&bytes, signatures.as_slice().into(), &mut out).unwrap();
    out.truncate(len);
    out
}
