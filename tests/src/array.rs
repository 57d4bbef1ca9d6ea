//! Reading NumPy files of our own making.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dunlin_artifact::DType;
use npyz::{NpyFile, Order};
use zip::ZipArchive;

/// Values of one type in C order, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Element type.
    pub dtype: DType,
    /// Sizes of the axes; empty for a single value.
    pub shape: Vec<usize>,
    /// The values.
    pub bytes: Vec<u8>,
}

impl Array {
    /// Reads a `.npy` file.
    pub fn from_npy(file: &[u8]) -> Result<Self> {
        let npy = NpyFile::new(file)?;
        ensure!(npy.order() == Order::C || npy.shape().len() < 2, "array is in Fortran order");
        let dtype = dtype_of(&npy.dtype().descr())?;
        let shape: Vec<usize> = npy.shape().iter().map(|&dim| dim as usize).collect();
        let len = shape.iter().product::<usize>() * dtype.size();
        let bytes = file.get(file.len() - len..).context("array is cut short")?.to_vec();
        Ok(Array { dtype, shape, bytes })
    }

    /// Splits off the first axis: its size, and what lies behind each of its indices.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let count = self.shape.first().copied().unwrap_or(1);
        self.bytes.chunks_exact((self.bytes.len() / count.max(1)).max(1)).take(count)
    }
}

/// All arrays of a `.npz` file by name.
pub fn read_npz(path: &Path) -> Result<BTreeMap<String, Array>> {
    let open = || -> Result<BTreeMap<String, Array>> {
        let mut archive = ZipArchive::new(File::open(path)?)?;
        let mut arrays = BTreeMap::new();
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index)?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            let name = entry.name()?.trim_end_matches(".npy").to_owned();
            arrays.insert(name, Array::from_npy(&bytes)?);
        }
        Ok(arrays)
    };
    open().with_context(|| format!("cannot read {}", path.display()))
}

/// The arrays `in_0`, `in_1`, … (or with another prefix) in order.
pub fn numbered(arrays: &BTreeMap<String, Array>, prefix: &str) -> Vec<Array> {
    (0..).map_while(|i| arrays.get(&format!("{prefix}_{i}")).cloned()).collect()
}

/// The type behind a NumPy type string such as `'<i2'`.
fn dtype_of(descr: &str) -> Result<DType> {
    Ok(match descr.trim_matches('\'').trim_start_matches(['<', '|', '=']) {
        "i1" => DType::I8,
        "u1" => DType::U8,
        "b1" => DType::Bool,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "u4" => DType::U32,
        "i8" => DType::I64,
        "u8" => DType::U64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        other => bail!("arrays of type {other} are not supported"),
    })
}

/// The type with a NumPy name such as `int16`.
pub fn dtype_named(name: &str) -> Result<DType> {
    DType::ALL
        .into_iter()
        .find(|dtype| dtype.name() == name)
        .with_context(|| format!("no tensor has elements of type {name}"))
}
