//! A model ready to run.

use dunlin_artifact::{Artifact, DType, Instruction, Place, Tensor, limits};

use crate::context::{Context, Plain, cast, cast_mut};
use crate::{RunError, dispatch};

/// All kernels of this version: for programs that run artifacts which are not known when they are built.
pub const ALL_KERNELS: u128 = dispatch::LINKABLE;

/// A model ready to run in the caller's arena.
///
/// `KERNELS` is the set of kernels to link ([`dunlin_artifact::Kernel::bit`]); [`crate::model!`] sets it to
/// what the model needs. State lives in the arena, so it survives from run to run and ends with the session.
#[derive(Debug)]
pub struct Session<'m, 'a, const KERNELS: u128 = ALL_KERNELS> {
    artifact: Artifact<'m>,
    arena: &'a mut [u8],
}

/// One finished instruction, for an observer of [`Session::run_observed`].
#[derive(Clone, Copy, Debug)]
pub struct Step<'m> {
    /// Its position in the program.
    pub index: usize,
    /// The instruction.
    pub instruction: Instruction<'m>,
}

impl<'m, 'a, const KERNELS: u128> Session<'m, 'a, KERNELS> {
    /// Prepares a session and resets its state. The arena needs [`Artifact::arena_len`] bytes, aligned to 16.
    ///
    /// # Errors
    /// When the arena does not fit, or the model needs a kernel that is not in `KERNELS`.
    pub fn new(artifact: Artifact<'m>, arena: &'a mut [u8]) -> Result<Self, RunError> {
        let missing = artifact.kernels() & !(KERNELS & ALL_KERNELS);
        if missing != 0 {
            return Err(RunError::MissingKernel(missing.trailing_zeros() as u8));
        }
        let (needed, given) = (artifact.arena_len(), arena.len());
        let arena = arena.get_mut(..needed).ok_or(RunError::ArenaTooSmall { needed, given })?;
        if needed > 0 && !arena.as_ptr().addr().is_multiple_of(limits::ALIGNMENT) {
            return Err(RunError::ArenaMisaligned);
        }
        let mut session = Session { artifact, arena };
        session.reset();
        Ok(session)
    }

    /// The artifact that this session runs.
    pub fn artifact(&self) -> Artifact<'m> {
        self.artifact
    }

    /// Puts the state back to its beginning. Models without state are not affected.
    pub fn reset(&mut self) {
        for state in self.artifact.states() {
            let Some(bytes) = arena_bytes_mut(self.arena, &state.tensor) else { continue };
            match state.from {
                // Both have one length, as `parse` has checked; the compiler knows it from the shorter loop.
                Ok(initial) => {
                    bytes.iter_mut().zip(self.artifact.constant(&initial)).for_each(|(to, from)| *to = *from);
                }
                Err(fill) => bytes.fill(fill),
            }
        }
    }

    /// Runs the model once. The outputs hold until the next run or until an input is written; the inputs must be
    /// written before every run, for their memory is reused.
    pub fn run(&mut self) -> Result<(), RunError> {
        let mut cx = self.context();
        for instruction in cx.artifact.program() {
            dispatch::run::<KERNELS>(&mut cx, instruction)?;
        }
        Ok(())
    }

    /// Like [`Session::run`], and calls `observe` after every instruction.
    pub fn run_observed(&mut self, mut observe: impl FnMut(Step<'m>)) -> Result<(), RunError> {
        let mut cx = self.context();
        for (index, instruction) in cx.artifact.program().enumerate() {
            dispatch::run::<KERNELS>(&mut cx, instruction)?;
            observe(Step { index, instruction });
        }
        Ok(())
    }

    /// Runs the model once and returns the work done, bounded by `limit` instead of the artifact's own statement.
    /// The compiler finds the number that it writes into the file this way.
    pub fn measure_work(&mut self, limit: u64) -> Result<u64, RunError> {
        let mut cx = self.context();
        cx.budget = limit;
        for instruction in cx.artifact.program() {
            dispatch::run::<KERNELS>(&mut cx, instruction)?;
        }
        Ok(limit - cx.budget)
    }

    /// The elements of an input, to be written.
    pub fn input_mut<T: Element>(&mut self, index: usize) -> Result<&mut [T], RunError> {
        let tensor = self.artifact.inputs().nth(index).ok_or(RunError::NoSuchTensor(index))?;
        T::check(&tensor)?;
        cast_mut(self.bytes_mut(&tensor, index)?)
    }

    /// The elements of an output.
    pub fn output<T: Element>(&self, index: usize) -> Result<&[T], RunError> {
        let tensor = self.artifact.outputs().nth(index).ok_or(RunError::NoSuchTensor(index))?;
        T::check(&tensor)?;
        cast(self.bytes(&tensor, index)?)
    }

    /// The bytes of an input of any type.
    pub fn input_bytes_mut(&mut self, index: usize) -> Result<&mut [u8], RunError> {
        let tensor = self.artifact.inputs().nth(index).ok_or(RunError::NoSuchTensor(index))?;
        self.bytes_mut(&tensor, index)
    }

    /// The bytes of an output of any type.
    pub fn output_bytes(&self, index: usize) -> Result<&[u8], RunError> {
        let tensor = self.artifact.outputs().nth(index).ok_or(RunError::NoSuchTensor(index))?;
        self.bytes(&tensor, index)
    }

    fn context(&mut self) -> Context<'m, '_> {
        Context { artifact: self.artifact, arena: self.arena, budget: self.artifact.work() }
    }

    fn bytes(&self, tensor: &Tensor, index: usize) -> Result<&[u8], RunError> {
        let Place::Arena(offset) = tensor.place else { return Err(RunError::NoSuchTensor(index)) };
        let end = (offset as usize).saturating_add(tensor.bytes());
        self.arena.get(offset as usize..end).ok_or(RunError::NoSuchTensor(index))
    }

    fn bytes_mut(&mut self, tensor: &Tensor, index: usize) -> Result<&mut [u8], RunError> {
        arena_bytes_mut(self.arena, tensor).ok_or(RunError::NoSuchTensor(index))
    }
}

fn arena_bytes_mut<'s>(arena: &'s mut [u8], tensor: &Tensor) -> Option<&'s mut [u8]> {
    let Place::Arena(offset) = tensor.place else { return None };
    arena.get_mut(offset as usize..(offset as usize).saturating_add(tensor.bytes()))
}

/// Element types of inputs and outputs.
pub trait Element: Plain {
    /// The type's name in the artifact.
    const DTYPE: DType;

    /// Refuses a tensor of another type.
    #[doc(hidden)]
    fn check(tensor: &Tensor) -> Result<(), RunError> {
        let actual = tensor.dtype;
        if actual == Self::DTYPE { Ok(()) } else { Err(RunError::WrongType { actual, asked: Self::DTYPE }) }
    }
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),+) => {
        $(impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
        })+
    };
}

elements!(i8 => I8, u8 => U8, i16 => I16, i32 => I32, i64 => I64, f32 => F32, u32 => U32, u64 => U64);
