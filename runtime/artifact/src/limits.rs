//! Every limit of the format in one place. A file beyond a limit is refused, never truncated.

/// Alignment of the file's first byte, of the data section and of the arena, in bytes.
pub const ALIGNMENT: usize = 16;
/// Most sections in one file.
pub const MAX_SECTIONS: usize = 64;
/// Most tensors in one file.
pub const MAX_TENSORS: usize = 16_384;
/// Most inputs, and most outputs, of one model.
pub const MAX_IO: usize = 1_024;
/// Most state tensors of one model.
pub const MAX_STATES: usize = 1_024;
/// Most monitored features of one model.
pub const MAX_FEATURES: usize = 128;
/// Most counters that all features of one model have together.
pub const MAX_COUNTERS: usize = 16_384;
/// Most edges of one numeric feature.
pub const MAX_EDGES: usize = 63;
/// Longest name of a feature, in bytes.
pub const MAX_FEATURE_NAME: usize = 128;
/// Most elements that a monitor has to look at in one run, over all features. Together with a limit of 65,535 runs
/// for one window it keeps every 32-bit counter exact.
pub const MAX_OBSERVED: u64 = 65_536;
/// Largest arena, in bytes (2 GiB).
pub const MAX_ARENA: u32 = 1 << 31;
/// Largest amount of work that a program may declare for one run (see [`crate::Artifact::work`]).
pub const MAX_WORK: u64 = 1 << 44;
