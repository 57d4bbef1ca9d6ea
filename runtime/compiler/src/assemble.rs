//! From a program to a file: addresses, constants, golden vectors.

use std::collections::HashMap;
use std::rc::Rc;

use dunlin_artifact::writer::Contents;
use dunlin_artifact::{Artifact, Golden, GoldenInput, Manifest, Pattern, Place, Tensor, TensorId, limits};
use dunlin_runtime::{RunError, Session};

use crate::CompileError;
use crate::plan::{self, ALIGNMENT, Block};
use crate::program::{Program, ProgramTensor, Storage};

/// Seed of the first golden vector.
const GOLDEN_SEED: u32 = 12_345;
/// Runs per golden vector of a model with state.
const GOLDEN_STEPS: u16 = 4;

/// What a model may ask for at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of arena.
    pub arena: usize,
    /// Work of one run (see [`Artifact::work`]).
    pub work: u64,
}

impl Default for Bounds {
    /// 256 MiB and 2^42: far beyond any model of this field, yet bounded for hostile files.
    fn default() -> Self {
        Bounds { arena: 256 << 20, work: 1 << 42 }
    }
}

/// The program laid out.
pub(crate) struct Placed {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) data: Vec<u8>,
    pub(crate) arena_len: usize,
    pub(crate) state_len: usize,
    /// The smallest arena that any layout of this program could have.
    pub(crate) arena_bound: usize,
    /// For every temporary tensor that owns memory: first and last step.
    pub(crate) lifetimes: HashMap<TensorId, (usize, usize)>,
}

/// Gives every tensor its address. Merges in-place steps first.
pub(crate) fn place(program: &mut Program) -> Placed {
    merge_in_place(program);
    let lifetimes = lifetimes(program);
    let mut offsets: HashMap<TensorId, usize> = HashMap::new();
    let mut state_len = 0;
    for (id, tensor) in program.tensors.iter().enumerate() {
        if let Storage::State(_) = tensor.storage {
            offsets.insert(id as TensorId, state_len);
            state_len = (state_len + tensor.bytes()).next_multiple_of(ALIGNMENT);
        }
    }
    let mut owners: Vec<TensorId> = lifetimes.keys().copied().collect();
    owners.sort_unstable();
    let blocks: Vec<Block> = owners
        .iter()
        .map(|id| {
            let (first, last) = lifetimes[id];
            Block { size: program.tensors[usize::from(*id)].bytes(), first, last }
        })
        .collect();
    let layout = plan::layout(&blocks);
    for (id, offset) in owners.iter().zip(&layout.offsets) {
        offsets.insert(*id, state_len + offset);
    }

    let mut data = ConstantPool::default();
    let tensors = (0..program.tensors.len() as TensorId)
        .map(|id| {
            let tensor = &program.tensors[usize::from(id)];
            let (root, inside) = program.root(id);
            let place = match &program.tensors[usize::from(root)].storage {
                Storage::Constant(bytes) => Place::Data((data.add(bytes) + inside) as u32),
                // A tensor that no step touches has no lifetime and needs no memory of its own.
                _ => Place::Arena((offsets.get(&root).copied().unwrap_or(0) + inside) as u32),
            };
            let shape: Vec<u32> = tensor.shape.iter().map(|&dim| dim as u32).collect();
            Tensor::new(tensor.dtype, &shape, place, tensor.quant.0, tensor.quant.1)
                .expect("ranks were checked")
        })
        .collect();
    Placed {
        tensors,
        data: data.bytes,
        arena_len: state_len + layout.peak,
        state_len,
        arena_bound: state_len + layout.bound,
        lifetimes,
    }
}

/// Lets a step's output take over the memory of an input that nobody needs afterwards.
fn merge_in_place(program: &mut Program) {
    for index in 0..program.steps.len() {
        let Some((input, output)) = program.steps[index].in_place else { continue };
        let (root, offset) = program.root(input);
        let whole = |program: &Program, id: TensorId| program.tensors[usize::from(id)].bytes();
        let owns = |program: &Program, id: TensorId| {
            matches!(program.tensors[usize::from(id)].storage, Storage::Temporary)
        };
        let fits = whole(program, input) == whole(program, output) && owns(program, output);
        if !fits || !owns(program, root) || root == output || program.inputs.contains(&output) {
            continue;
        }
        // Another operand of the same step in that memory would be overwritten while it is read.
        let step = &program.steps[index];
        let shared = step.reads.iter().filter(|&&id| program.root(id).0 == root).count() > 1;
        let lifetimes = lifetimes(program);
        let dies = lifetimes.get(&root).is_some_and(|&(_, last)| last == index);
        let begins = lifetimes.get(&output).is_some_and(|&(first, _)| first == index);
        if dies && begins && !shared {
            program.tensors[usize::from(output)].storage = Storage::View { of: root, offset };
        }
    }
}

/// First and last step of every temporary tensor that owns memory.
fn lifetimes(program: &Program) -> HashMap<TensorId, (usize, usize)> {
    let mut lifetimes: HashMap<TensorId, (usize, usize)> = HashMap::new();
    let mut touch = |id: TensorId, step: usize| {
        let (root, _) = program.root(id);
        if let Storage::Temporary = program.tensors[usize::from(root)].storage {
            let (first, last) = lifetimes.entry(root).or_insert((step, step));
            *first = (*first).min(step);
            *last = (*last).max(step);
        }
    };
    program.inputs.iter().for_each(|&id| touch(id, 0));
    for (index, step) in program.steps.iter().enumerate() {
        step.reads.iter().chain(&step.writes).for_each(|&id| touch(id, index));
    }
    program.outputs.iter().for_each(|&id| touch(id, program.steps.len()));
    lifetimes
}

/// The data section: equal constants are stored once.
#[derive(Default)]
struct ConstantPool {
    bytes: Vec<u8>,
    known: HashMap<Rc<[u8]>, usize>,
}

impl ConstantPool {
    fn add(&mut self, constant: &Rc<[u8]>) -> usize {
        if let Some(&offset) = self.known.get(constant) {
            return offset;
        }
        // Long constants are aligned for vector loads, short ones only as far as any element type needs.
        let alignment = if constant.len() >= 64 { limits::ALIGNMENT } else { ALIGNMENT };
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(constant);
        self.known.insert(constant.clone(), offset);
        offset
    }
}

/// Writes the file. `golden` says how many golden vectors it carries.
pub(crate) fn assemble(
    program: &Program,
    placed: &Placed,
    manifest: Manifest<'_>,
    golden: usize,
    bounds: &Bounds,
) -> Result<Vec<u8>, CompileError> {
    if placed.arena_len > bounds.arena {
        return Err(CompileError::Model(format!(
            "the model needs an arena of {} bytes; the limit is {}",
            placed.arena_len, bounds.arena
        )));
    }
    let states = program.tensors.iter().enumerate().filter_map(|(id, tensor)| match &tensor.storage {
        Storage::State(initial) => Some((id as TensorId, tensor, initial)),
        _ => None,
    });
    let mut contents = Contents {
        manifest,
        tensors: placed.tensors.clone(),
        program: program.steps.iter().map(|step| (step.kernel, step.body.clone())).collect(),
        data: placed.data.clone(),
        inputs: program.inputs.clone(),
        outputs: program.outputs.clone(),
        states: Vec::new(),
        golden: Vec::new(),
        baseline: None,
        arena_len: placed.arena_len as u32,
        state_len: placed.state_len as u32,
        work: limits::MAX_WORK,
    };
    for (id, tensor, initial) in states {
        let from = initial_state(&mut contents, tensor, initial.as_ref());
        contents.states.push((id, from));
    }

    // The runtime itself computes what the file promises.
    let steps = if contents.states.is_empty() { 1 } else { GOLDEN_STEPS };
    let proves_something = program.outputs.iter().any(|&id| program.tensors[usize::from(id)].bytes() > 0);
    let golden = if proves_something { golden } else { 0 };
    let probe = AlignedBytes::new(&contents.write());
    let (work, outputs) = run_golden(probe.as_slice(), golden, steps, bounds.work)?;
    contents.work = work;
    contents.golden = (0..golden)
        .map(|index| Golden { input: GoldenInput::Pattern(pattern(index)), steps, outputs: &outputs[index] })
        .collect();
    let file = contents.write();
    Artifact::parse(AlignedBytes::new(&file).as_slice())
        .map_err(|error| CompileError::Internal(error.to_string()))?;
    Ok(file)
}

/// The constant that a state starts from, or the byte that fills it.
fn initial_state(
    contents: &mut Contents<'_>,
    tensor: &ProgramTensor,
    initial: Option<&Rc<[u8]>>,
) -> Result<TensorId, u8> {
    let Some(bytes) = initial else { return Err(0) };
    let first = bytes.first().copied().unwrap_or(0);
    if bytes.iter().all(|&byte| byte == first) {
        return Err(first);
    }
    contents.data.resize(contents.data.len().next_multiple_of(limits::ALIGNMENT), 0);
    let shape: Vec<u32> = tensor.shape.iter().map(|&dim| dim as u32).collect();
    let place = Place::Data(contents.data.len() as u32);
    contents.data.extend_from_slice(bytes);
    contents.tensors.push(Tensor::new(tensor.dtype, &shape, place, 0.0, 0).expect("ranks were checked"));
    Ok((contents.tensors.len() - 1) as TensorId)
}

/// The golden input with this index: seeded, zeros, seeded again, ….
fn pattern(index: usize) -> Pattern {
    match index {
        0 => Pattern::Lcg(GOLDEN_SEED),
        1 => Pattern::Zeros,
        _ => Pattern::Lcg(GOLDEN_SEED + index as u32 - 1),
    }
}

/// Runs the golden inputs; returns the work of one run and the outputs of each vector.
fn run_golden(
    file: &[u8],
    count: usize,
    steps: u16,
    max_work: u64,
) -> Result<(u64, Vec<Vec<u8>>), CompileError> {
    let internal = |error: &dyn std::fmt::Display| CompileError::Internal(error.to_string());
    let artifact = Artifact::parse(file).map_err(|error| internal(&error))?;
    let mut arena = AlignedBytes::zeroed(artifact.arena_len());
    let mut session: Session<'_, '_> =
        Session::new(artifact, arena.as_mut_slice()).map_err(|error| internal(&error))?;
    let work = session.measure_work(max_work).map_err(|error| match error {
        RunError::WorkExceeded => {
            CompileError::Model(format!("one run of the model is more work than the limit of {max_work}"))
        }
        error => internal(&error),
    })?;
    let mut outputs = Vec::new();
    for index in 0..count {
        let (mut pattern, mut bytes) = (pattern(index), Vec::new());
        session.reset();
        for _ in 0..steps {
            for (input, tensor) in artifact.inputs().enumerate() {
                let input = session.input_bytes_mut(input).map_err(|error| internal(&error))?;
                pattern.fill(tensor.dtype, input);
            }
            session.run().map_err(|error| internal(&error))?;
            for output in 0..artifact.outputs().len() {
                bytes.extend_from_slice(session.output_bytes(output).map_err(|error| internal(&error))?);
            }
        }
        outputs.push(bytes);
    }
    Ok((work, outputs))
}

/// Bytes at an address that artifacts and arenas may have.
#[derive(Clone, Debug)]
pub struct AlignedBytes {
    words: Vec<u128>,
    len: usize,
}

impl AlignedBytes {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeroed(bytes.len());
        aligned.as_mut_slice().copy_from_slice(bytes);
        aligned
    }

    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        AlignedBytes { words: vec![0; len.div_ceil(size_of::<u128>())], len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    /// The bytes, mutably.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}
