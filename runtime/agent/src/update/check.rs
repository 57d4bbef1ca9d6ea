//! Whether this device can run an artifact, and computes what it promises.

use dunlin_runtime::artifact::{Artifact, Digester};
use dunlin_runtime::{ALL_KERNELS, RunError, Session, verify_golden};

use super::{Model, Reason};

/// What a device offers to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The kernels that are linked, as in [`Session`].
    pub kernels: u128,
    /// Bytes for the model's arena.
    pub arena: usize,
}

/// The answer to [`Action::Verify`](super::Action::Verify): `bytes` are the artifact that was assigned, whole and right,
/// and there is room for it. They are aligned as [`Artifact::parse`] demands.
///
/// # Errors
/// [`Reason`].
pub fn verify<'b>(bytes: &'b [u8], model: &Model, room: Room) -> Result<Artifact<'b>, Reason> {
    if u32::try_from(bytes.len()) != Ok(model.size) {
        return Err(Reason::Digest);
    }
    // First: of other bytes than those that were released nothing is to be believed.
    let mut digester = Digester::new();
    digester.update(bytes);
    if digester.finish() != model.digest {
        return Err(Reason::Digest);
    }
    let artifact = Artifact::parse(bytes).map_err(|_| Reason::Format)?;
    // The digest is computed without the place where it is stated.
    if artifact.digest() != model.digest {
        return Err(Reason::Digest);
    }
    if artifact.kernels() & !(room.kernels & ALL_KERNELS) != 0 {
        return Err(Reason::Kernels);
    }
    if artifact.arena_len() > room.arena {
        return Err(Reason::Memory);
    }
    Ok(artifact)
}

/// The answer to [`Action::Prove`](super::Action::Prove): runs the golden vectors.
///
/// # Errors
/// [`Reason::Golden`] when one comes out wrong, others when the model does not run at all.
pub fn prove<const KERNELS: u128>(session: &mut Session<'_, '_, KERNELS>) -> Result<(), Reason> {
    match verify_golden(session) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Reason::Golden),
        Err(error) => Err(error.into()),
    }
}

impl From<RunError> for Reason {
    /// Why a session could not be made, or a run gave nothing.
    fn from(error: RunError) -> Self {
        match error {
            RunError::Format(_) => Self::Format,
            RunError::MissingKernel(_) => Self::Kernels,
            RunError::ArenaTooSmall { .. } => Self::Memory,
            _ => Self::Start,
        }
    }
}
