//! An owner of models with keys, for tests: what they sign, and the way to upload it.

use axum::http::Method;
use dunlin_protocol::{Name, PublicKey, Release, Role, RoleKeys, Root, Signable, Signature, write_signed};
use dunlin_trust::SigningKey;

use crate::testing::{Answer, START_US, TestApp};

/// When the tests' clock begins.
pub(crate) const NOW: u64 = START_US.unsigned_abs() / 1_000_000;

/// The key with this number.
pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_secret(&[number; 32])
}

/// A root: keys 1 to 9 are root keys, from 10 on release keys.
#[derive(Clone, Debug)]
pub(crate) struct NewRoot {
    pub(crate) number: u32,
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    pub(crate) root: (Vec<u8>, u8),
    pub(crate) release: (Vec<u8>, u8),
    pub(crate) director: (Vec<[u8; 32]>, u8),
}

impl NewRoot {
    /// Root 1 with one key for each role, the director's being this server's.
    pub(crate) fn first(test: &TestApp) -> Self {
        let director = test.app.trust.director().expect("opened").public();
        NewRoot {
            number: 1,
            issued: NOW,
            expires: 0,
            root: (vec![1], 1),
            release: (vec![10], 1),
            director: (vec![director], 1),
        }
    }

    /// The root, signed by these keys.
    pub(crate) fn signed(&self, signers: &[u8]) -> Vec<u8> {
        let public = |numbers: &[u8]| -> Vec<_> {
            numbers.iter().map(|number| PublicKey(key(*number).public())).collect()
        };
        let directors: Vec<_> = self.director.0.iter().copied().map(PublicKey).collect();
        let (root, release) = (public(&self.root.0), public(&self.release.0));
        let of = |role, threshold, keys: &[PublicKey]| (role, threshold, keys.to_vec());
        let lists = [
            of(Role::Root, self.root.1, &root),
            of(Role::Release, self.release.1, &release),
            of(Role::Director, self.director.1, &directors),
        ];
        let roles: Vec<_> = lists
            .iter()
            .map(|(role, threshold, keys)| RoleKeys {
                role: *role,
                threshold: *threshold,
                keys: keys.as_slice().into(),
            })
            .collect();
        let root = Root {
            number: self.number,
            issued_unix_s: self.issued,
            expires_unix_s: self.expires,
            roles: roles.as_slice().into(),
        };
        let mut bytes = vec![0; 4096];
        let len = root.encode(&mut bytes).expect("encoded");
        sign::<Root<'_>>(&bytes[..len], signers)
    }

    /// Uploads the root, signed by these keys.
    pub(crate) async fn upload(&self, test: &TestApp, signers: &[u8]) -> Answer {
        let path = "/api/v1/trust/roots";
        test.send_bytes(Method::POST, path, &test.admin, self.signed(signers)).await
    }
}

/// Signs a message's bytes with these keys.
pub(crate) fn sign<'a, T: Signable<'a>>(bytes: &[u8], signers: &[u8]) -> Vec<u8> {
    let signatures: Vec<Signature> = signers.iter().map(|number| key(*number).sign::<T>(bytes)).collect();
    let mut out = vec![0; bytes.len() + 1024];
    let len = write_signed(bytes, signatures.as_slice().into(), &mut out).expect("written");
    out.truncate(len);
    out
}

/// What an owner says about a version.
#[derive(Clone, Debug)]
pub(crate) struct NewRelease {
    pub(crate) model: &'static str,
    pub(crate) version: u32,
    pub(crate) digest: [u8; 32],
    pub(crate) size: u32,
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    pub(crate) floor: u32,
    pub(crate) hardware: Vec<&'static str>,
}

impl NewRelease {
    /// That a version is what the API shows.
    pub(crate) fn of(model: &'static str, version: &serde_json::Value) -> Self {
        let number = |name: &str| u32::try_from(version[name].as_u64().expect("a number")).expect("small");
        let digest = hex::decode(version["digest"].as_str().expect("a digest")).expect("hex");
        NewRelease {
            model,
            version: number("version"),
            digest: digest.try_into().expect("32 bytes"),
            size: number("size"),
            issued: NOW,
            expires: 0,
            floor: 0,
            hardware: Vec::new(),
        }
    }

    /// The release, signed by these keys.
    pub(crate) fn signed(&self, signers: &[u8]) -> Vec<u8> {
        let hardware: Vec<_> = self.hardware.iter().copied().map(Name).collect();
        let release = Release {
            model: self.model,
            version: self.version,
            digest: self.digest,
            size: self.size,
            issued_unix_s: self.issued,
            expires_unix_s: self.expires,
            floor: self.floor,
            hardware: hardware.as_slice().into(),
        };
        let mut bytes = vec![0; 4096];
        let len = release.encode(&mut bytes).expect("encoded");
        sign::<Release<'_>>(&bytes[..len], signers)
    }

    /// Where it is uploaded to.
    pub(crate) fn path(&self) -> String {
        format!("/api/v1/models/{}/versions/{}/release", self.model, self.version)
    }

    /// Uploads the release, signed by these keys.
    pub(crate) async fn upload(&self, test: &TestApp, signers: &[u8]) -> Answer {
        test.send_bytes(Method::PUT, &self.path(), &test.admin, self.signed(signers)).await
    }
}
