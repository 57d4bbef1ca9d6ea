//! `dunlin claim`: claims, the keys that devices enrol with.

use std::collections::BTreeSet;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use super::token::without_nulls;
use crate::error::Failure;
use crate::output::Outcome;
use crate::server::{Api, Column, ServerArgs, details, list, text};

/// Claims: what a new device shows to join a fleet.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  dunlin claim create --fleet meters --name 'batch 12' --uses 500")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a claim. It is shown once, here; devices get it with `dunlin agent --claim`.
    Create {
        /// The fleet that devices join with it.
        #[arg(long)]
        fleet: String,
        /// A name for people.
        #[arg(long)]
        name: String,
        /// When it stops working (RFC 3339); never, if absent.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// How many devices may use it; any number, if absent.
        #[arg(long, value_name = "N")]
        uses: Option<u64>,
        /// Only hardware with this serial number may use it; repeat for more.
        #[arg(long = "serial", value_name = "SERIAL")]
        serials: Vec<String>,
        /// Only this hardware class may use it; repeat for more.
        #[arg(long = "hardware", value_name = "CLASS")]
        hardware: Vec<String>,
    },
    /// List the claims of a fleet.
    List {
        /// The fleet.
        #[arg(long)]
        fleet: String,
    },
    /// End a claim. Devices that enrolled with it stay.
    Revoke {
        /// The claim's id.
        id: String,
    },
    /// Print the certificate of the authority that signs devices' certificates.
    Ca,
}

const COLUMNS: [Column; 7] = [
    ("id", "/id"),
    ("name", "/name"),
    ("used", "/used"),
    ("use limit", "/use_limit"),
    ("expires", "/expires"),
    ("revoked", "/revoked"),
    ("created", "/created"),
];

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    match &args.command {
        Command::Create { fleet, name, expires, uses, serials, hardware } => {
            let wanted = json!({
                "name": name,
                "expires": expires,
                "use_limit": uses,
                "serials": serials.iter().collect::<BTreeSet<_>>(),
                "hardware": hardware.iter().collect::<BTreeSet<_>>(),
            });
            let made = api.post(&["fleets", fleet, "claims"], &without_nulls(wanted))?;
            let heading = "a new claim; it is shown only here";
            Ok(details(made, heading, &[("claim", "/claim"), ("id", "/id"), ("fleet", "/fleet")]))
        }
        Command::List { fleet } => {
            Ok(list(api.list(&["fleets", fleet, "claims"], &[], None)?, &COLUMNS, "no claims"))
        }
        Command::Revoke { id } => {
            api.delete(&["claims", id])?;
            Ok(Outcome::new(&json!({ "revoked": id }), format!("revoked {id}\n")))
        }
        Command::Ca => {
            let authority = api.get(&["ca"], &[])?;
            let certificate = text(authority.get("certificate").unwrap_or(&Value::Null));
            Ok(Outcome::new(&authority, certificate))
        }
    }
}
