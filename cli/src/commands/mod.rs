//! The commands, one file each.

mod agent;
mod audit;
mod bench;
mod claim;
mod compile;
mod device;
mod eval;
mod fleet;
mod gate;
mod ingest;
mod inspect;
mod keys;
mod login;
mod model;
mod ops;
mod run;
mod serve;
mod stats;
mod token;
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
    Login(login::Args),
    Logout(login::LogoutArgs),
    Device(device::Args),
    Fleet(fleet::Args),
    Gate(gate::Args),
    #[command(visible_alias = "key")]
    Claim(claim::Args),
    Keys(keys::Args),
    Model(model::Args),
    Token(token::Args),
    Audit(audit::Args),
    Stats(stats::Args),
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
            Command::Login(args) => login::run(args),
            Command::Logout(args) => login::logout(args),
            Command::Device(args) => device::run(args, json),
            Command::Fleet(args) => fleet::run(args),
            Command::Gate(args) => gate::run(args),
            Command::Claim(args) => claim::run(args),
            Command::Keys(args) => keys::run(args),
            Command::Model(args) => model::run(args),
            Command::Token(args) => token::run(args),
            Command::Audit(args) => audit::run(args),
            Command::Stats(args) => stats::run(args, json),
        }
    }
}
