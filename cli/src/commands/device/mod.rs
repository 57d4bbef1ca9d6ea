//! `dunlin device`: the devices.

mod assign;
mod watch;

use std::collections::BTreeMap;

use clap::{Parser, Subcommand};
use serde_json::{Map, Value, json};

use super::token::without_nulls;
use crate::error::Failure;
use crate::output::{Outcome, printable};
use crate::server::{Api, Column, ServerArgs, details, list, text};

/// Devices: what they are, what they run, how they are.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  dunlin device list --filter 'tags.region == \"eu\" and running.kws < 3'\n  \
    dunlin device tag kitchen-7 region=eu rack-\n  dunlin device assign kitchen-7 kws=7\n  dunlin device watch"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List devices.
    List {
        /// Only those that fit, such as `fleet == "meters" and last_seen < now - 1h`.
        #[arg(long)]
        filter: Option<String>,
        /// At most this many.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Show a device.
    Show {
        /// The device's id.
        id: String,
    },
    /// Create a device that cannot enrol by itself. Its MQTT password is shown once, here.
    Create {
        /// Its id; the server chooses one, if absent.
        #[arg(long)]
        id: Option<String>,
        /// Its fleet.
        #[arg(long)]
        fleet: String,
        /// Its hardware class, such as cortex-m7.
        #[arg(long)]
        hardware: String,
        /// A tag; repeat for more.
        #[arg(long = "tag", value_name = "KEY=VALUE")]
        tags: Vec<String>,
    },
    /// Lock a device out at once.
    Block {
        /// The device's id.
        id: String,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a blocked device in again.
    Unblock {
        /// The device's id.
        id: String,
    },
    /// Delete a device and its credentials. What it counted stays.
    Delete {
        /// The device's id.
        id: String,
    },
    /// Set and remove tags.
    Tag {
        /// The device's id.
        id: String,
        /// KEY=VALUE sets a tag, KEY- removes it.
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        tags: Vec<String>,
    },
    /// Say which versions a device's model slots should hold. The device fetches, proves and tries them by itself.
    Assign {
        /// The device's id.
        id: String,
        /// SLOT=VERSION, if the model is called like the slot; otherwise SLOT=MODEL:VERSION. Instead of a version an
        /// alias, such as SLOT=@champion.
        #[arg(required = true, value_name = "SLOT=[MODEL:]VERSION", value_parser = assign::parse)]
        slots: Vec<assign::Assignment>,
        /// KEY=VALUE gives these models a setting on this device, KEY- takes it back. Others stay while the model does.
        #[arg(long, value_name = "KEY=VALUE|KEY-")]
        set: Vec<String>,
    },
    /// Say that model slots of a device should be empty.
    Unassign {
        /// The device's id.
        id: String,
        /// The slots.
        #[arg(required = true, value_name = "SLOT")]
        slots: Vec<String>,
    },
    /// Print what happens to devices as it happens, until interrupted: who comes and goes, what is assigned, tried, kept
    /// and given up.
    Watch {
        /// Only this device.
        id: Option<String>,
        /// Stop after this many events.
        #[arg(long, value_name = "N")]
        count: Option<usize>,
    },
}

const LIST: [Column; 7] = [
    ("device", "/id"),
    ("fleet", "/fleet"),
    ("hardware", "/hardware"),
    ("connected", "/connected"),
    ("last seen", "/last_seen"),
    ("running", "/running"),
    ("tags", "/tags"),
];

const SHOW: [Column; 12] = [
    ("fleet", "/fleet"),
    ("hardware", "/hardware"),
    ("serial", "/serial"),
    ("created", "/created"),
    ("last seen", "/last_seen"),
    ("connected", "/connected"),
    ("blocked", "/blocked"),
    ("agent", "/agent_version"),
    ("tags", "/tags"),
    ("attributes", "/attributes"),
    ("assigned", "/desired/slots"),
    ("slots", "/slots"),
];

pub(crate) fn run(args: &Args, json: bool) -> Result<Outcome, Failure> {
    let api = Api::connect(&args.server)?;
    match &args.command {
        Command::List { filter, limit } => {
            let query: Vec<_> = filter.as_deref().map(|filter| ("filter", filter)).into_iter().collect();
            let devices = api.list(&["devices"], &query, limit.map(|limit| limit as usize))?;
            Ok(list_devices(devices))
        }
        Command::Show { id } => Ok(details(api.get(&["devices", id], &[])?, &format!("device {id}"), &SHOW)),
        Command::Create { id, fleet, hardware, tags } => {
            let tags = pairs(tags)?;
            let wanted = json!({ "id": id, "fleet": fleet, "hardware": hardware, "tags": tags });
            let made = api.post(&["devices"], &without_nulls(wanted))?;
            let columns = [("device", "/device/id"), ("password", "/password"), ("mqtt", "/mqtt")];
            Ok(details(made, "a new device; its password is shown only here", &columns))
        }
        Command::Block { id, reason } => {
            let device = api.post(&["devices", id, "block"], &json!({ "reason": reason }))?;
            Ok(Outcome::new(&device, format!("blocked {id}\n")))
        }
        Command::Unblock { id } => {
            let device = api.post(&["devices", id, "unblock"], &json!({}))?;
            Ok(Outcome::new(&device, format!("unblocked {id}\n")))
        }
        Command::Delete { id } => {
            api.delete(&["devices", id])?;
            Ok(Outcome::new(&json!({ "deleted": id }), format!("deleted {id}\n")))
        }
        Command::Tag { id, tags } => {
            let device = api.patch(&["devices", id], &json!({ "tags": changes(tags)? }))?;
            let shown = format!("{id}: {}\n", printable(&text(&device["tags"])));
            Ok(Outcome::new(&device, shown))
        }
        Command::Assign { id, slots, set } => assign::assign(&api, id, slots, &changes(set)?),
        Command::Unassign { id, slots } => assign::unassign(&api, id, slots),
        Command::Watch { id, count } => watch::run(&api, id.as_deref(), *count, json),
    }
}

/// The table says in one column what runs where; JSON has the slots as they are.
fn list_devices(devices: Vec<Value>) -> Outcome {
    let running = |device: &Value| {
        let slots = device["slots"].as_array().into_iter().flatten();
        let slots = slots.map(|slot| {
            let version = match (slot["version"].as_i64(), slot["status"].as_str()) {
                (Some(version), Some("running")) => version.to_string(),
                (_, status) => status.unwrap_or("?").to_owned(),
            };
            format!("{}={version}", text(&slot["slot"]))
        });
        slots.collect::<Vec<_>>().join(" ")
    };
    let shown: Vec<Value> = devices
        .iter()
        .map(|device| {
            let mut row = device.clone();
            row["running"] = running(device).into();
            row
        })
        .collect();
    let nothing = "no devices; `dunlin claim create` makes a claim that devices enrol with";
    list(shown, &LIST, nothing).with_json(&devices)
}

/// `KEY=VALUE` words.
fn pairs(words: &[String]) -> Result<BTreeMap<&str, &str>, Failure> {
    let pair = |word: &'_ String| word.split_once('=').is_some();
    if let Some(word) = words.iter().find(|word| !pair(word)) {
        return Err(Failure::usage(format!("{word:?} is no tag")).way_out("write KEY=VALUE"));
    }
    Ok(words.iter().filter_map(|word| word.split_once('=')).collect())
}

/// `KEY=VALUE` and `KEY-` words as a merge patch.
fn changes(words: &[String]) -> Result<Map<String, Value>, Failure> {
    let change = |word: &String| match (word.split_once('='), word.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.to_owned(), value.into())),
        (None, Some(key)) => Ok((key.to_owned(), Value::Null)),
        (None, None) => {
            Err(Failure::usage(format!("{word:?} is no tag")).way_out("KEY=VALUE sets it, KEY- removes it"))
        }
    };
    words.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_set_and_removed() {
        let words = ["region=eu".to_owned(), "rack-".to_owned(), "note=a-b=c".to_owned()];
        let patch = Value::Object(changes(&words).expect("they are changes"));
        assert_eq!(patch, json!({ "region": "eu", "rack": null, "note": "a-b=c" }));
        assert!(changes(&["region".to_owned()]).is_err());
        assert!(pairs(&["region".to_owned()]).is_err());
    }
}
