//! `dunlin model push`: from a file to a version.

use std::path::PathBuf;

use serde_json::json;

use super::sign::{self, SignArgs, Signed};
use crate::error::Failure;
use crate::model::ModelFile;
use crate::output::{Outcome, printable};
use crate::server::{Api, text};

/// Upload an artifact as the newest version of a model, and sign it. The same artifact again is the same version.
///
/// It is signed where there is a release key: see `dunlin keys`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The artifact, as `dunlin compile` writes it.
    file: PathBuf,
    /// The model's name; it is made when it is new.
    #[arg(long)]
    name: String,
    /// Do not sign it.
    #[arg(long, conflicts_with_all = ["keys", "folder", "floor", "hardware", "expires"])]
    no_sign: bool,
    #[command(flatten)]
    sign: SignArgs,
}

pub(super) fn run(api: &Api, args: &Args) -> Result<Outcome, Failure> {
    let artifact = ModelFile::read(&args.file)?;
    let name = &args.name;
    if !api.exists(&["models", name])? {
        api.post(&["models"], &json!({ "name": name }))?;
    }
    let mut version = api
        .upload(&["models", name, "versions"], &[], artifact.bytes())
        .map_err(|failure| failure.file(&args.file))?;
    let identity = sign::identify(name, &version, &artifact)?;
    let digest = printable(&text(&version["digest"]));
    let shown = format!("{name} version {}, digest {digest}\n", identity.version);
    if args.no_sign {
        return Ok(Outcome::new(&version, shown));
    }
    match sign::sign(api, &args.sign, &identity, !version["release"].is_null()) {
        Ok(signed) => {
            let shown = shown + &signed.text(name, identity.version);
            if let Signed::Yes(release) = signed {
                version["release"] = release;
            }
            Ok(Outcome::new(&version, shown))
        }
        // The version is there all the same.
        Err(failure) => Ok(Outcome::new(&version, shown + "not signed\n").failed(failure)),
    }
}
