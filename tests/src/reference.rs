//! Whole models with reference outputs: `models/` of the repository, and a larger set outside of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use dunlin_artifact::DType;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Array;
use crate::array::{numbered, read_npz};
use crate::compare::values;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// The larger set: the folder that `DUNLIN_MODELS` names, or `../shared/models` beside the repository.
///
/// # Panics
/// When `DUNLIN_MODELS` names no folder: who sets it wants the set tested.
pub fn larger_set() -> Option<PathBuf> {
    if let Some(named) = env::var_os("DUNLIN_MODELS") {
        let folder = PathBuf::from(named);
        assert!(folder.join("index.json").is_file(), "DUNLIN_MODELS: {} has no index.json", folder.display());
        return Some(folder);
    }
    let beside = repository().parent()?.join("shared/models");
    beside.join("index.json").is_file().then_some(beside)
}

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || -> Result<T> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// A model with inputs and the outputs that it must give.
pub struct Reference {
    /// The model's name.
    pub name: String,
    /// The file's bytes.
    pub model: Vec<u8>,
    /// Inputs in the model's own types.
    pub inputs: Vec<Array>,
    /// Expected outputs.
    pub outputs: Vec<Array>,
    /// Whether the arrays' first axes are sequence and step.
    pub stateful: bool,
    /// Where the expected outputs come from.
    pub source: String,
    /// Float outputs of a quantized model for which TensorFlow Lite Micro and the reference round one integer
    /// differently: how many values may differ from the reference, and by how much.
    pub known: Option<(usize, f64)>,
}

/// One of the repository's own models.
#[derive(Deserialize)]
struct Own {
    name: String,
    file: PathBuf,
    data: PathBuf,
    stateful: bool,
    reference: String,
}

/// The repository's own models.
pub fn own_models() -> Result<Vec<Reference>> {
    #[derive(Deserialize)]
    struct Index {
        models: Vec<Own>,
    }
    let folder = repository().join("models");
    let index: Index = read_json(&folder.join("index.json"))?;
    let load = |own: Own| {
        let arrays = read_npz(&folder.join(&own.data))?;
        Ok(Reference {
            model: fs::read(folder.join(&own.file))?,
            inputs: numbered(&arrays, "in"),
            outputs: numbered(&arrays, "out"),
            name: own.name,
            stateful: own.stateful,
            source: own.reference,
            known: None,
        })
    };
    index.models.into_iter().map(load).collect()
}

/// A model of the larger set, as its index describes it.
#[derive(Deserialize)]
pub struct Shared {
    /// The model's name.
    pub name: String,
    format: String,
    file: PathBuf,
    stateful: bool,
    /// Intermediate tensors of the first sample, for some.
    pub layers: Option<PathBuf>,
    truth: Option<Truth>,
}

#[derive(Deserialize)]
struct Truth {
    inputs: PathBuf,
    outputs: PathBuf,
    kernels: String,
    input_transforms: Vec<Transform>,
    #[serde(default)]
    agreement_with_out: BTreeMap<String, Agreement>,
}

/// How stored values become the model's input.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Transform {
    None,
    U8ToI8,
    AffineF32 { scale: f64, offset: f64 },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Agreement {
    Outputs(Vec<Counted>),
    #[expect(dead_code, reason = "a sentence that says why there are no outputs")]
    Refused(String),
}

#[derive(Clone, Copy, Deserialize)]
struct Counted {
    max_abs: f64,
    differing: usize,
}

/// The `.tflite` models of the larger set.
pub fn shared_models(folder: &Path) -> Result<Vec<Shared>> {
    #[derive(Deserialize)]
    struct Index {
        models: Vec<serde_json::Value>,
    }
    let index: Index = read_json(&folder.join("index.json"))?;
    let tflite = |record: &serde_json::Value| record["format"] == "tflite";
    index.models.into_iter().filter(tflite).map(|record| Ok(serde_json::from_value(record)?)).collect()
}

impl Shared {
    /// The file's bytes.
    pub fn model(&self, folder: &Path) -> Result<Vec<u8>> {
        debug_assert_eq!(self.format, "tflite");
        fs::read(folder.join(&self.file)).with_context(|| self.name.clone())
    }

    /// Loads inputs and expected outputs: TensorFlow Lite Micro's where they differ from the reference kernels'.
    pub fn load(&self, folder: &Path) -> Result<Reference> {
        let truth = self.truth.as_ref().with_context(|| format!("{} has no reference outputs", self.name))?;
        let stored = numbered(&read_npz(&folder.join(&truth.inputs))?, "in");
        ensure!(stored.len() == truth.input_transforms.len(), "{}: one transform per input", self.name);
        let inputs =
            stored.iter().zip(&truth.input_transforms).map(|(array, how)| how.apply(array)).collect();
        let arrays = read_npz(&folder.join(&truth.outputs))?;
        let mut outputs = numbered(&arrays, "out");
        let mut source = truth.kernels.clone();
        for (index, output) in outputs.iter_mut().enumerate() {
            if let Some(micro) = arrays.get(&format!("tflm_{index}")) {
                output.clone_from(micro);
                source = "TFLM".into();
            }
        }
        let known = match truth.agreement_with_out.get("tflm") {
            Some(Agreement::Outputs(counted)) if outputs[0].dtype == DType::F32 => {
                let beyond = counted.iter().filter(|output| output.max_abs > 1e-5);
                let (count, most) = beyond.fold((0, 0.0_f64), |(count, most), output| {
                    (count + output.differing, most.max(output.max_abs))
                });
                (count > 0).then_some((count, most))
            }
            _ => None,
        };
        Ok(Reference {
            name: self.name.clone(),
            model: self.model(folder)?,
            inputs,
            outputs,
            stateful: self.stateful,
            source,
            known,
        })
    }

    /// The inputs of the first sample.
    pub fn first_sample(&self, folder: &Path) -> Result<Vec<Array>> {
        let mut inputs = self.load(folder)?.inputs;
        for array in &mut inputs {
            let len = array.bytes.len() / array.shape[0];
            array.bytes.truncate(len);
            array.shape[0] = 1;
        }
        Ok(inputs)
    }
}

impl Transform {
    fn apply(&self, stored: &Array) -> Array {
        let shape = stored.shape.clone();
        match *self {
            Transform::None => stored.clone(),
            Transform::U8ToI8 => {
                Array { dtype: DType::I8, shape, bytes: stored.bytes.iter().map(|v| v ^ 0x80).collect() }
            }
            Transform::AffineF32 { scale, offset } => {
                let (scale, offset) = (scale as f32, offset as f32);
                let real = |value: f64| (value as f32 * scale + offset).to_le_bytes();
                let bytes = values(stored.dtype, &stored.bytes).flat_map(real).collect();
                Array { dtype: DType::F32, shape, bytes }
            }
        }
    }
}
