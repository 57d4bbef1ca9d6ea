//! Why a file was refused.

use core::fmt;

/// The reason for which [`crate::Artifact::parse`] refused a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// The buffer does not start at a multiple of 16 bytes. Use `dunlin_runtime::model!`, or copy the file into
    /// an aligned buffer.
    Misaligned,
    /// The file does not begin with the artifact's magic number.
    NotAnArtifact,
    /// The file has format version `found`; this reader knows versions up to [`crate::layout::VERSION`].
    Version {
        /// The version that the file states.
        found: u16,
    },
    /// The file needs features (bit mask) that this reader does not have.
    Features {
        /// The unknown feature bits.
        unknown: u32,
    },
    /// The file is shorter than it states.
    Truncated,
    /// A section lies outside the file, is misaligned, is missing or occurs twice.
    Section {
        /// The section's number.
        id: u16,
    },
    /// An entry of the tensor table is invalid.
    Tensor {
        /// The tensor's index.
        index: u16,
    },
    /// The program is not a sequence of well-formed instructions.
    Program {
        /// The offset of the faulty instruction in the program section, in bytes.
        offset: u32,
    },
    /// The list of inputs, outputs or state tensors is invalid.
    Interface,
    /// The manifest cannot be decoded.
    Manifest,
    /// The golden vectors are malformed.
    Golden,
    /// The baseline is malformed.
    Baseline {
        /// The index of the faulty feature; the number of features when their sizes do not add up.
        feature: u16,
    },
    /// A limit of [`crate::limits`] is exceeded.
    Limit,
    /// The digest in the header is not the digest of the file: it was damaged or changed.
    Digest,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned => f.write_str("the artifact's buffer is not aligned to 16 bytes"),
            Self::NotAnArtifact => f.write_str("not a Dunlin artifact (wrong magic number)"),
            Self::Version { found } => write!(f, "format version {found} is newer than this reader"),
            Self::Features { unknown } => write!(f, "unknown required features {unknown:#x}"),
            Self::Truncated => f.write_str("the file is truncated"),
            Self::Section { id } => write!(f, "section {id} is missing, doubled or out of bounds"),
            Self::Tensor { index } => write!(f, "entry {index} of the tensor table is invalid"),
            Self::Program { offset } => write!(f, "malformed instruction at byte {offset} of the program"),
            Self::Interface => f.write_str("the list of inputs, outputs or states is invalid"),
            Self::Manifest => f.write_str("the manifest cannot be decoded"),
            Self::Baseline { feature } => write!(f, "feature {feature} of the baseline is malformed"),
            Self::Golden => f.write_str("the golden vectors are malformed"),
            Self::Limit => f.write_str("a limit of the format is exceeded"),
            Self::Digest => f.write_str("the digest does not match: the file was damaged or changed"),
        }
    }
}

impl core::error::Error for FormatError {}
