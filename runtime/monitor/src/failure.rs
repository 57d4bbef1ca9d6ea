//! Why an inference failed.

/// Why an inference gave no result. The numbers are part of the protocol and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Failure {
    /// Anything else, and kinds that a newer device knows and this version does not.
    Other = 0,
    /// The input was missing, malformed or out of the range that the application accepts.
    Input = 1,
    /// The engine refused the run: a kernel's parameters, or more work than the artifact declares.
    Run = 2,
    /// The result came too late to be used.
    Deadline = 3,
    /// The output was refused by the application: not a number, implausible.
    Output = 4,
    /// There was not enough memory.
    Memory = 5,
    /// An accelerator or another device that the run needs did not answer.
    Hardware = 6,
}

impl Failure {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Failure; 7] = [
        Failure::Other,
        Failure::Input,
        Failure::Run,
        Failure::Deadline,
        Failure::Output,
        Failure::Memory,
        Failure::Hardware,
    ];

    /// The kind's number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this number; [`Failure::Other`] for a number that this version does not know.
    pub const fn from_code(code: u8) -> Self {
        if (code as usize) < Self::ALL.len() { Self::ALL[code as usize] } else { Failure::Other }
    }

    /// The name used in tables and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Failure::Other => "other",
            Failure::Input => "input",
            Failure::Run => "run",
            Failure::Deadline => "deadline",
            Failure::Output => "output",
            Failure::Memory => "memory",
            Failure::Hardware => "hardware",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_match() {
        for (number, kind) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.code()), number);
            assert_eq!(Failure::from_code(kind.code()), kind);
        }
        assert_eq!(Failure::from_code(200), Failure::Other);
    }
}
