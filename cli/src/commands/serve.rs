//! `dunlin serve`: the control plane.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches};
use dunlin_control_plane::config::{Config, Effective, SETTINGS};
use dunlin_control_plane::serve::{Options, Server, StartError, logging};
use serde::Serialize;

use crate::error::{Failure, read_file};
use crate::output::{self, Outcome};

/// Bytes of a configuration file.
const CONFIG_BYTES: u64 = 1 << 20;

/// The arguments: a flag for every setting, generated from the table of settings.
#[derive(Debug)]
pub(crate) struct Args {
    config: Option<PathBuf>,
    print_config: bool,
    new_admin_token: bool,
    /// The settings' flags that are there, without dashes.
    flags: BTreeMap<String, String>,
}

const ABOUT: &str = "Run the control plane: HTTP API, status page, and an MQTT endpoint for devices";
const LONG_ABOUT: &str = "Run the control plane: HTTP API, status page, and an MQTT endpoint for devices.\n\n\
    Without any configuration it keeps everything in the folder dunlin-data and listens on loopback only. At the first \
    start it prints an administrator's token, once. SIGTERM or SIGINT (Ctrl-C) makes it finish what is under way and \
    exit; a second one makes it exit at once.\n\n\
    Every setting below can be given as a flag, as an environment variable, or in the configuration file; a flag wins \
    over the environment, that over the file.";
const EXAMPLES: &str = "Examples:\n  dunlin serve\n  dunlin serve --config dunlin.toml --print-config\n  \
    DUNLIN_DATABASE_URL=postgres://dunlin:secret@db/dunlin dunlin serve --broker-url mqtts://broker:8883";

impl clap::Args for Args {
    fn augment_args(command: clap::Command) -> clap::Command {
        let mut command = command
            .about(ABOUT)
            .long_about(LONG_ABOUT)
            .after_help(EXAMPLES)
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .env_doc("DUNLIN_CONFIG", "Configuration file (TOML)"),
            )
            .arg(
                Arg::new("print_config")
                    .long("print-config")
                    .action(ArgAction::SetTrue)
                    .help("Print the effective settings and where each comes from, secrets masked, and exit"),
            )
            .arg(
                Arg::new("new_admin_token")
                    .long("new-admin-token")
                    .action(ArgAction::SetTrue)
                    .help("Make and print another administrator's token, for when all are lost"),
            );
        for setting in SETTINGS {
            let default = match setting.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            let help = format!(
                "{}{default}\nkey {}, variable {}",
                setting.doc.trim(),
                setting.key,
                setting.variable()
            );
            command = command.arg(
                Arg::new(setting.key)
                    .long(setting.flag())
                    .value_name(setting.kind)
                    .help_heading("Settings")
                    .help(help),
            );
        }
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// A variable that is read by hand, since it is not a setting, shown in the help as clap would.
trait EnvDoc {
    fn env_doc(self, variable: &str, help: &str) -> Self;
}

impl EnvDoc for Arg {
    fn env_doc(self, variable: &str, help: &str) -> Self {
        self.help(format!("{help}\nvariable {variable}"))
    }
}

impl clap::FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |id: &str| matches.get_one::<String>(id).cloned();
        let flags =
            SETTINGS.iter().filter_map(|setting| Some((setting.flag(), text(setting.key)?))).collect();
        Ok(Args {
            config: text("config").map(PathBuf::from),
            print_config: matches.get_flag("print_config"),
            new_admin_token: matches.get_flag("new_admin_token"),
            flags,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// An effective setting, for `--print-config --json`.
#[derive(Serialize)]
struct SettingReport {
    key: &'static str,
    value: String,
    source: String,
}

/// What is printed when the control plane has started.
#[derive(Serialize)]
struct Started {
    http: String,
    mqtt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_token: Option<String>,
}

/// What is left to say at the end.
#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<Outcome, Failure> {
    let (config, effective) = load(args)?;
    if args.print_config {
        return Ok(print_config(&effective));
    }
    logging::init(&config).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the runtime cannot be started: {error}")))?;
    let options = Options { new_admin_token: args.new_admin_token };
    let served =
        runtime.block_on(dunlin_control_plane::serve::run(config, options, |server| started(server, json)));
    // Whatever still runs has had its time to finish.
    runtime.shutdown_background();
    served.map_err(|error: StartError| Failure::new(error.to_string()))?;
    let text = String::new();
    let outcome = Outcome::new(&Stopped { stopped: true }, text);
    Ok(outcome)
}

/// The settings from the file, the environment and the flags.
fn load(args: &Args) -> Result<(Config, Effective), Failure> {
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let path = args.config.clone().or_else(|| variables.get("DUNLIN_CONFIG").map(PathBuf::from));
    let text = match &path {
        Some(path) => {
            let bytes = read_file(path, CONFIG_BYTES)?;
            Some(String::from_utf8(bytes).map_err(|_| Failure::usage("is not UTF-8 text").file(path))?)
        }
        None => None,
    };
    let file = path.as_deref().zip(text.as_deref());
    Config::load(file, &variables, &args.flags).map_err(|error| Failure::usage(error.to_string()))
}

fn print_config(effective: &Effective) -> Outcome {
    let report: Vec<SettingReport> = effective
        .masked()
        .into_iter()
        .map(|(key, value, source)| SettingReport { key, value, source })
        .collect();
    let rows = report
        .iter()
        .map(|setting| vec![setting.key.to_owned(), setting.value.clone(), setting.source.clone()]);
    let text = output::table(&["setting", "value", "from"], rows, usize::MAX);
    Outcome::new(&report, text)
}

/// Says where the control plane is, and the first administrator's token.
fn started(server: &Server, json: bool) {
    let endpoints = server.app().endpoints();
    let scheme = if endpoints.mqtt_tls { "mqtts" } else { "mqtt" };
    let report = Started {
        http: endpoints.http_url,
        mqtt: format!("{scheme}://{}:{}", endpoints.mqtt_host, endpoints.mqtt_port),
        admin_token: server.admin_token().map(|token| token.reveal().to_owned()),
    };
    let text = if json {
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    } else {
        let mut text =
            format!("HTTP API and status page  {}\nMQTT for devices          {}\n", report.http, report.mqtt);
        if let Some(token) = &report.admin_token {
            text += &format!("Administrator's token     {token}\n");
            text += "Keep the token: it is not stored and not shown again.\n";
        }
        text
    };
    // Without a reader there is nobody to tell.
    let _ = output::print(&text);
}
