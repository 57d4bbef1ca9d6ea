//! What an operator sees while it runs: tensors by index, the arena as disjoint slices, the work budget.

use bytemuck::{AnyBitPattern, NoUninit};
use dunlin_artifact::{Artifact, Place, Tensor, TensorId};
use serde::Deserialize;

use crate::RunError;

/// The state of one run, handed from instruction to instruction.
pub(crate) struct Context<'m, 'a> {
    pub(crate) artifact: Artifact<'m>,
    pub(crate) arena: &'a mut [u8],
    /// Work that may still be done (see [`Artifact::work`]).
    pub(crate) budget: u64,
}

/// A plain element type: any bit pattern is a value.
#[allow(unreachable_pub)] // sealed: public in a private module
pub trait Plain: AnyBitPattern + NoUninit {}
impl<T: AnyBitPattern + NoUninit> Plain for T {}

/// Slices of `W` written and `R` read tensors.
pub(crate) type Borrowed<'s, const W: usize, const R: usize> = ([&'s mut [u8]; W], [&'s [u8]; R]);

/// Decodes an instruction's body.
pub(crate) fn decode<'b, P: Deserialize<'b>>(body: &'b [u8]) -> Result<P, RunError> {
    postcard::from_bytes(body).map_err(|_| RunError::BadInstruction)
}

/// Sees bytes as elements. Fails when the length is not a multiple of the element size.
pub(crate) fn cast<T: Plain>(bytes: &[u8]) -> Result<&[T], RunError> {
    bytemuck::try_cast_slice(bytes).map_err(|_| RunError::BadInstruction)
}

/// Sees bytes as elements, mutably.
pub(crate) fn cast_mut<T: Plain>(bytes: &mut [u8]) -> Result<&mut [T], RunError> {
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| RunError::BadInstruction)
}

impl<'m> Context<'m, '_> {
    /// The tensor with this index.
    pub(crate) fn tensor(&self, id: TensorId) -> Result<Tensor, RunError> {
        self.artifact.tensor(id).ok_or(RunError::BadTensor(id))
    }

    /// A constant's elements. They live as long as the artifact, so they do not borrow the arena.
    pub(crate) fn constant<T: Plain>(&self, id: TensorId) -> Result<&'m [T], RunError> {
        let tensor = self.tensor(id)?;
        match tensor.place {
            Place::Data(_) => cast(self.artifact.constant(&tensor)),
            Place::Arena(_) => Err(RunError::BadTensor(id)),
        }
    }

    /// Takes `work` from the budget.
    pub(crate) fn charge(&mut self, work: u64) -> Result<(), RunError> {
        self.budget = self.budget.checked_sub(work).ok_or(RunError::WorkExceeded)?;
        Ok(())
    }

    /// Borrows tensors: `writes` mutably (all in the arena, pairwise disjoint), `reads` shared (in the arena and
    /// disjoint from every write, or constant; reads may overlap each other). Charges their sizes as work.
    pub(crate) fn borrow<const W: usize, const R: usize>(
        &mut self,
        writes: [TensorId; W],
        reads: [TensorId; R],
    ) -> Result<Borrowed<'_, W, R>, RunError> {
        let mut write_tensors = [Tensor::default(); W];
        let mut read_tensors = [Tensor::default(); R];
        self.resolve(&writes, &mut write_tensors)?;
        self.resolve(&reads, &mut read_tensors)?;
        let mut write_slices: [&mut [u8]; W] = core::array::from_fn(|_| Default::default());
        let mut read_slices: [&[u8]; R] = [&[]; R];
        let artifact = self.artifact;
        carve(artifact, self.arena, &write_tensors, &read_tensors, &mut write_slices, &mut read_slices)?;
        Ok((write_slices, read_slices))
    }

    fn resolve(&mut self, ids: &[TensorId], tensors: &mut [Tensor]) -> Result<(), RunError> {
        for (&id, tensor) in ids.iter().zip(tensors) {
            *tensor = self.tensor(id)?;
            self.charge(tensor.bytes() as u64)?;
        }
        Ok(())
    }

    /// Whether two tensors occupy the very same bytes.
    pub(crate) fn same_place(&self, a: TensorId, b: TensorId) -> Result<bool, RunError> {
        let (a, b) = (self.tensor(a)?, self.tensor(b)?);
        Ok(a.place == b.place && a.bytes() == b.bytes())
    }

    /// Prepares an element-wise operator that works in place: copies `input` to `output` unless both are the
    /// same bytes already. Afterwards the operator needs `output` only.
    pub(crate) fn bring_in_place(&mut self, input: TensorId, output: TensorId) -> Result<(), RunError> {
        if self.same_place(input, output)? {
            return Ok(());
        }
        let ([output_bytes], [input_bytes]) = self.borrow([output], [input])?;
        if output_bytes.len() != input_bytes.len() {
            return Err(RunError::BadTensor(output));
        }
        output_bytes.copy_from_slice(input_bytes);
        Ok(())
    }
}

/// Cuts the arena into the written slices and what lies between them, and finds every read in the latter.
///
/// Not generic over the number of operands, so that it is linked once.
fn carve<'s>(
    artifact: Artifact<'s>,
    arena: &'s mut [u8],
    writes: &[Tensor],
    reads: &[Tensor],
    write_slices: &mut [&'s mut [u8]],
    read_slices: &mut [&'s [u8]],
) -> Result<(), RunError> {
    for (tensor, slice) in reads.iter().zip(read_slices.iter_mut()) {
        if let Place::Data(_) = tensor.place {
            *slice = artifact.constant(tensor);
        }
    }
    // Cut from the front: each turn takes the write with the lowest offset among those that are left. A write
    // that overlaps an earlier one is never taken, and found missing below.
    let mut rest = arena;
    let mut base = 0usize;
    for _ in 0..=writes.len() {
        let pending = writes.iter().zip(write_slices.iter_mut()).filter(|(tensor, slice)| {
            slice.is_empty() && tensor.bytes() > 0 && arena_start(tensor).is_some_and(|start| start >= base)
        });
        let next = pending.min_by_key(|(tensor, _)| arena_start(tensor));
        let (gap_len, write_len) = match &next {
            Some((tensor, _)) => (arena_start(tensor).unwrap_or(base) - base, tensor.bytes()),
            None => (rest.len(), 0),
        };
        let (gap, tail) = rest.split_at_mut_checked(gap_len).ok_or(RunError::Overlap)?;
        let gap: &'s [u8] = gap;
        for (tensor, slice) in reads.iter().zip(read_slices.iter_mut()) {
            let start = arena_start(tensor).and_then(|start| start.checked_sub(base));
            let inside = start.and_then(|at| gap.get(at..at.checked_add(tensor.bytes())?));
            if let Some(bytes) = inside {
                *slice = bytes;
            }
        }
        let (cut, tail) = tail.split_at_mut_checked(write_len).ok_or(RunError::Overlap)?;
        if let Some((_, slice)) = next {
            *slice = cut;
        }
        rest = tail;
        base += gap_len + write_len;
    }
    let complete = |len: usize, tensor: &Tensor| len == tensor.bytes();
    let writes_ok = write_slices.iter().zip(writes).all(|(slice, tensor)| complete(slice.len(), tensor));
    let reads_ok = read_slices.iter().zip(reads).all(|(slice, tensor)| complete(slice.len(), tensor));
    if writes_ok && reads_ok { Ok(()) } else { Err(RunError::Overlap) }
}

fn arena_start(tensor: &Tensor) -> Option<usize> {
    match tensor.place {
        Place::Arena(offset) => Some(offset as usize),
        Place::Data(_) => None,
    }
}
