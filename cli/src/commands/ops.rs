//! `dunlin ops`: the operators that models may use.

use dunlin_artifact::Kernel;
use dunlin_runtime::ALL_KERNELS;
use serde::Serialize;

use crate::error::Failure;
use crate::output::Outcome;

/// List the supported operators as a Markdown table.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  dunlin ops > operators.md")]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Report {
    operators: Vec<&'static str>,
    kernels: Vec<&'static str>,
}

pub(crate) fn run(_: &Args) -> Result<Outcome, Failure> {
    let kernels = Kernel::ALL.iter().filter(|kernel| ALL_KERNELS & kernel.bit() != 0).map(|kernel| kernel.name());
    let report =
        Report { operators: dunlin_compiler::supported_operators().to_vec(), kernels: kernels.collect() };
    let mut text = "| operator |\n| --- |\n".to_owned();
    for operator in &report.operators {
        text += &format!("| `{operator}` |\n");
    }
    Ok(Outcome::new(&report, text))
}
