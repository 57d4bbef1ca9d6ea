//! The byte layout: offsets and numbers that the reader and the writer share. `FORMAT.md` tells the story.

/// First four bytes of every artifact.
pub const MAGIC: [u8; 4] = *b"DNLN";
/// The newest format version that this crate reads and the one it writes.
pub const VERSION: u16 = 1;
/// Feature bits that this crate understands.
pub const KNOWN_FEATURES: u32 = 0;

/// Field offsets in the header, in bytes.
pub mod header {
    /// `[u8; 4]`, [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// `u16`.
    pub const VERSION: usize = 4;
    /// `u16`, number of sections.
    pub const SECTIONS: usize = 6;
    /// `u32`, features without which the file cannot be understood.
    pub const FEATURES: usize = 8;
    /// `u32`, length of the file in bytes.
    pub const FILE_LEN: usize = 12;
    /// `u128`, one bit for every kernel that the program uses.
    pub const KERNELS: usize = 16;
    /// `u32`, bytes of arena that the program needs.
    pub const ARENA_LEN: usize = 32;
    /// `u32`, bytes at the start of the arena that hold state between runs.
    pub const STATE_LEN: usize = 36;
    /// `u64`, work of one run.
    pub const WORK: usize = 40;
    /// `[u8; 32]`, SHA-256 of the file with these 32 bytes set to zero.
    pub const DIGEST: usize = 48;
    /// Length of the header.
    pub const SIZE: usize = 80;
}

/// Numbers of the sections. Unknown ones are skipped.
pub mod section {
    /// Postcard-coded [`crate::Manifest`].
    pub const MANIFEST: u16 = 1;
    /// Tensor table.
    pub const TENSORS: u16 = 2;
    /// Instructions.
    pub const PROGRAM: u16 = 3;
    /// Constants, aligned.
    pub const DATA: u16 = 4;
    /// Inputs, outputs and states.
    pub const INTERFACE: u16 = 5;
    /// Golden vectors.
    pub const GOLDEN: u16 = 6;
    /// Monitored features and what the calibration data counted to.
    pub const BASELINE: u16 = 7;

    /// Bytes of one entry of the section table: `u16` number, `u16` reserved, `u32` offset, `u32` length.
    pub const ENTRY: usize = 12;
    /// How many numbers this reader knows, plus one.
    pub const KNOWN: usize = 8;
}

/// Field offsets in a record of the tensor table.
pub mod tensor {
    /// `u8`, see [`crate::DType`].
    pub const DTYPE: usize = 0;
    /// `u8`.
    pub const RANK: usize = 1;
    /// `u8`, [`PLACE_ARENA`] or [`PLACE_DATA`].
    pub const PLACE: usize = 2;
    /// `u32`, byte offset in the arena or in the data section.
    pub const OFFSET: usize = 4;
    /// `[u32; 6]`.
    pub const DIMS: usize = 8;
    /// `f32`.
    pub const SCALE: usize = 32;
    /// `i32`.
    pub const ZERO_POINT: usize = 36;
    /// Length of a record.
    pub const SIZE: usize = 40;

    /// The tensor lives in the arena.
    pub const PLACE_ARENA: u8 = 0;
    /// The tensor is a constant.
    pub const PLACE_DATA: u8 = 1;
}
