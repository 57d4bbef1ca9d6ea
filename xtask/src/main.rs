//! The project's own commands: `cargo xtask test` is what the README and CI run; the others run parts of it.

mod api;
mod demo;
mod elf;
mod firmware;
mod fuzz;
mod models;
mod project;
mod setup;
mod size;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::project::Project;
use crate::setup::Tools;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check everything: formatting, lints, documentation, tests, no_std builds, firmware in QEMU, fuzzing.
    ///
    /// Installs what it needs on a Debian machine. Prints a summary at the end; the exit code is 0 only when every
    /// step passed.
    Test(test::Options),
    /// The main job: compile a model, run and evaluate it here, then run it on an emulated Cortex-M4.
    Demo(demo::Options),
    /// Install what the other commands need: Debian packages, bare-metal targets, the oracle's Python packages.
    Setup,
    /// Build the firmware per model and CPU, run it in QEMU and print the table of costs.
    Firmware(firmware::Options),
    /// Run every fuzz target for a limited time.
    Fuzz(fuzz::Options),
    /// Drive the HTTP API with requests made from its own description: no server errors, nothing undocumented.
    Api(api::Options),
    /// Show what takes the flash of a firmware image: sections, crates and the largest functions.
    Size(size::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let project = Project::new()?;
    let mut tools = Tools::new(&project);
    match arguments.command {
        Command::Test(options) => test::run(&project, &mut tools, &options),
        Command::Demo(options) => demo::run(&project, &mut tools, &options),
        Command::Setup => setup::run(&mut tools),
        Command::Firmware(options) => firmware::run(&project, &mut tools, &options).map(drop),
        Command::Fuzz(options) => fuzz::run(&project, &mut tools, &options).map(drop),
        Command::Api(options) => api::run(&project, &mut tools, &options).map(drop),
        Command::Size(options) => size::run(&project, &mut tools, &options),
    }
}
