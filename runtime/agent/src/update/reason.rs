//! Why a model was not kept.

use core::fmt;

/// Why a model that was assigned does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// More bytes came than the release states, or other ones than its digest says.
    Digest,
    /// The bytes are no artifact that this program understands.
    Format,
    /// The model needs kernels that this program does not have.
    Kernels,
    /// The model needs more memory than there is.
    Memory,
    /// The artifact does not fit into a bank.
    TooLarge,
    /// A golden vector came out wrong on this device.
    Golden,
    /// The model could not be started.
    Start,
    /// Too many inferences failed while it was on trial.
    Failures,
    /// The device started too often without the trial coming to an end.
    Restarts,
    /// A reason that a newer program has stored.
    Other(u8),
}

impl Reason {
    /// The number that is stored.
    pub const fn number(self) -> u8 {
        match self {
            Self::Digest => 1,
            Self::Format => 2,
            Self::Kernels => 3,
            Self::Memory => 4,
            Self::TooLarge => 5,
            Self::Golden => 6,
            Self::Start => 7,
            Self::Failures => 8,
            Self::Restarts => 9,
            Self::Other(number) => number,
        }
    }

    /// The reason with this number; every number has one.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Digest,
            2 => Self::Format,
            3 => Self::Kernels,
            4 => Self::Memory,
            5 => Self::TooLarge,
            6 => Self::Golden,
            7 => Self::Start,
            8 => Self::Failures,
            9 => Self::Restarts,
            number => Self::Other(number),
        }
    }

    /// For people, as it stands in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "the bytes are not those that were released",
            Self::Format => "not an artifact that this device understands",
            Self::Kernels => "needs kernels that this device does not have",
            Self::Memory => "needs more memory than this device has",
            Self::TooLarge => "too large for this device's storage",
            Self::Golden => "a golden vector came out wrong on this device",
            Self::Start => "could not be started",
            Self::Failures => "too many inferences failed on trial",
            Self::Restarts => "the device restarted too often on trial",
            Self::Other(_) => "refused",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
