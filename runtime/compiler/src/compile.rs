//! The whole way from a model file to an artifact.

use dunlin_artifact::Manifest;
use sha2::Digest as _;

use crate::assemble::Bounds;
use crate::graph::Graph;
use crate::{CompileError, Report, assemble, import, lower, passes, report};

/// What the artifact is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Runs everywhere.
    #[default]
    Generic,
}

impl Target {
    /// The target's name on the command line and in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Generic => "generic",
        }
    }
}

/// Settings of a compilation.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model's name in the manifest.
    pub name: String,
    /// What the artifact is made for.
    pub target: Target,
    /// Number of golden vectors.
    pub golden: usize,
    /// Make every intermediate tensor a model output, in the order in which they are computed. Nothing is fused
    /// or overwritten then: for debugging, layer by layer.
    pub expose_intermediates: bool,
    /// What the model may ask for at most.
    pub bounds: Bounds,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "model".into(),
            target: Target::Generic,
            golden: 2,
            expose_intermediates: false,
            bounds: Bounds::default(),
        }
    }
}

/// A compiled model.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The file.
    pub artifact: Vec<u8>,
    /// What the compiler did.
    pub report: Report,
}

/// The parts of a compilation, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The file is read into a graph.
    Import,
    /// The graph is simplified.
    Passes,
    /// Nodes become instructions with all their constants.
    Lower,
    /// Tensors get their places in the arena.
    Plan,
    /// The artifact is written, and its golden vectors are computed by running it.
    Assemble,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 5] = [Step::Import, Step::Passes, Step::Lower, Step::Plan, Step::Assemble];

    /// The name that people read.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Import => "import",
            Step::Passes => "passes",
            Step::Lower => "lower",
            Step::Plan => "plan",
            Step::Assemble => "assemble",
        }
    }
}

/// Compiles a model file (a `.tflite` file's bytes).
pub fn compile(model: &[u8], options: &Options) -> Result<Compiled, CompileError> {
    compile_watched(model, options, |_| {})
}

/// [`compile()`] that says what it is about to do.
pub fn compile_watched(
    model: &[u8],
    options: &Options,
    mut begins: impl FnMut(Step),
) -> Result<Compiled, CompileError> {
    begins(Step::Import);
    let imported = import::import(model)?;
    let mut graph = imported.graph;
    if options.expose_intermediates {
        expose(&mut graph);
    }
    let source = report::SourceSummary::of(&graph);
    begins(Step::Passes);
    passes::run(&mut graph, &options.bounds)?;
    begins(Step::Lower);
    let mut program = lower::lower(&graph)?;
    begins(Step::Plan);
    let placed = assemble::place(&mut program);
    let names: Vec<&str> =
        graph.inputs.iter().chain(&graph.outputs).map(|&id| graph.values[id].name.as_str()).collect();
    let manifest = Manifest {
        name: &options.name,
        producer: concat!("dunlin-compiler ", env!("CARGO_PKG_VERSION")),
        target: options.target.name(),
        source_format: imported.format,
        source_digest: source_digest(model),
        macs: program.steps.iter().map(|step| step.macs).sum(),
        arena_bound: placed.arena_bound as u32,
        io_names: &names.join("\n"),
    };
    begins(Step::Assemble);
    let artifact = assemble::assemble(&program, &placed, manifest, options.golden, &options.bounds)?;
    let report = report::report(&source, &graph, &program, &placed, &artifact, model.len(), options);
    Ok(Compiled { artifact, report })
}

/// What stands in the manifest of an artifact that was compiled from this file: its SHA-256.
pub fn source_digest(model: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(model).into()
}

/// Makes every computed value an output.
fn expose(graph: &mut Graph) {
    let computed: Vec<_> = graph.nodes.iter().flat_map(|node| node.outputs.iter().copied()).collect();
    for id in computed {
        if !graph.is_output(id) && graph.values[id].elements() > 0 {
            graph.outputs.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_told_once_and_in_order() {
        let model = include_bytes!("../../../models/digits_lstm_int8.tflite");
        let mut told = Vec::new();
        let compiled = compile_watched(model, &Options::default(), |step| told.push(step)).expect("compiled");
        assert_eq!(told, Step::ALL);
        assert_eq!(compiled.report.source_bytes, model.len());
        told.clear();
        assert!(compile_watched(&model[..100], &Options::default(), |step| told.push(step)).is_err());
        assert_eq!(told, [Step::Import]);
    }

    /// Files that made the compiler panic or take too much memory once, found by fuzzing.
    #[test]
    fn malformed_files_are_refused_with_a_reason() {
        for (model, reason) in [
            (
                &include_bytes!("../../../fuzz/regressions/tflite/large_states")[..],
                "larger than 16777216 bytes",
            ),
            (include_bytes!("../../../fuzz/regressions/tflite/too_many_axes"), "axes; at most"),
        ] {
            let error = compile(model, &Options::default()).expect_err("refused").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
