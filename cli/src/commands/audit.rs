//! `dunlin audit`: who changed what.

use std::collections::BTreeSet;

use clap::Parser;
use serde_json::{Map, Value};

use crate::error::Failure;
use crate::output::Outcome;
use crate::server::{Api, Column, ServerArgs, list, text};

/// Show who changed what, the newest first.
///
/// The table says what became different; --json has everything before and after.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  dunlin audit --kind device --id kitchen-7 --json")]
pub(crate) struct Args {
    /// Only changes of this kind of thing: token, fleet, claim, device, model, …
    #[arg(long)]
    kind: Option<String>,
    /// Only changes of the thing of that kind with this id.
    #[arg(long, requires = "kind")]
    id: Option<String>,
    /// Only changes by this principal, as `dunlin audit` names it.
    #[arg(long)]
    principal: Option<String>,
    /// At most this many entries.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
}

const COLUMNS: [Column; 6] = [
    ("time", "/at"),
    ("who", "/principal_name"),
    ("action", "/action"),
    ("kind", "/kind"),
    ("what", "/resource"),
    ("change", "/change"),
];

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    let filters = [("kind", &args.kind), ("id", &args.id), ("principal", &args.principal)];
    let query: Vec<_> = filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let entries = api.list(&["audit"], &query, Some(args.limit as usize))?;
    let mut shown = entries.clone();
    for entry in &mut shown {
        entry["change"] = change(&entry["before"], &entry["after"]).into();
    }
    Ok(list(shown, &COLUMNS, "no entries").with_json(&entries))
}

/// What differs: `name: old -> new`; of what was made, `name=value` of all that has a value.
fn change(before: &Value, after: &Value) -> String {
    let fields = |side: &Value| side.as_object().cloned().unwrap_or_default();
    let (old, new) = (fields(before), fields(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut words = Vec::new();
    for name in names {
        let value = |side: &Map<String, Value>| text(side.get(name).unwrap_or(&Value::Null));
        match (value(&old), value(&new)) {
            (old, new) if old == new || after.is_null() => {}
            (_, new) if before.is_null() => words.push(format!("{name}={new}")),
            (old, new) => words.push(format!("{name}: {old} -> {new}")),
        }
    }
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let before = json!({ "fleet": "a", "tags": { "rack": "3" }, "blocked": null });
        let after = json!({ "fleet": "a", "tags": { "rack": "4" }, "blocked": { "reason": "lost" } });
        assert_eq!(change(&before, &after), "blocked: - -> reason=lost  tags: rack=3 -> rack=4");
        assert_eq!(change(&Value::Null, &before), "fleet=a  tags=rack=3");
        assert_eq!(change(&before, &Value::Null), "");
    }
}
