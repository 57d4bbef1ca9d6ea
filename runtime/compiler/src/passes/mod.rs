//! Rewrites of the graph that keep every result bit for bit. One file per rewrite.

mod dead;

use crate::CompileError;
use crate::graph::Graph;

/// Runs all passes in order.
pub(crate) fn run(graph: &mut Graph) -> Result<(), CompileError> {
    dead::remove(graph);
    Ok(())
}
