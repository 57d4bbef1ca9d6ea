//! Who this device is, and where it keeps that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dunlin_agent::{Enrolment, Identity};

use super::Args;
use crate::error::{Failure, read_file};

/// Largest CA certificate file, in bytes.
const MAX_CA: u64 = 1 << 20;

pub(super) fn state_dir(args: &Args) -> Result<PathBuf, Failure> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = || std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    let folder = args.state_dir.clone().or_else(|| Some(state()?.join("dunlin/agent")));
    folder.ok_or_else(|| {
        Failure::usage("there is no home folder").way_out("say where to keep state with --state-dir")
    })
}

pub(super) fn hardware(args: &Args) -> String {
    let default = || format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    args.hardware.clone().unwrap_or_else(default)
}

/// The identity in the state folder, or a new one for the claim.
pub(super) fn identity(args: &Args, folder: &Path) -> Result<Identity, Failure> {
    let failed = |error: String| Failure::new(error);
    if let Some(identity) = Identity::load(folder).map_err(|error| failed(error.to_string()))? {
        if args.device.as_ref().is_some_and(|device| *device != identity.device) {
            let message = format!("the state folder belongs to device {}", identity.device);
            return Err(Failure::new(message)
                .file(folder)
                .way_out("give each device a --state-dir of its own"));
        }
        return Ok(identity);
    }
    let claim = args.claim.clone().or_else(|| std::env::var("DUNLIN_CLAIM").ok());
    let (Some(server), Some(claim)) = (args.server.clone(), claim) else {
        let failure = Failure::usage("this device is not enrolled").file(folder);
        return Err(failure.way_out("give --server and --claim; `dunlin claim create` makes a claim"));
    };
    let ca = match &args.ca {
        Some(path) => Some(
            String::from_utf8(read_file(path, MAX_CA)?)
                .map_err(|_| Failure::new("is no PEM text").file(path))?,
        ),
        None => None,
    };
    let serial = dunlin_agent::identity::serial(folder).map_err(|error| failed(error.to_string()))?;
    let enrolment = Enrolment {
        server,
        claim,
        device: args.device.clone(),
        serial: Some(serial),
        hardware: hardware(args),
        attributes: args.attribute.iter().cloned().collect::<BTreeMap<_, _>>(),
        ca,
    };
    let identity = dunlin_agent::enrol_blocking(&enrolment).map_err(|error| failed(error.to_string()))?;
    identity.save(folder).map_err(|error| failed(error.to_string()))?;
    Ok(identity)
}
