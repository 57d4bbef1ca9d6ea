//! `dunlin model`: the registry.

mod push;
mod sign;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::error::Failure;
use crate::model::ModelFile;
use crate::output::Outcome;
use crate::server::{Api, Column, ServerArgs, details, list};
use sign::{SignArgs, Signed};

/// Models and their versions in the registry.
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  dunlin model push kws.dunlin --name kws
  dunlin model push kws.dunlin --name kws --floor 3 --hardware cortex-m7
  dunlin model sign kws 4 --release-key second-owner.pem")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Push(push::Args),
    /// Sign a version: devices install one only when enough owners have signed it.
    ///
    /// What is signed is the artifact as it is downloaded or, with --artifact, the file. An owner who signs after others
    /// signs what they did, unless --floor, --hardware or --expires say something else.
    Sign {
        /// The model's name.
        model: String,
        /// The version.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        version: u32,
        /// The artifact that is to be signed; refused when the control plane has another one.
        #[arg(long, value_name = "FILE.dunlin")]
        artifact: Option<PathBuf>,
        #[command(flatten)]
        sign: SignArgs,
    },
    /// List the models.
    List,
    /// Show a model's versions, or one of them.
    Show {
        /// The model's name, or NAME=VERSION.
        model: String,
    },
}

const MODELS: [Column; 4] =
    [("model", "/name"), ("latest", "/latest"), ("created", "/created"), ("description", "/description")];

const VERSIONS: [Column; 6] = [
    ("version", "/version"),
    ("bytes", "/size"),
    ("baseline", "/has_baseline"),
    ("signed", "/release/complete"),
    ("created", "/created"),
    ("digest", "/digest"),
];

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    match &args.command {
        Command::Push(args) => push::run(&api, args),
        Command::Sign { model, version, artifact, sign } => {
            let number = version.to_string();
            let path = ["models", model.as_str(), "versions", &number];
            let shown = api.get(&path, &[])?;
            let artifact = match artifact {
                Some(file) => ModelFile::read(file)?,
                None => {
                    let bytes = api.download(&[&path[..], &["artifact"]].concat())?;
                    ModelFile::new(format!("{model}={version}").as_ref(), &bytes)
                }
            };
            let identity = sign::identify(model, &shown, &artifact)?;
            let signed = sign::sign(&api, sign, &identity, !shown["release"].is_null())?;
            let text = signed.text(model, *version);
            match signed {
                Signed::Yes(release) => {
                    Ok(Outcome::new(&release, format!("{model} version {version}\n{text}")))
                }
                Signed::NotNeeded | Signed::NoKey(_) => Err(Failure::new(text.trim_end())),
            }
        }
        Command::List => {
            let models = api.list(&["models"], &[], None)?;
            Ok(list(models, &MODELS, "no models; `dunlin model push FILE --name NAME` makes one"))
        }
        Command::Show { model } => match split(model)? {
            (name, Some(version)) => {
                let shown = api.get(&["models", name, "versions", version], &[])?;
                Ok(details(shown, &format!("{name} version {version}"), &VERSIONS))
            }
            (name, None) => {
                Ok(list(api.list(&["models", name, "versions"], &[], None)?, &VERSIONS, "no versions"))
            }
        },
    }
}

/// `NAME` or `NAME=VERSION`.
pub(super) fn split(model: &str) -> Result<(&str, Option<&str>), Failure> {
    match model.split_once('=') {
        None => Ok((model, None)),
        Some((name, version)) if version.parse::<u32>().is_ok() => Ok((name, Some(version))),
        Some((_, version)) => {
            Err(Failure::usage(format!("{version:?} is no version number")).way_out("NAME=3"))
        }
    }
}
