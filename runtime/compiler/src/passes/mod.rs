//! Rewrites of the graph that keep every result bit for bit. One file per rewrite.

mod activation;
mod dead;
mod fold;
mod half;
mod pad;
mod unsigned;

use crate::CompileError;
use crate::assemble::Bounds;
use crate::graph::Graph;

/// Runs all passes in order.
pub(crate) fn run(graph: &mut Graph, bounds: &Bounds) -> Result<(), CompileError> {
    half::widen(graph);
    unsigned::shift(graph);
    fold::constants(graph, bounds);
    activation::fuse(graph);
    pad::fold(graph);
    dead::remove(graph);
    Ok(())
}
