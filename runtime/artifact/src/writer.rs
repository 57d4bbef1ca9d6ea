//! Writes artifacts. The compiler's last step.

use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::baseline::{Part, RawBins, Record, Source};
use crate::layout::{self, header, section};
use crate::reader::{NO_TENSOR, compute_digest};
use crate::{Artifact, Golden, Kernel, Manifest, Tensor, TensorId, golden, limits};

/// Everything that goes into a file.
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// The manifest.
    pub manifest: Manifest<'a>,
    /// The tensor table.
    pub tensors: Vec<Tensor>,
    /// The program: instructions made with [`instruction`], in order.
    pub program: Vec<(Kernel, Vec<u8>)>,
    /// The constants; offsets in `tensors` point into it.
    pub data: Vec<u8>,
    /// Indices of the inputs.
    pub inputs: Vec<TensorId>,
    /// Indices of the outputs.
    pub outputs: Vec<TensorId>,
    /// State tensors with the constant they start from, or the byte that fills them.
    pub states: Vec<(TensorId, Result<TensorId, u8>)>,
    /// Golden vectors; all have the same number of steps.
    pub golden: Vec<Golden<'a>>,
    /// Monitored features.
    pub baseline: Option<Baseline>,
    /// Bytes of arena.
    pub arena_len: u32,
    /// Bytes of the arena's persistent part.
    pub state_len: u32,
    /// Work of one run.
    pub work: u64,
}

/// The baseline, to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline {
    /// How many runs of the model were counted.
    pub samples: u32,
    /// The features in order.
    pub features: Vec<Feature>,
}

/// A monitored feature, to be written; the fields are those of [`crate::baseline::Feature`].
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Where its values come from.
    pub source: Source,
    /// Which values of the source.
    pub part: Part,
    /// How it is counted, and what the calibration data counted to.
    pub bins: Bins,
    /// Values of the calibration data that were missing.
    pub missing: u32,
}

/// How a feature is counted; the fields are those of [`crate::baseline::Bins`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "described where they are read")]
pub enum Bins {
    /// Real values between edges.
    Numeric {
        edges: Vec<f32>,
        counts: Vec<u32>,
        min: f32,
        max: f32,
        unit: f32,
        zero: f32,
        sum: i64,
        squares: u128,
    },
    /// Classes.
    Classes { counts: Vec<u32> },
    /// Categories.
    Categories { known: Vec<u32>, counts: Vec<u32> },
}

/// Encodes an instruction.
///
/// # Panics
/// If `params` cannot be encoded; the parameter structs of [`crate::op`] always can.
pub fn instruction<P: serde::Serialize>(kernel: Kernel, params: &P) -> (Kernel, Vec<u8>) {
    (kernel, postcard::to_stdvec(params).expect("parameter structs are plain numbers"))
}

impl Contents<'_> {
    /// Lays the file out and computes its digest.
    ///
    /// # Panics
    /// If the file would be larger than 4 GiB.
    pub fn write(&self) -> Vec<u8> {
        let kernels = self.program.iter().fold(0u128, |set, (kernel, _)| set | kernel.bit());
        let mut sections = vec![
            (section::MANIFEST, postcard::to_stdvec(&self.manifest).expect("plain fields")),
            (section::TENSORS, self.tensors.iter().flat_map(Tensor::encode).collect()),
            (section::PROGRAM, self.program_bytes()),
            (section::INTERFACE, self.interface_bytes()),
        ];
        if let Some(first) = self.golden.first() {
            let mut bytes = Vec::new();
            bytes.extend((self.golden.len() as u16).to_le_bytes());
            bytes.extend(first.steps.to_le_bytes());
            self.golden.iter().for_each(|vector| golden::write(vector, &mut bytes));
            sections.push((section::GOLDEN, bytes));
        }
        if let Some(baseline) = &self.baseline {
            sections.push((section::BASELINE, baseline.encode()));
        }
        sections.push((section::DATA, self.data.clone()));

        let mut header = [0; header::SIZE];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(header::MAGIC, &layout::MAGIC);
        put(header::VERSION, &layout::VERSION.to_le_bytes());
        put(header::KERNELS, &kernels.to_le_bytes());
        put(header::ARENA_LEN, &self.arena_len.to_le_bytes());
        put(header::STATE_LEN, &self.state_len.to_le_bytes());
        put(header::WORK, &self.work.to_le_bytes());
        lay_out(header, sections)
    }

    fn program_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kernel, body) in &self.program {
            bytes.push(*kernel as u8);
            bytes.extend(u16::try_from(body.len()).expect("instructions are short").to_le_bytes());
            bytes.extend(body);
        }
        bytes
    }

    fn interface_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for count in [self.inputs.len(), self.outputs.len(), self.states.len(), 0] {
            bytes.extend((count as u16).to_le_bytes());
        }
        for id in self.inputs.iter().chain(&self.outputs) {
            bytes.extend(id.to_le_bytes());
        }
        for (state, from) in &self.states {
            bytes.extend(state.to_le_bytes());
            bytes.extend(from.unwrap_or(NO_TENSOR).to_le_bytes());
            bytes.extend([from.err().unwrap_or(0), 0, 0, 0]);
        }
        bytes
    }
}

/// The same artifact with another baseline; everything else stays as it is, sections that this version does not know
/// included.
///
/// # Panics
/// If the file would be larger than 4 GiB.
pub fn with_baseline(artifact: &Artifact<'_>, baseline: &Baseline) -> Vec<u8> {
    let kept = artifact.sections().filter(|(id, _)| *id != section::BASELINE);
    let mut sections: Vec<_> = kept.map(|(id, bytes)| (id, bytes.to_vec())).collect();
    sections.push((section::BASELINE, baseline.encode()));
    let mut header = [0; header::SIZE];
    header.copy_from_slice(&artifact.bytes()[..header::SIZE]);
    lay_out(header, sections)
}

/// Puts the sections behind the header and fills in what depends on them: their number, the file's length, the digest.
fn lay_out(header: [u8; header::SIZE], mut sections: Vec<(u16, Vec<u8>)>) -> Vec<u8> {
    // The data section comes last, so that one alignment gap is all the padding there is.
    sections.sort_by_key(|(id, _)| *id == section::DATA);
    let mut file = header.to_vec();
    file.resize(header::SIZE + sections.len() * section::ENTRY, 0);
    let mut table = Vec::new();
    for (id, bytes) in &sections {
        if *id == section::DATA {
            file.resize(file.len().next_multiple_of(limits::ALIGNMENT), 0);
        }
        table.extend(id.to_le_bytes());
        table.extend([0, 0]);
        table.extend(u32::try_from(file.len()).expect("file below 4 GiB").to_le_bytes());
        table.extend(u32::try_from(bytes.len()).expect("file below 4 GiB").to_le_bytes());
        file.extend(bytes);
    }
    file[header::SIZE..header::SIZE + table.len()].copy_from_slice(&table);
    let file_len = u32::try_from(file.len()).expect("file below 4 GiB");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(header::SECTIONS, &(sections.len() as u16).to_le_bytes());
    put(header::FILE_LEN, &file_len.to_le_bytes());
    let digest = compute_digest(&file);
    file[header::DIGEST..header::DIGEST + 32].copy_from_slice(&digest);
    file
}

impl Baseline {
    /// The section's bytes.
    fn encode(&self) -> Vec<u8> {
        let counters: usize = self.features.iter().map(|feature| feature.bins.counters()).sum();
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(self.features.len()).expect("within the limits").to_le_bytes());
        bytes.extend(u16::try_from(counters).expect("within the limits").to_le_bytes());
        bytes.extend(self.samples.to_le_bytes());
        for feature in &self.features {
            let record = feature.encode();
            bytes.extend(u32::try_from(record.len()).expect("within the limits").to_le_bytes());
            bytes.extend(record);
        }
        bytes
    }
}

impl Feature {
    fn encode(&self) -> Vec<u8> {
        fn words(words: &[u32]) -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        }
        let (first, second);
        let bins = match &self.bins {
            Bins::Numeric { edges, counts, min, max, unit, zero, sum, squares } => {
                first = edges.iter().flat_map(|edge| edge.to_le_bytes()).collect::<Vec<u8>>();
                second = words(counts);
                RawBins::Numeric {
                    edges: &first,
                    counts: &second,
                    min: *min,
                    max: *max,
                    unit: *unit,
                    zero: *zero,
                    sum: *sum,
                    squares: *squares,
                }
            }
            Bins::Classes { counts } => {
                first = words(counts);
                RawBins::Classes { counts: &first }
            }
            Bins::Categories { known, counts } => {
                (first, second) = (words(known), words(counts));
                RawBins::Categories { known: &first, counts: &second }
            }
        };
        let (source, part) = (self.source, self.part);
        let record = Record { name: &self.name, source, part, bins, missing: self.missing };
        postcard::to_stdvec(&record).expect("plain fields")
    }
}

impl Bins {
    /// Number of counters.
    pub fn counters(&self) -> usize {
        match self {
            Bins::Numeric { counts, .. } | Bins::Classes { counts } | Bins::Categories { counts, .. } => {
                counts.len()
            }
        }
    }
}
