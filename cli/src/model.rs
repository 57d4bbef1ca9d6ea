//! An artifact on disk, ready to run or to be described.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dunlin_artifact::{Artifact, FormatError, Kernel, Manifest, Tensor};
use dunlin_compiler::AlignedBytes;
use dunlin_runtime::{RunError, Session};
use serde::Serialize;

use crate::error::{Failure, read_file};

/// Largest artifact: its offsets have 32 bits.
const MAX_FILE: u64 = 1 << 32;

/// An artifact's bytes, and where they came from.
pub(crate) struct ModelFile {
    path: PathBuf,
    bytes: AlignedBytes,
}

/// A validated artifact with the names that its manifest gives.
pub(crate) struct Model<'a> {
    pub(crate) path: &'a Path,
    pub(crate) artifact: Artifact<'a>,
    pub(crate) manifest: Manifest<'a>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
}

/// An input or output with its name.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) tensor: Tensor,
}

/// How a [`Port`] is shown.
#[derive(Debug, Serialize)]
pub(crate) struct PortReport {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u32>,
    /// `null` for a tensor that is not quantized.
    pub(crate) scale: Option<f32>,
    pub(crate) zero_point: Option<i32>,
}

impl ModelFile {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        Ok(ModelFile { path: path.to_owned(), bytes: AlignedBytes::new(&read_file(path, MAX_FILE)?) })
    }

    /// An artifact that is not on disk yet; `path` is where it will be.
    pub(crate) fn new(path: &Path, bytes: &[u8]) -> Self {
        ModelFile { path: path.to_owned(), bytes: AlignedBytes::new(bytes) }
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Validates the artifact's structure.
    pub(crate) fn parse(&self) -> Result<Model<'_>, Failure> {
        let artifact = Artifact::parse(self.bytes.as_slice()).map_err(|error| self.refuse(error))?;
        let manifest = artifact.manifest().map_err(|error| self.refuse(error))?;
        let (inputs, outputs) = ports(&artifact, &manifest);
        Ok(Model { path: &self.path, artifact, manifest, inputs, outputs })
    }

    /// Validates structure and digest: for commands that trust the numbers.
    pub(crate) fn parse_intact(&self) -> Result<Model<'_>, Failure> {
        let model = self.parse()?;
        model.artifact.verify_digest().map_err(|error| self.refuse(error))?;
        Ok(model)
    }

    fn refuse(&self, error: FormatError) -> Failure {
        let way_out = match error {
            FormatError::NotAnArtifact if self.bytes.as_slice().get(4..8) == Some(b"TFL3") => {
                "this is a .tflite model: turn it into an artifact with `dunlin compile` first"
            }
            FormatError::NotAnArtifact => "a .dunlin file from `dunlin compile` is expected",
            FormatError::Version { .. } | FormatError::Features { .. } => {
                "update dunlin, or compile the model with this version"
            }
            _ => "copy the file again, or compile the model again",
        };
        Failure::new(error.to_string()).file(&self.path).way_out(way_out)
    }
}

impl<'a> Model<'a> {
    /// A session in an arena of its own.
    pub(crate) fn session<'s>(&self, arena: &'s mut AlignedBytes) -> Result<Session<'a, 's>, Failure> {
        Session::new(self.artifact, arena.as_mut_slice()).map_err(|error| self.run_failure(error))
    }

    /// An arena for one session.
    pub(crate) fn arena(&self) -> AlignedBytes {
        AlignedBytes::zeroed(self.artifact.arena_len())
    }

    /// A failure of the engine.
    pub(crate) fn run_failure(&self, error: RunError) -> Failure {
        let failure = match error {
            RunError::MissingKernel(code) => {
                let name = kernel_name(code);
                Failure::new(format!("needs kernel {name}, which this version of dunlin does not have"))
                    .way_out("update dunlin, or compile the model with this version")
            }
            _ => Failure::new(format!("cannot be run: {error}")).way_out("compile the model again"),
        };
        failure.file(self.path)
    }

    /// Names for the arrays of an archive: the tensors' names where they are there and different, `out_0`,
    /// `out_1`, … otherwise.
    pub(crate) fn output_keys(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let keys = self.outputs.iter().enumerate().map(|(index, port)| {
            let usable = !port.name.is_empty() && seen.insert(port.name.clone());
            if usable { port.name.clone() } else { format!("out_{index}") }
        });
        keys.collect()
    }
}

/// Pairs inputs and outputs with their names.
fn ports(artifact: &Artifact<'_>, manifest: &Manifest<'_>) -> (Vec<Port>, Vec<Port>) {
    let (inputs, outputs) = (artifact.inputs().len(), artifact.outputs().len());
    let names: Vec<&str> = manifest.io_names.split('\n').collect();
    let named = names.len() == inputs + outputs;
    let name = |at: usize, fallback: String| match names.get(at) {
        Some(name) if named => (*name).to_owned(),
        _ => fallback,
    };
    let inputs_named = artifact.inputs().enumerate();
    let outputs_named = artifact.outputs().enumerate();
    (
        inputs_named.map(|(i, tensor)| Port { name: name(i, format!("in_{i}")), tensor }).collect(),
        outputs_named
            .map(|(i, tensor)| Port { name: name(inputs + i, format!("out_{i}")), tensor })
            .collect(),
    )
}

/// A kernel's name from its number.
pub(crate) fn kernel_name(code: u8) -> String {
    Kernel::from_code(code).map_or_else(|| format!("{code}"), |kernel| kernel.name().to_owned())
}

impl Port {
    /// Scale and zero point of a quantized tensor.
    pub(crate) fn quantization(&self) -> Option<(f32, i32)> {
        (self.tensor.scale != 0.0).then_some((self.tensor.scale, self.tensor.zero_point))
    }

    /// `int8 (scale 0.5, zero point 3)`.
    pub(crate) fn type_text(&self) -> String {
        match self.quantization() {
            Some((scale, zero_point)) => {
                format!("{} (scale {scale}, zero point {zero_point})", self.tensor.dtype)
            }
            None => self.tensor.dtype.to_string(),
        }
    }

    /// The shape as sizes.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.tensor.shape().iter().map(|&dim| dim as usize).collect()
    }

    /// The real values that stored elements stand for.
    pub(crate) fn reals(&self, bytes: &[u8]) -> impl Iterator<Item = f64> {
        let (scale, zero_point) = self.quantization().unwrap_or((1.0, 0));
        let element = crate::array::Element::Tensor(self.tensor.dtype);
        element.reals(bytes).map(move |stored| f64::from(scale) * (stored - f64::from(zero_point)))
    }

    /// What `inspect` and others show.
    pub(crate) fn report(&self) -> PortReport {
        PortReport {
            name: self.name.clone(),
            dtype: self.tensor.dtype.name(),
            shape: self.tensor.shape().to_vec(),
            scale: self.quantization().map(|(scale, _)| scale),
            zero_point: self.quantization().map(|(_, zero_point)| zero_point),
        }
    }
}
