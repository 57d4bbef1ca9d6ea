//! Element types.

use core::fmt;

/// The type of a tensor's elements. All are stored little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DType {
    /// 8-bit signed integer, usually quantized.
    I8 = 0,
    /// 8-bit unsigned integer, quantized in models of the older kind.
    U8 = 1,
    /// 16-bit signed integer.
    I16 = 2,
    /// 32-bit signed integer.
    I32 = 3,
    /// 64-bit signed integer.
    I64 = 4,
    /// IEEE single precision.
    F32 = 5,
    /// IEEE half precision; constants only.
    F16 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// 32-bit unsigned integer.
    U32 = 8,
    /// 64-bit unsigned integer.
    U64 = 9,
}

impl DType {
    /// All types, in the order of their numbers.
    pub const ALL: [DType; 10] = [
        DType::I8,
        DType::U8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::F32,
        DType::F16,
        DType::Bool,
        DType::U32,
        DType::U64,
    ];

    /// The type with this number in the file.
    pub const fn from_code(code: u8) -> Option<Self> {
        if (code as usize) < Self::ALL.len() { Some(Self::ALL[code as usize]) } else { None }
    }

    /// Bytes per element; also the alignment.
    pub const fn size(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::I16 | DType::F16 => 2,
            DType::I32 | DType::F32 | DType::U32 => 4,
            DType::I64 | DType::U64 => 8,
        }
    }

    /// NumPy's name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            DType::I8 => "int8",
            DType::U8 => "uint8",
            DType::I16 => "int16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::Bool => "bool",
            DType::U32 => "uint32",
            DType::U64 => "uint64",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
