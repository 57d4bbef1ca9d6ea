//! `dunlin model`: the registry.

mod push;
mod sign;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::json;

use crate::error::Failure;
use crate::model::ModelFile;
use crate::output::{Outcome, printable};
use crate::server::{Api, Column, ServerArgs, details, list, text};
use sign::{SignArgs, Signed};

/// Models and their versions in the registry.
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  dunlin model push kws.dunlin --name kws
  dunlin model push kws.tflite --name kws --run exp-7
  dunlin model push kws.dunlin --name kws --floor 3 --hardware cortex-m7
  dunlin model sign kws 4 --release-key second-owner.pem
  dunlin model alias kws champion 4")]
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
        /// Write the release to this file, with the signatures that can be made here, instead of uploading it: for keys
        /// that stay offline.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Make an alias name a version of a model, or show which one it names.
    ///
    /// `dunlin device assign DEVICE kws=@champion` assigns the version that it names then.
    Alias {
        /// The model's name.
        model: String,
        /// The alias; all of them are shown without one.
        alias: Option<String>,
        /// The version.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
        /// Remove the alias. The version stays.
        #[arg(long, requires = "alias", conflicts_with = "version")]
        remove: bool,
    },
    /// Show what the control plane compiles for a model, or has compiled lately.
    Compilations {
        /// The model's name.
        model: String,
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

const LINEAGE: [Column; 3] =
    [("run", "/lineage/run"), ("data set", "/lineage/dataset"), ("source", "/lineage/source")];

const ALIASES: [Column; 4] =
    [("alias", "/alias"), ("version", "/version"), ("changed", "/changed"), ("by", "/changed_by")];

const COMPILATIONS: [Column; 7] = [
    ("created", "/created"),
    ("status", "/status"),
    ("before it", "/ahead"),
    ("step", "/step"),
    ("version", "/version"),
    ("message", "/message"),
    ("source", "/source"),
];

const VERSIONS: [Column; 7] = [
    ("version", "/version"),
    ("bytes", "/size"),
    ("baseline", "/has_baseline"),
    ("signed", "/release/complete"),
    ("aliases", "/aliases"),
    ("created", "/created"),
    ("digest", "/digest"),
];

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    match &args.command {
        Command::Push(args) => push::run(&api, args),
        Command::Sign { model, version, artifact, out, sign } => {
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
            let signed = sign::sign(&api, sign, &identity, !shown["release"].is_null(), out.as_deref())?;
            let text = signed.text(model, *version);
            match signed {
                Signed::Yes(release) | Signed::Written(_, release) => {
                    Ok(Outcome::new(&release, format!("{model} version {version}\n{text}")))
                }
                Signed::NotNeeded | Signed::NoKey(_) => Err(Failure::new(text.trim_end())),
            }
        }
        Command::Alias { model, alias: None, .. } => {
            Ok(list(api.list(&["models", model, "aliases"], &[], None)?, &ALIASES, "no aliases"))
        }
        Command::Alias { model, alias: Some(alias), version, remove } => {
            let path = ["models", model.as_str(), "aliases", alias];
            if *remove {
                api.delete(&path)?;
                return Ok(Outcome::new(&json!({ "deleted": alias }), format!("removed {model}@{alias}\n")));
            }
            let shown = match version {
                // Whatever it named before.
                Some(version) => api.put_tagged(&path, &json!({ "version": version }), Some("*"))?.0,
                None => api.get(&path, &[])?,
            };
            let line = format!("{model}@{alias} is version {}\n", printable(&text(&shown["version"])));
            Ok(Outcome::new(&shown, line))
        }
        Command::Compilations { model } => {
            let jobs = api.list(&["models", model, "compilations"], &[], None)?;
            Ok(list(jobs, &COMPILATIONS, "nothing was compiled lately"))
        }
        Command::List => {
            let models = api.list(&["models"], &[], None)?;
            Ok(list(models, &MODELS, "no models; `dunlin model push FILE --name NAME` makes one"))
        }
        Command::Show { model } => match split(model)? {
            (name, Some(version)) => {
                let shown = api.get(&["models", name, "versions", version], &[])?;
                Ok(details(shown, &format!("{name} version {version}"), &[&VERSIONS[..], &LINEAGE].concat()))
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
