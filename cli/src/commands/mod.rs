//! The commands, one file each.

mod agent;
mod bench;
mod compile;
mod eval;
mod inspect;
mod ops;
mod run;
mod serve;
mod verify;

use clap::Subcommand;

use crate::error::Failure;
use crate::output::Outcome;

/// A command and its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Compile(compile::Args),
    Inspect(inspect::Args),
    Run(run::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Verify(verify::Args),
    Ops(ops::Args),
    Serve(serve::Args),
    Agent(agent::Args),
}

impl Command {
    /// Executes the command. `json` matters to commands that print while they run.
    pub(crate) fn run(&self, json: bool) -> Result<Outcome, Failure> {
        match self {
            Command::Compile(args) => compile::run(args),
            Command::Inspect(args) => inspect::run(args),
            Command::Run(args) => run::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Verify(args) => verify::run(args),
            Command::Ops(args) => ops::run(args),
            Command::Serve(args) => serve::run(args, json),
            Command::Agent(args) => agent::run(args, json),
        }
    }
}
