//! The owner of a model: an artifact, the keys, and what they sign.

use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_artifact::writer::{Contents, instruction};
use dunlin_artifact::{DType, Kernel, Manifest, Place, Tensor, op};
use dunlin_protocol::{PublicKey, Release, Role, RoleKeys, Root, Signable, write_signed};
use dunlin_trust::SigningKey;

/// The model's name.
pub(crate) const MODEL: &str = "large";

/// An artifact of about so many bytes, most of them constants.
pub(crate) fn artifact(bytes: usize) -> Vec<u8> {
    let weights = u32::try_from(bytes.saturating_sub(1_024).max(1)).expect("less than 4 GiB");
    let tensor = |shape: &[u32], place| Tensor::new(DType::I8, shape, place, 0.5, 0).expect("a tensor");
    let mut random = 1_u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random.to_be_bytes()[0]
    };
    Contents {
        manifest: Manifest {
            name: MODEL,
            producer: "example",
            target: "generic",
            source_format: "none",
            source_digest: [7; 32],
            macs: 8,
            arena_bound: 16,
            io_names: "in\nout",
        },
        tensors: vec![
            tensor(&[8], Place::Arena(0)),
            tensor(&[8], Place::Arena(8)),
            tensor(&[256], Place::Data(0)),
            tensor(&[weights], Place::Data(256)),
        ],
        program: vec![instruction(Kernel::Lut8, &op::Lut8 { input: 0, output: 1, table: 2 })],
        data: (0..weights + 256).map(|_| next()).collect(),
        inputs: vec![0],
        outputs: vec![1],
        states: vec![],
        golden: vec![],
        baseline: None,
        arena_len: 16,
        state_len: 0,
        work: 1_000,
    }
    .write()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

/// The keys that sign roots and releases.
pub(crate) struct Owner {
    root: SigningKey,
    release: SigningKey,
}

impl Owner {
    pub(crate) fn new() -> Self {
        // Nobody believes them but the server of this measurement.
        Owner { root: SigningKey::from_secret(&[1; 32]), release: SigningKey::from_secret(&[2; 32]) }
    }

    /// Root 1, in which this director's key stands.
    pub(crate) fn root(&self, director: [u8; 32]) -> Vec<u8> {
        let keys =
            [[PublicKey(self.root.public())], [PublicKey(self.release.public())], [PublicKey(director)]];
        let [root, release, director] = &keys;
        let roles = [(Role::Root, root), (Role::Release, release), (Role::Director, director)]
            .map(|(role, keys)| RoleKeys { role, threshold: 1, keys: keys.as_slice().into() });
        let root =
            Root { number: 1, issued_unix_s: now(), expires_unix_s: 0, roles: roles.as_slice().into() };
        let mut bytes = [0; 4_096];
        let length = root.encode(&mut bytes).expect("it fits");
        signed::<Root<'_>>(&self.root, &bytes[..length])
    }

    /// That an artifact is version 1 of the model.
    pub(crate) fn release(&self, digest: [u8; 32], size: usize) -> Vec<u8> {
        let release = Release {
            model: MODEL,
            version: 1,
            digest,
            size: u32::try_from(size).expect("less than 4 GiB"),
            issued_unix_s: now(),
            expires_unix_s: 0,
            floor: 0,
            hardware: [].as_slice().into(),
        };
        let mut bytes = [0; 4_096];
        let length = release.encode(&mut bytes).expect("it fits");
        signed::<Release<'_>>(&self.release, &bytes[..length])
    }
}

fn signed<'a, T: Signable<'a>>(key: &SigningKey, bytes: &[u8]) -> Vec<u8> {
    let mut out = [0; 4_096];
    let signatures = [key.sign::<T>(bytes)];
    let length = write_signed(bytes, signatures.as_slice().into(), &mut out).expect("it fits");
    out[..length].to_vec()
}
