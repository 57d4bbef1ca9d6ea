//! `dunlin token`: access tokens.

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::output::Outcome;
use crate::server::{Api, Column, ServerArgs, details, list};

/// Access tokens: who may do what.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  dunlin token create --name ci --role ci --model kws")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token. It is shown once, here.
    Create {
        /// A name for people.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: Role,
        /// The one fleet that it reaches.
        #[arg(long, conflicts_with = "model")]
        fleet: Option<String>,
        /// The one model that it reaches.
        #[arg(long)]
        model: Option<String>,
        /// When it stops working (RFC 3339); never, if absent.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List the tokens.
    List,
    /// End a token at once.
    Revoke {
        /// The token's id.
        id: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Sees everything.
    Viewer,
    /// Changes devices and fleets.
    Operator,
    /// Pushes models.
    Ci,
    /// Does everything.
    Admin,
}

const COLUMNS: [Column; 8] = [
    ("id", "/id"),
    ("name", "/name"),
    ("role", "/role"),
    ("fleet", "/fleet"),
    ("model", "/model"),
    ("expires", "/expires"),
    ("last used", "/last_used"),
    ("revoked", "/revoked"),
];

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    match &args.command {
        Command::Create { name, role, fleet, model, expires } => {
            let role = role.to_possible_value().map(|role| role.get_name().to_owned());
            let wanted = json!({
                "name": name, "role": role, "fleet": fleet, "model": model, "expires": expires,
            });
            let made = api.post(&["tokens"], &without_nulls(wanted))?;
            Ok(details(made, "a new token; it is shown only here", &[("token", "/token"), ("id", "/id")]))
        }
        Command::List => Ok(list(api.list(&["tokens"], &[], None)?, &COLUMNS, "no tokens")),
        Command::Revoke { id } => {
            api.delete(&["tokens", id])?;
            Ok(Outcome::new(&json!({ "revoked": id }), format!("revoked {id}\n")))
        }
    }
}

/// What is absent is left out: the API refuses what it does not know, and reads null as a value.
pub(super) fn without_nulls(mut object: Value) -> Value {
    if let Value::Object(map) = &mut object {
        map.retain(|_, value| !value.is_null());
    }
    object
}
