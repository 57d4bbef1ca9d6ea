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

/// Compiles a model file (a `.tflite` file's bytes).
pub fn compile(model: &[u8], options: &Options) -> Result<Compiled, CompileError> {
    let imported = import::import(model)?;
    let mut graph = imported.graph;
    if options.expose_intermediates {
        expose(&mut graph);
    }
    let source = report::SourceSummary::of(&graph);
    passes::run(&mut graph, &options.bounds)?;
    let mut program = lower::lower(&graph)?;
    let placed = assemble::place(&mut program);
    let names: Vec<&str> =
        graph.inputs.iter().chain(&graph.outputs).map(|&id| graph.values[id].name.as_str()).collect();
    let manifest = Manifest {
        name: &options.name,
        producer: concat!("dunlin-compiler ", env!("CARGO_PKG_VERSION")),
        target: options.target.name(),
        source_format: imported.format,
        source_digest: sha2::Sha256::digest(model).into(),
        macs: program.steps.iter().map(|step| step.macs).sum(),
        arena_bound: placed.arena_bound as u32,
        io_names: &names.join("\n"),
    };
    let artifact = assemble::assemble(&program, &placed, manifest, options.golden, &options.bounds)?;
    let report = report::report(&source, &graph, &program, &placed, &artifact, model.len(), options);
    Ok(Compiled { artifact, report })
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
