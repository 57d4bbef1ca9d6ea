//! `dunlin stats`: what models do on devices.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;

use super::model::split;
use crate::error::Failure;
use crate::output::{self, Outcome, table};
use crate::server::{Api, ServerArgs, text};

/// Statistics of all models, or of one: exact counts of what devices reported.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  dunlin stats\n  dunlin stats kws=3 --from 2026-05-01T00:00:00Z --fleet kitchens\n  \
    dunlin stats --watch"
)]
pub(crate) struct Args {
    /// One model: its newest version, or MODEL=VERSION. All models without it.
    #[arg(value_name = "MODEL[=VERSION]")]
    model: Option<String>,
    /// Only devices of this fleet.
    #[arg(long)]
    fleet: Option<String>,
    /// Only this model slot.
    #[arg(long)]
    slot: Option<String>,
    /// From when, as in 2026-05-01T12:00:00Z [default: an hour before the end].
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when [default: now].
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Print the statistics again every so many seconds, until interrupted; with --json an object a line.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: Option<u32>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    let Some(seconds) = args.watch else {
        return ask(&api, args).map(|(value, text)| Outcome::new(&value, text));
    };
    // On a terminal the newest statistics replace the ones before.
    let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    loop {
        let (value, text) = ask(&api, args)?;
        if !output::print_on(&if json { format!("{value}\n") } else { format!("{clear}{text}\n") })? {
            return Ok(Outcome::printed());
        }
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
}

fn ask(api: &Api, args: &Args) -> Result<(Value, String), Failure> {
    let given = [("fleet", &args.fleet), ("slot", &args.slot), ("from", &args.from), ("to", &args.to)];
    let query: Vec<(&str, &str)> =
        given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let Some(model) = &args.model else {
        let summary = api.get(&["telemetry", "summary"], &query)?;
        let shown = summary_text(&summary);
        return Ok((summary, shown));
    };
    let (name, version) = split(model)?;
    let version = match version {
        Some(version) => version.to_owned(),
        None => match &api.get(&["models", name], &[])?["latest"] {
            Value::Null => return Err(Failure::new(format!("the model {name} has no versions"))),
            latest => latest.to_string(),
        },
    };
    let statistics = api.get(&["telemetry", "models", name, "versions", &version], &query)?;
    let shown = statistics_text(&statistics);
    Ok((statistics, shown))
}

/// The number under a pointer in its natural form.
fn cell(value: &Value, pointer: &str) -> String {
    text(value.pointer(pointer).unwrap_or(&Value::Null))
}

/// A quantile of the latencies.
fn quantile(sums: &Value, q: f64) -> String {
    let quantiles = sums.pointer("/latency/quantiles").and_then(Value::as_array);
    let found = quantiles.into_iter().flatten().find(|quantile| quantile["q"].as_f64() == Some(q));
    found.and_then(|quantile| quantile["us"].as_f64()).map_or_else(|| "-".into(), |us| format!("{us:.0}"))
}

fn summary_text(summary: &Value) -> String {
    let items = summary["items"].as_array().map_or(&[][..], Vec::as_slice);
    let mut shown = format!("{} to {}\n", cell(summary, "/from"), cell(summary, "/to"));
    if items.is_empty() {
        return shown + "no reports\n";
    }
    let rows = items.iter().map(|item| {
        let digest = cell(item, "/digest");
        let model = match (item["model"].as_str(), item["version"].as_i64()) {
            (Some(model), Some(version)) => format!("{model}={version}"),
            _ => digest.get(..12).unwrap_or(&digest).to_owned(),
        };
        let sums = ["/inferences", "/failures", "/reports"].map(|pointer| cell(item, pointer));
        let mut row = vec![model, cell(item, "/slot"), cell(item, "/cohort")];
        row.extend(sums);
        row.extend([quantile(item, 0.5), quantile(item, 0.99)]);
        row
    });
    let header = ["model", "slot", "cohort", "inferences", "failures", "reports", "p50 µs", "p99 µs"];
    shown += &table(&header, rows, 3);
    shown
}

fn statistics_text(statistics: &Value) -> String {
    let total = &statistics["total"];
    let mut shown = format!(
        "{}={}  {} to {}\n  {} inferences, {} failures in {} reports\n  latency  p50 {} µs, p99 {} µs, longest {} µs\n",
        cell(statistics, "/model"),
        cell(statistics, "/version"),
        cell(statistics, "/from"),
        cell(statistics, "/to"),
        cell(total, "/inferences"),
        cell(total, "/failures"),
        cell(total, "/reports"),
        quantile(total, 0.5),
        quantile(total, 0.99),
        cell(total, "/latency/max_us"),
    );
    let features = statistics["features"].as_array().map_or(&[][..], Vec::as_slice);
    if features.is_empty() {
        return shown;
    }
    let number = |feature: &Value, pointer: &str| {
        let number = feature.pointer(pointer).and_then(Value::as_f64);
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.4}"))
    };
    let rows = features.iter().map(|feature| {
        vec![
            cell(feature, "/name"),
            cell(feature, "/kind"),
            cell(feature, "/count"),
            cell(feature, "/missing"),
            number(feature, "/mean"),
            number(feature, "/baseline/mean"),
            cell(feature, "/underflow"),
            cell(feature, "/overflow"),
        ]
    });
    let header = ["feature", "kind", "values", "missing", "mean", "baseline mean", "underflow", "overflow"];
    shown += "\n";
    shown += &table(&header, rows, 2);
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_summary_names_models_and_unknown_artifacts() {
        let item = |model: Value, version: Value| {
            json!({"model": model, "version": version, "digest": "0123456789abcdef", "slot": "kws",
                "cohort": "f/h", "inferences": 12, "failures": 1, "reports": 2,
                "latency": {"quantiles": [{"q": 0.5, "us": 10.4}, {"q": 0.99, "us": 20.0}]}})
        };
        let items = [item(json!("kws"), json!(3)), item(Value::Null, Value::Null)];
        let shown = summary_text(
            &json!({"from": "2026-05-01T00:00:00Z", "to": "2026-05-01T01:00:00Z", "items": items}),
        );
        assert!(
            shown.contains("kws=3         kws   f/h             12         1        2      10      20"),
            "{shown}"
        );
        assert!(shown.contains("0123456789ab  kws"), "{shown}");
        assert!(summary_text(&json!({"items": []})).contains("no reports"));
    }
}
