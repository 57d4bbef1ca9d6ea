//! The zero-copy reader.

use crate::layout::{self, header, section};
use crate::{Baseline, Digester, FormatError, Golden, Manifest, Place, Tensor, TensorId, golden, limits};

/// A validated artifact, borrowed from its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Artifact<'a> {
    bytes: &'a [u8],
    tensors: &'a [[u8; layout::tensor::SIZE]],
    program: &'a [u8],
    data: &'a [u8],
    inputs: &'a [[u8; 2]],
    outputs: &'a [[u8; 2]],
    states: &'a [[u8; STATE]],
    golden: &'a [u8],
    baseline: &'a [u8],
    manifest: &'a [u8],
    work: u64,
}

/// Bytes of one state entry: `u16` tensor, `u16` initial value or `0xFFFF`, `u8` fill, 3 reserved.
pub(crate) const STATE: usize = 8;
pub(crate) const NO_TENSOR: u16 = u16::MAX;

/// One instruction of the program, not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct Instruction<'a> {
    /// The kernel's number. [`Artifact::parse`] accepts unknown numbers below 128, so that a newer file's list of
    /// kernels can still be printed.
    pub kernel: u8,
    /// The postcard-coded parameter struct.
    pub body: &'a [u8],
}

/// How a state tensor begins.
#[derive(Clone, Copy, Debug)]
pub struct StateInit {
    /// The state tensor; it lies in the arena's persistent part.
    pub tensor: Tensor,
    /// The constant to start from, or the byte to fill the tensor with.
    pub from: Result<Tensor, u8>,
}

impl<'a> Artifact<'a> {
    /// Reads and validates an artifact. `bytes` must start at a multiple of 16 bytes; bytes behind the length
    /// that the header states are ignored.
    ///
    /// Validation is structural: it bounds every offset, but trusts neither the digest (see
    /// [`Artifact::verify_digest`]) nor the parameters of the instructions, which every kernel checks itself.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut artifact = Self::parse_unmonitored(bytes)?;
        let baseline = Sections::read(artifact.bytes)?.get(section::BASELINE);
        if !baseline.is_empty() {
            Baseline::parse(artifact, baseline)?;
            artifact.baseline = baseline;
        }
        Ok(artifact)
    }

    /// [`Artifact::parse`] for programs that do not monitor: the baseline is not looked at, and [`Artifact::baseline`] is
    /// `None`. The checks of a baseline take 4 KB of code.
    pub fn parse_unmonitored(bytes: &'a [u8]) -> Result<Self, FormatError> {
        if !bytes.as_ptr().addr().is_multiple_of(limits::ALIGNMENT) {
            return Err(FormatError::Misaligned);
        }
        if bytes.get(..4) != Some(&layout::MAGIC) {
            return Err(FormatError::NotAnArtifact);
        }
        if bytes.len() < header::SIZE {
            return Err(FormatError::Truncated);
        }
        let version = u16_at(bytes, header::VERSION);
        if version != layout::VERSION {
            return Err(FormatError::Version { found: version });
        }
        let unknown = u32_at(bytes, header::FEATURES) & !layout::KNOWN_FEATURES;
        if unknown != 0 {
            return Err(FormatError::Features { unknown });
        }
        let len = u32_at(bytes, header::FILE_LEN) as usize;
        let bytes = bytes.get(..len).filter(|b| b.len() >= header::SIZE).ok_or(FormatError::Truncated)?;

        let sections = Sections::read(bytes)?;
        let mut artifact = Artifact {
            bytes,
            tensors: sections.required(section::TENSORS)?.as_chunks().0,
            program: sections.required(section::PROGRAM)?,
            data: sections.required(section::DATA)?,
            inputs: &[],
            outputs: &[],
            states: &[],
            golden: sections.get(section::GOLDEN),
            // Set by `parse` when it is known to be valid.
            baseline: &[],
            manifest: sections.required(section::MANIFEST)?,
            work: u64::from(u32_at(bytes, header::WORK)) | u64::from(u32_at(bytes, header::WORK + 4)) << 32,
        };
        artifact.read_interface(sections.required(section::INTERFACE)?)?;
        artifact.check_limits()?;
        artifact.check_tensors()?;
        artifact.check_interface()?;
        artifact.check_program()?;
        artifact.check_golden()?;
        Ok(artifact)
    }

    /// All sections with their numbers, unknown ones too, in the order of the table.
    pub fn sections(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        let len = usize::from(u16_at(bytes, header::SECTIONS)) * section::ENTRY;
        let table = bytes.get(header::SIZE..header::SIZE + len).unwrap_or(&[]);
        table.as_chunks::<{ section::ENTRY }>().0.iter().map(move |entry| {
            let (offset, len) = (u32_at(entry, 4) as usize, u32_at(entry, 8) as usize);
            (u16_at(entry, 0), bytes.get(offset..offset.saturating_add(len)).unwrap_or(&[]))
        })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of arena that one session needs.
    pub fn arena_len(&self) -> usize {
        u32_at(self.bytes, header::ARENA_LEN) as usize
    }

    /// Bytes at the start of the arena that hold state between runs.
    pub fn state_len(&self) -> usize {
        u32_at(self.bytes, header::STATE_LEN) as usize
    }

    /// The set of kernels that the program uses, one bit each (see [`crate::Kernel::bit`]).
    pub fn kernels(&self) -> u128 {
        kernel_set(self.bytes)
    }

    /// An upper bound for the work of one run: bytes touched plus multiply-accumulates. A run that would exceed
    /// it is stopped, so a caller who refuses large values has bounded the time of a run.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// SHA-256 of the file with the digest's own bytes set to zero, as stated in the header.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = [0; 32];
        if let Some(stated) = self.bytes.get(header::DIGEST..header::DIGEST + 32) {
            digest.copy_from_slice(stated);
        }
        digest
    }

    /// Computes the digest and compares it with the stated one.
    pub fn verify_digest(&self) -> Result<(), FormatError> {
        if compute_digest(self.bytes) == self.digest() { Ok(()) } else { Err(FormatError::Digest) }
    }

    /// The manifest.
    pub fn manifest(&self) -> Result<Manifest<'a>, FormatError> {
        postcard::from_bytes(self.manifest).map_err(|_| FormatError::Manifest)
    }

    /// The instructions in order.
    pub fn program(&self) -> impl Iterator<Item = Instruction<'a>> + use<'a> {
        Program { rest: self.program }
    }

    /// The number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// The tensor with this index.
    pub fn tensor(&self, id: TensorId) -> Option<Tensor> {
        Tensor::decode(self.tensors.get(usize::from(id))?)
    }

    /// The bytes of a constant; empty for a tensor in the arena.
    pub fn constant(&self, tensor: &Tensor) -> &'a [u8] {
        match tensor.place {
            Place::Data(offset) => {
                let offset = offset as usize;
                self.data.get(offset..offset.saturating_add(tensor.bytes())).unwrap_or(&[])
            }
            Place::Arena(_) => &[],
        }
    }

    /// The constants' total size in bytes.
    pub fn data_len(&self) -> usize {
        self.data.len()
    }

    /// The inputs in order.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = Tensor> + Clone + use<'a> {
        let artifact = *self;
        self.inputs.iter().map(move |id| artifact.tensor_or_empty(u16::from_le_bytes(*id)))
    }

    /// The outputs in order.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = Tensor> + Clone + use<'a> {
        let artifact = *self;
        self.outputs.iter().map(move |id| artifact.tensor_or_empty(u16::from_le_bytes(*id)))
    }

    /// The state tensors and how they begin.
    pub fn states(&self) -> impl ExactSizeIterator<Item = StateInit> + use<'a> {
        let artifact = *self;
        self.states.iter().map(move |entry| {
            let init = u16::from_le_bytes([entry[2], entry[3]]);
            StateInit {
                tensor: artifact.tensor_or_empty(u16::from_le_bytes([entry[0], entry[1]])),
                from: artifact.tensor(init).filter(|_| init != NO_TENSOR).ok_or(entry[4]),
            }
        })
    }

    /// The golden vectors.
    pub fn golden(&self) -> impl Iterator<Item = Golden<'a>> + use<'a> {
        let (input_len, output_len) = self.io_len();
        let (count, steps, mut rest) = golden_header(self.golden);
        (0..count).map_while(move |_| golden::read(&mut rest, steps, input_len, output_len))
    }

    /// The monitored features, if the model was calibrated.
    pub fn baseline(&self) -> Option<Baseline<'a>> {
        Baseline::read(*self, self.baseline)
    }

    /// Bytes of all inputs together, and of all outputs.
    pub fn io_len(&self) -> (usize, usize) {
        // The same tensor may be listed often, so that the sum need not fit a 32-bit address space.
        let total = |tensors: &mut dyn Iterator<Item = Tensor>| {
            tensors.fold(0usize, |sum, tensor| sum.saturating_add(tensor.bytes()))
        };
        (total(&mut self.inputs()), total(&mut self.outputs()))
    }

    fn tensor_or_empty(&self, id: u16) -> Tensor {
        self.tensor(id).unwrap_or(Tensor::EMPTY)
    }

    fn read_interface(&mut self, bytes: &'a [u8]) -> Result<(), FormatError> {
        let (head, rest) = bytes.split_first_chunk::<8>().ok_or(FormatError::Interface)?;
        let count = |at: usize| usize::from(u16_at(head, at));
        let split = |rest: &'a [u8], len: usize| rest.split_at_checked(len).ok_or(FormatError::Interface);
        let (inputs, rest) = split(rest, 2 * count(0))?;
        let (outputs, rest) = split(rest, 2 * count(2))?;
        let (states, _) = split(rest, STATE * count(4))?;
        self.inputs = inputs.as_chunks().0;
        self.outputs = outputs.as_chunks().0;
        self.states = states.as_chunks().0;
        Ok(())
    }

    fn check_limits(&self) -> Result<(), FormatError> {
        let within = self.tensors.len() <= limits::MAX_TENSORS
            && self.inputs.len() <= limits::MAX_IO
            && self.outputs.len() <= limits::MAX_IO
            && self.states.len() <= limits::MAX_STATES
            && self.arena_len() <= limits::MAX_ARENA as usize
            && self.state_len() <= self.arena_len()
            && self.work <= limits::MAX_WORK;
        if within { Ok(()) } else { Err(FormatError::Limit) }
    }

    fn check_tensors(&self) -> Result<(), FormatError> {
        for (index, record) in self.tensors.iter().enumerate() {
            let index = index as u16;
            let tensor = Tensor::decode(record).ok_or(FormatError::Tensor { index })?;
            let (offset, room) = match tensor.place {
                Place::Arena(offset) => (offset, self.arena_len()),
                Place::Data(offset) => (offset, self.data.len()),
            };
            if (offset as usize).checked_add(tensor.bytes()).is_none_or(|end| end > room) {
                return Err(FormatError::Tensor { index });
            }
        }
        Ok(())
    }

    fn check_interface(&self) -> Result<(), FormatError> {
        let in_arena = |id: &[u8; 2]| {
            matches!(self.tensor(u16::from_le_bytes(*id)), Some(Tensor { place: Place::Arena(_), .. }))
        };
        let io_ok = self.inputs.iter().all(in_arena) && self.outputs.iter().all(in_arena);
        let states_ok = self.states.iter().all(|entry| {
            let state = self.tensor(u16::from_le_bytes([entry[0], entry[1]]));
            let init_id = u16::from_le_bytes([entry[2], entry[3]]);
            let Some(state) = state else { return false };
            let Place::Arena(offset) = state.place else { return false };
            let init_ok = init_id == NO_TENSOR
                || self.tensor(init_id).is_some_and(|init| self.constant(&init).len() == state.bytes());
            init_ok && (offset as usize).saturating_add(state.bytes()) <= self.state_len()
        });
        if io_ok && states_ok { Ok(()) } else { Err(FormatError::Interface) }
    }

    fn check_program(&self) -> Result<(), FormatError> {
        let mut program = Program { rest: self.program };
        loop {
            let offset = (self.program.len() - program.rest.len()) as u32;
            match program.next() {
                Some(instruction) if instruction.kernel < 128 => {
                    if self.kernels() & (1 << instruction.kernel) == 0 {
                        return Err(FormatError::Program { offset });
                    }
                }
                Some(_) => return Err(FormatError::Program { offset }),
                None if program.rest.is_empty() => return Ok(()),
                None => return Err(FormatError::Program { offset }),
            }
        }
    }

    fn check_golden(&self) -> Result<(), FormatError> {
        let (count, _, _) = golden_header(self.golden);
        // Each run must bring at least a byte of output, so that the file's length bounds how many there are.
        let bounded = count == 0 || self.io_len().1 > 0;
        let whole = bounded && self.golden().count() == usize::from(count);
        if whole { Ok(()) } else { Err(FormatError::Golden) }
    }
}

/// The set of kernels that an artifact's program uses, for use in constants: `0` for anything that is too short.
pub const fn kernel_set(bytes: &[u8]) -> u128 {
    if bytes.len() < header::SIZE {
        return 0;
    }
    let mut set = 0;
    let mut byte = 0;
    while byte < 16 {
        set |= (bytes[header::KERNELS + byte] as u128) << (8 * byte);
        byte += 1;
    }
    set
}

/// The arena that an artifact needs, for use in constants: `0` for anything that is too short.
pub const fn arena_len(bytes: &[u8]) -> usize {
    if bytes.len() < header::SIZE {
        return 0;
    }
    let at = header::ARENA_LEN;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

/// The `u16` at this offset in a section, for use in constants: `0` when there is none.
pub(crate) const fn u16_in_section(bytes: &[u8], id: u16, at: usize) -> usize {
    const fn word(bytes: &[u8], at: usize, size: usize) -> usize {
        let (mut word, mut byte) = (0, 0);
        while byte < size {
            if at + byte >= bytes.len() {
                return 0;
            }
            word |= (bytes[at + byte] as usize) << (8 * byte);
            byte += 1;
        }
        word
    }
    let mut entry = header::SIZE;
    let end = entry + word(bytes, header::SECTIONS, 2) * section::ENTRY;
    while entry < end {
        let len = word(bytes, entry + 8, 4);
        if word(bytes, entry, 2) == id as usize && len >= at + 2 {
            let offset = word(bytes, entry + 4, 4);
            // Offsets of 32 bits plus a few do not overflow where they fit at all.
            return if offset < bytes.len() { word(bytes, offset + at, 2) } else { 0 };
        }
        entry += section::ENTRY;
    }
    0
}

pub(crate) fn compute_digest(bytes: &[u8]) -> [u8; 32] {
    let mut digester = Digester::new();
    digester.update(bytes);
    digester.finish()
}

struct Program<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Program<'a> {
    type Item = Instruction<'a>;

    fn next(&mut self) -> Option<Instruction<'a>> {
        let (&[kernel, low, high], rest) = self.rest.split_first_chunk::<3>()?;
        let (body, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
        self.rest = rest;
        Some(Instruction { kernel, body })
    }
}

/// The payloads of the sections that this reader knows.
struct Sections<'a> {
    payload: [Option<&'a [u8]>; section::KNOWN],
}

impl<'a> Sections<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let count = usize::from(u16_at(bytes, header::SECTIONS));
        if count > limits::MAX_SECTIONS {
            return Err(FormatError::Limit);
        }
        let table =
            bytes.get(header::SIZE..header::SIZE + count * section::ENTRY).ok_or(FormatError::Truncated)?;
        let mut payload = [None; section::KNOWN];
        for entry in table.as_chunks::<{ section::ENTRY }>().0 {
            let id = u16_at(entry, 0);
            let (offset, len) = (u32_at(entry, 4) as usize, u32_at(entry, 8) as usize);
            let body = offset
                .checked_add(len)
                .and_then(|end| bytes.get(offset..end))
                .ok_or(FormatError::Section { id })?;
            let aligned = id != section::DATA || offset % limits::ALIGNMENT == 0;
            if let Some(slot) = payload.get_mut(usize::from(id)) {
                if slot.is_some() || !aligned {
                    return Err(FormatError::Section { id });
                }
                *slot = Some(body);
            }
        }
        Ok(Sections { payload })
    }

    fn required(&self, id: u16) -> Result<&'a [u8], FormatError> {
        self.payload.get(usize::from(id)).copied().flatten().ok_or(FormatError::Section { id })
    }

    fn get(&self, id: u16) -> &'a [u8] {
        self.payload.get(usize::from(id)).copied().flatten().unwrap_or(&[])
    }
}

fn golden_header(bytes: &[u8]) -> (u16, u16, &[u8]) {
    match bytes.split_first_chunk::<4>() {
        Some((&[a, b, c, d], rest)) => (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), rest),
        None => (0, 0, &[]),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => u16::from_le_bytes([a, b]),
        _ => 0,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}
