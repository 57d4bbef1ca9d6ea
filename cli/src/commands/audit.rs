//! `dunlin audit`: who changed what.

use clap::Parser;

use crate::error::Failure;
use crate::output::Outcome;
use crate::server::{Api, Column, ServerArgs, list};

/// Show who changed what, the newest first.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  dunlin audit --kind device --id kitchen-7 --json")]
pub(crate) struct Args {
    /// Only changes of this kind of thing: token, fleet, claim, device, model, …
    #[arg(long)]
    kind: Option<String>,
    /// Only changes of the thing with this id.
    #[arg(long)]
    id: Option<String>,
    /// Only changes by this principal, as `dunlin audit` names it.
    #[arg(long)]
    principal: Option<String>,
    /// At most this many entries.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    server: ServerArgs,
}

const COLUMNS: [Column; 7] = [
    ("time", "/at"),
    ("who", "/principal_name"),
    ("action", "/action"),
    ("kind", "/kind"),
    ("what", "/resource"),
    ("before", "/before"),
    ("after", "/after"),
];

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    let filters = [("kind", &args.kind), ("id", &args.id), ("principal", &args.principal)];
    let query: Vec<_> = filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    Ok(list(api.list(&["audit"], &query, Some(args.limit))?, &COLUMNS, "no entries"))
}
