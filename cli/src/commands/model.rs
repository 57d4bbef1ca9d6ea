//! `dunlin model`: the registry.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use crate::error::{Failure, read_file};
use crate::output::{Outcome, printable};
use crate::server::{Api, Column, ServerArgs, details, list, text};

/// The largest artifact that is sent.
const MAX_ARTIFACT: u64 = 1 << 30;

/// Models and their versions in the registry.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  dunlin model push kws.dunlin --name kws")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Upload an artifact as the newest version of a model. The same artifact again is the same version.
    Push {
        /// The artifact, as `dunlin compile` writes it.
        file: PathBuf,
        /// The model's name; it is made when it is new.
        #[arg(long)]
        name: String,
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

const VERSIONS: [Column; 5] = [
    ("version", "/version"),
    ("bytes", "/size"),
    ("baseline", "/has_baseline"),
    ("created", "/created"),
    ("digest", "/digest"),
];

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    match &args.command {
        Command::Push { file, name } => push(&api, file, name),
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

fn push(api: &Api, file: &Path, name: &str) -> Result<Outcome, Failure> {
    let bytes = read_file(file, MAX_ARTIFACT)?;
    if !api.exists(&["models", name])? {
        api.post(&["models"], &json!({ "name": name }))?;
    }
    let version = api.upload(&["models", name, "versions"], &bytes).map_err(|failure| failure.file(file))?;
    let number = printable(&text(version.get("version").unwrap_or(&Value::Null)));
    let digest = printable(&text(version.get("digest").unwrap_or(&Value::Null)));
    let shown = format!("{name} version {number}, digest {digest}\n");
    Ok(Outcome::new(&version, shown))
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
