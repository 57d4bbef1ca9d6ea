//! The Dunlin command line.
//!
//! Every command computes its result as a value that can be printed as text or, with `--json`, as one JSON
//! object on standard output. Errors are one line on standard error; with `--json` the object on standard output
//! is then `{"error": {"kind", "file", "message", "way_out"}}`. Exit codes: 0, 1 for a failure, 2 for wrong usage;
//! of commands that ask a control plane also 3 (not allowed), 4 (no such thing), 5 (contradicts what is there) and 6
//! (cannot be reached, or not now).

mod array;
mod baseline;
mod calibration;
mod commands;
mod error;
mod keys;
mod load;
mod metrics;
mod model;
mod npz;
mod output;
mod plan;
mod private_file;
mod program;
mod samples;
mod server;
mod stats;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;
use crate::error::Failure;

/// Compiles, runs and measures models for microcontrollers.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object on standard output.
    #[arg(long, global = true)]
    json: bool,
}

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => match cli.command.run(cli.json) {
            Ok(outcome) => {
                outcome.print(cli.json).map_or(ExitCode::SUCCESS, |failure| report(&failure, false))
            }
            Err(failure) => report(&failure, cli.json),
        },
        Err(error) => report_usage(&error),
    }
}

/// Prints a failure on standard error, and as JSON on standard output where that is asked for.
fn report(failure: &Failure, json: bool) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {}", failure.line());
    if json {
        // A failure to print is hidden behind the failure that is being reported.
        let _ = output::print(&failure.json());
    }
    ExitCode::from(failure.exit_code())
}

/// Prints what clap says: help on standard output, wrong usage on standard error.
fn report_usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done when the terminal is gone.
    let _ = error.print();
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let _ = output::print(&Failure::usage(first).json());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
