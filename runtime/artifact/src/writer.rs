//! Writes artifacts. The compiler's last step.

use std::vec;
use std::vec::Vec;

use crate::layout::{self, header, section};
use crate::reader::{NO_TENSOR, compute_digest};
use crate::{Golden, Kernel, Manifest, Tensor, TensorId, golden, limits};

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
    /// Bytes of arena.
    pub arena_len: u32,
    /// Bytes of the arena's persistent part.
    pub state_len: u32,
    /// Work of one run.
    pub work: u64,
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
        // The data section comes last, so that one alignment gap is all the padding there is.
        sections.push((section::DATA, self.data.clone()));

        let mut file = vec![0; header::SIZE + sections.len() * section::ENTRY];
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
        put(header::MAGIC, &layout::MAGIC);
        put(header::VERSION, &layout::VERSION.to_le_bytes());
        put(header::SECTIONS, &(sections.len() as u16).to_le_bytes());
        put(header::FILE_LEN, &file_len.to_le_bytes());
        put(header::KERNELS, &kernels.to_le_bytes());
        put(header::ARENA_LEN, &self.arena_len.to_le_bytes());
        put(header::STATE_LEN, &self.state_len.to_le_bytes());
        put(header::WORK, &self.work.to_le_bytes());
        let digest = compute_digest(&file);
        file[header::DIGEST..header::DIGEST + 32].copy_from_slice(&digest);
        file
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
