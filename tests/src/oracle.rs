//! Cases that `tests/oracle/generate.py` made; its README describes the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::Array;
use crate::array::{dtype_named, numbered, read_npz};
use crate::reference::read_json;

/// What a case is about.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Unique name.
    pub name: String,
    /// Operator.
    pub operator: String,
    /// Element type or types.
    pub dtype: String,
    /// Whether the compiler must accept the model.
    pub required: bool,
    /// Whether the arrays' first axes are sequence and step.
    pub stateful: bool,
    /// Relative tolerance for floats.
    pub tolerance: f64,
    /// Tolerance for integers.
    pub steps: u32,
    /// What was drawn.
    pub parameters: serde_json::Value,
}

/// A case with its data.
pub struct Loaded {
    /// The model file's bytes.
    pub model: Vec<u8>,
    /// Inputs.
    pub inputs: Vec<Array>,
    /// Expected outputs.
    pub outputs: Vec<Array>,
}

/// A set of cases, in a folder or packed in one file.
pub struct Set {
    cases: Vec<(Case, Source)>,
    blob: Vec<u8>,
    folder: PathBuf,
}

enum Source {
    Files { model: PathBuf, data: PathBuf },
    Packed { model: Span, arrays: BTreeMap<String, Packed> },
}

type Span = (usize, usize);

#[derive(Deserialize)]
struct Packed {
    dtype: String,
    shape: Vec<usize>,
    at: Span,
}

#[derive(Deserialize)]
struct Index {
    cases: Vec<serde_json::Value>,
}

impl Set {
    /// The set kept in the repository.
    pub fn packed(path: &Path) -> Result<Self> {
        let mut file = read_npz(path)?;
        let mut part = |name: &str| file.remove(name).map(|array| array.bytes).context("no packed cases");
        let (index, blob) = (part("index")?, part("blob")?);
        let index: Index = serde_json::from_slice(&index)?;
        let source = |record: &mut serde_json::Value| -> Result<Source> {
            let model = serde_json::from_value(record["model"].take())?;
            Ok(Source::Packed { model, arrays: serde_json::from_value(record["arrays"].take())? })
        };
        Ok(Set { cases: cases(index, source)?, blob, folder: PathBuf::new() })
    }

    /// A set that was generated into a folder.
    pub fn folder(folder: &Path) -> Result<Self> {
        let index: Index = read_json(&folder.join("index.json"))?;
        let source = |record: &mut serde_json::Value| -> Result<Source> {
            let model = serde_json::from_value(record["model"].take())?;
            Ok(Source::Files { model, data: serde_json::from_value(record["data"].take())? })
        };
        Ok(Set { cases: cases(index, source)?, blob: Vec::new(), folder: folder.to_owned() })
    }

    /// Number of cases.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// One case with its data.
    pub fn load(&self, index: usize) -> Result<(&Case, Loaded)> {
        let (case, source) = &self.cases[index];
        let loaded = match source {
            Source::Files { model, data } => {
                let arrays = read_npz(&self.folder.join(data))?;
                loaded(fs::read(self.folder.join(model))?, &arrays)
            }
            Source::Packed { model, arrays } => {
                let unpacked = arrays
                    .iter()
                    .map(|(name, packed)| {
                        let bytes = self.bytes(packed.at)?;
                        let dtype = dtype_named(&packed.dtype)?;
                        Ok((name.clone(), Array { dtype, shape: packed.shape.clone(), bytes }))
                    })
                    .collect::<Result<BTreeMap<_, _>>>()?;
                loaded(self.bytes(*model)?, &unpacked)
            }
        };
        Ok((case, loaded))
    }

    fn bytes(&self, (offset, len): Span) -> Result<Vec<u8>> {
        Ok(self.blob.get(offset..offset + len).context("packed case points outside of its file")?.to_vec())
    }
}

fn loaded(model: Vec<u8>, arrays: &BTreeMap<String, Array>) -> Loaded {
    Loaded { model, inputs: numbered(arrays, "in"), outputs: numbered(arrays, "out") }
}

fn cases(
    index: Index,
    source: impl Fn(&mut serde_json::Value) -> Result<Source>,
) -> Result<Vec<(Case, Source)>> {
    index
        .cases
        .into_iter()
        .map(|mut record| {
            let source = source(&mut record)?;
            Ok((serde_json::from_value(record)?, source))
        })
        .collect()
}
