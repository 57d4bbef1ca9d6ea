//! Entries of the tensor table.

use crate::DType;
use crate::layout::tensor as field;

/// Index of a tensor in the tensor table.
pub type TensorId = u16;

/// Most axes of a tensor.
pub const MAX_RANK: usize = 6;

impl Default for Tensor {
    /// A constant without elements.
    fn default() -> Self {
        Tensor::EMPTY
    }
}

/// Where a tensor's bytes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the arena, at this byte offset.
    Arena(u32),
    /// A constant in the data section, at this byte offset.
    Data(u32),
}

/// One entry of the tensor table, decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Where the bytes live.
    pub place: Place,
    /// `real = scale * (stored - zero_point)`; scale 0 means "not quantized".
    pub scale: f32,
    /// The stored value that means 0.
    pub zero_point: i32,
    rank: u8,
    dims: [u32; MAX_RANK],
}

impl Tensor {
    /// A constant without elements.
    pub(crate) const EMPTY: Tensor = Tensor {
        dtype: DType::I8,
        place: Place::Data(0),
        scale: 0.0,
        zero_point: 0,
        rank: 1,
        dims: [0, 1, 1, 1, 1, 1],
    };

    /// Makes a tensor. Returns `None` for more than [`MAX_RANK`] axes.
    pub fn new(dtype: DType, shape: &[u32], place: Place, scale: f32, zero_point: i32) -> Option<Self> {
        let mut dims = [1; MAX_RANK];
        dims.get_mut(..shape.len())?.copy_from_slice(shape);
        Some(Tensor { dtype, place, scale, zero_point, rank: shape.len() as u8, dims })
    }

    /// The shape; empty for a scalar.
    pub fn shape(&self) -> &[u32] {
        self.dims.get(..usize::from(self.rank)).unwrap_or(&[])
    }

    /// The shape padded at the end with ones to [`MAX_RANK`] axes.
    pub fn padded_shape(&self) -> [u32; MAX_RANK] {
        self.dims
    }

    /// Number of elements. Cannot overflow for a tensor of a parsed artifact.
    pub fn elements(&self) -> usize {
        self.dims.iter().fold(1usize, |n, &d| n.wrapping_mul(d as usize))
    }

    /// Size in bytes. Cannot overflow for a tensor of a parsed artifact.
    pub fn bytes(&self) -> usize {
        self.elements().wrapping_mul(self.dtype.size())
    }

    /// Decodes one record of the table. `None` when the type, rank or place is unknown, the size overflows,
    /// or the offset is not a multiple of the element size.
    pub(crate) fn decode(record: &[u8; field::SIZE]) -> Option<Self> {
        let word = |at: usize| -> u32 {
            match record.get(at..at + 4) {
                Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
                _ => 0,
            }
        };
        let dtype = DType::from_code(record[field::DTYPE])?;
        let rank = record[field::RANK];
        let offset = word(field::OFFSET);
        let place = match record[field::PLACE] {
            field::PLACE_ARENA => Place::Arena(offset),
            field::PLACE_DATA => Place::Data(offset),
            _ => return None,
        };
        let mut dims = [1u32; MAX_RANK];
        let mut bytes = dtype.size() as u64;
        for (axis, dim) in dims.iter_mut().enumerate().take(usize::from(rank)) {
            *dim = word(field::DIMS + 4 * axis);
            bytes = bytes.checked_mul(u64::from(*dim))?;
        }
        let aligned = (offset as usize).is_multiple_of(dtype.size());
        if usize::from(rank) > MAX_RANK || bytes > u64::from(u32::MAX) || !aligned {
            return None;
        }
        let scale = f32::from_bits(word(field::SCALE));
        Some(Tensor { dtype, place, scale, zero_point: word(field::ZERO_POINT) as i32, rank, dims })
    }

    /// The record of the table for this tensor.
    #[cfg(feature = "std")]
    pub(crate) fn encode(&self) -> [u8; field::SIZE] {
        let mut record = [0; field::SIZE];
        record[field::DTYPE] = self.dtype as u8;
        record[field::RANK] = self.rank;
        let (place, offset) = match self.place {
            Place::Arena(offset) => (field::PLACE_ARENA, offset),
            Place::Data(offset) => (field::PLACE_DATA, offset),
        };
        record[field::PLACE] = place;
        let mut put = |at: usize, word: u32| record[at..at + 4].copy_from_slice(&word.to_le_bytes());
        put(field::OFFSET, offset);
        for (axis, &dim) in self.dims.iter().enumerate() {
            put(field::DIMS + 4 * axis, dim);
        }
        put(field::SCALE, self.scale.to_bits());
        put(field::ZERO_POINT, self.zero_point as u32);
        record
    }
}
