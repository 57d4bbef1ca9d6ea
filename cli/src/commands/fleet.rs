//! `dunlin fleet`: groups of devices.

use clap::{Parser, Subcommand};
use serde_json::json;

use crate::error::Failure;
use crate::output::Outcome;
use crate::server::{Api, Column, ServerArgs, details, list};

/// Fleets: groups of devices that belong together.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  dunlin fleet create meters --description 'Water meters, district 4'")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the fleets.
    List,
    /// Make a fleet.
    Create {
        /// Its name, for ever.
        id: String,
        /// What it is.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Show a fleet.
    Show {
        /// The fleet's name.
        id: String,
    },
    /// Delete a fleet that has no devices.
    Delete {
        /// The fleet's name.
        id: String,
    },
}

const COLUMNS: [Column; 5] = [
    ("fleet", "/id"),
    ("devices", "/devices"),
    ("created", "/created"),
    ("description", "/description"),
    ("settings", "/settings"),
];

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    match &args.command {
        Command::List => Ok(list(
            api.list(&["fleets"], &[], None)?,
            &COLUMNS,
            "no fleets; `dunlin fleet create NAME` makes one",
        )),
        Command::Create { id, description } => {
            let made = api.post(&["fleets"], &json!({ "id": id, "description": description }))?;
            Ok(details(made, &format!("created fleet {id}"), &COLUMNS))
        }
        Command::Show { id } => {
            let fleet = api.get(&["fleets", id], &[])?;
            Ok(details(fleet, &format!("fleet {id}"), &COLUMNS))
        }
        Command::Delete { id } => {
            api.delete(&["fleets", id])?;
            Ok(Outcome::new(&json!({ "deleted": id }), format!("deleted {id}\n")))
        }
    }
}
