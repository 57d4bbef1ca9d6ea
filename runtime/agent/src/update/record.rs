//! What a slot must not forget.
//!
//! ```text
//! version u8 = 1 | current u8 | spare u8 | candidate u8 | refusal u8       (1: there, 0: not)
//! current:   bank u8 | model
//! spare:     model
//! candidate: model | generation u64 | wrong u8 | stage u8 | stored u32 | boots u8 | windows u16 | failures u16 | boots u8
//! refusal:   model | generation u64 | reason u8
//! model:     digest [u8; 32] | size u32 | version u32
//! ```
//! Integers are little-endian; what is not there is zeros, so that all records have the same length. Whoever stores
//! them adds a checksum.

use core::fmt;

use super::Reason;

const VERSION: u8 = 1;
const MODEL: usize = 32 + 4 + 4;

/// Bytes of a stored record.
pub const RECORD_BYTES: usize =
    5 + (1 + MODEL) + MODEL + (MODEL + 8 + 1 + 1 + 4 + 1 + 2 + 2 + 1) + (MODEL + 8 + 1);

/// One of the two places of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bank {
    /// The first.
    #[default]
    A,
    /// The second.
    B,
}

impl Bank {
    /// The other place.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A version of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// SHA-256 that stands in the artifact's header.
    pub digest: [u8; 32],
    /// Length of the artifact in bytes.
    pub size: u32,
    /// The version, for people.
    pub version: u32,
}

/// When a model on trial is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// After so many good windows. With 0 the first window decides, even one without inferences.
    pub windows: u16,
    /// A window is good when at most so many of 1,000 inferences in it failed.
    pub failures_permille: u16,
    /// So many starts of the device may pass before the trial ends.
    pub boots: u8,
}

impl Default for Trial {
    fn default() -> Self {
        Self { windows: 3, failures_permille: 0, boots: 3 }
    }
}

/// How far a candidate has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// So many of its bytes are in the bank for sure.
    Fetching {
        /// Bytes.
        stored: u32,
    },
    /// It is verified and proven, and runs on trial.
    Trial {
        /// So many starts of the device have passed, the present one included.
        boots: u8,
    },
}

/// A model on its way into the slot. Its bank is the one that the current model does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it is.
    pub model: Model,
    /// The generation of the assignment that named it.
    pub generation: u64,
    /// So many times other bytes came than its digest says.
    pub wrong: u8,
    /// How far it has come.
    pub stage: Stage,
    /// When it is kept.
    pub trial: Trial,
}

/// A model that was tried and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub model: Model,
    /// Not tried again for this assignment, only for a later one.
    pub generation: u64,
    /// Why.
    pub reason: Reason,
}

/// All that a slot must not forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The model that is to run, and its bank.
    pub current: Option<(Bank, Model)>,
    /// The model before the current one, as long as it is still whole in the other bank: nothing has to be fetched to
    /// go back to it.
    pub spare: Option<Model>,
    /// The one that may take its place.
    pub candidate: Option<Candidate>,
    /// The one that was refused last.
    pub refusal: Option<Refusal>,
}

/// The bytes are no record: the storage is damaged, or a newer program wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError;

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the slot remembered cannot be read")
    }
}

impl core::error::Error for RecordError {}

impl Record {
    /// The bank of a candidate: the one that the current model does not have.
    pub fn candidate_bank(&self) -> Bank {
        self.current.map_or(Bank::A, |(bank, _)| bank.other())
    }

    /// As bytes, for storage.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let mut writer = Writer { out: &mut bytes };
        writer.put(&[
            VERSION,
            u8::from(self.current.is_some()),
            u8::from(self.spare.is_some()),
            u8::from(self.candidate.is_some()),
            u8::from(self.refusal.is_some()),
        ]);
        let (bank, model) = self.current.unwrap_or_default();
        writer.put(&[u8::from(bank == Bank::B)]);
        writer.model(&model);
        writer.model(&self.spare.unwrap_or_default());
        let nothing = Candidate {
            model: Model::default(),
            generation: 0,
            wrong: 0,
            stage: Stage::Fetching { stored: 0 },
            trial: Trial { windows: 0, failures_permille: 0, boots: 0 },
        };
        let Candidate { model, generation, wrong, stage, trial } = self.candidate.unwrap_or(nothing);
        let (stage, stored, boots) = match stage {
            Stage::Fetching { stored } => (0, stored, 0),
            Stage::Trial { boots } => (1, 0, boots),
        };
        writer.model(&model);
        writer.put(&generation.to_le_bytes());
        writer.put(&[wrong, stage]);
        writer.put(&stored.to_le_bytes());
        writer.put(&[boots]);
        writer.put(&trial.windows.to_le_bytes());
        writer.put(&trial.failures_permille.to_le_bytes());
        writer.put(&[trial.boots]);
        let nothing = Refusal { model: Model::default(), generation: 0, reason: Reason::Other(0) };
        let refusal = self.refusal.unwrap_or(nothing);
        writer.model(&refusal.model);
        writer.put(&refusal.generation.to_le_bytes());
        writer.put(&[refusal.reason.number()]);
        bytes
    }

    /// Reads what [`Record::encode`] wrote.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut bytes = Reader(bytes);
        let [VERSION, current, spare, candidate, refusal] = bytes.take()? else { return Err(RecordError) };
        let [current, spare] = [flag(current)?, flag(spare)?];
        let [candidate, refusal] = [flag(candidate)?, flag(refusal)?];
        let [bank] = bytes.take()?;
        let running = (if flag(bank)? { Bank::B } else { Bank::A }, bytes.model()?);
        let before = bytes.model()?;
        let model = bytes.model()?;
        let generation = u64::from_le_bytes(bytes.take()?);
        let [wrong, stage] = bytes.take()?;
        let stored = u32::from_le_bytes(bytes.take()?);
        let [boots] = bytes.take()?;
        let stage = if flag(stage)? { Stage::Trial { boots } } else { Stage::Fetching { stored } };
        let windows = u16::from_le_bytes(bytes.take()?);
        let failures_permille = u16::from_le_bytes(bytes.take()?);
        let [boots] = bytes.take()?;
        let trial = Trial { windows, failures_permille, boots };
        let unwanted = bytes.model()?;
        let refused = u64::from_le_bytes(bytes.take()?);
        let [reason] = bytes.take()?;
        if !bytes.0.is_empty() {
            return Err(RecordError);
        }
        let reason = Reason::from_number(reason);
        Ok(Self {
            current: current.then_some(running),
            spare: spare.then_some(before),
            candidate: candidate.then_some(Candidate { model, generation, wrong, stage, trial }),
            refusal: refusal.then_some(Refusal { model: unwanted, generation: refused, reason }),
        })
    }
}

fn flag(byte: u8) -> Result<bool, RecordError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(RecordError),
    }
}

struct Writer<'b> {
    out: &'b mut [u8],
}

impl Writer<'_> {
    fn put(&mut self, field: &[u8]) {
        let out = core::mem::take(&mut self.out);
        // The length is the sum of all fields.
        let Some((place, rest)) = out.split_at_mut_checked(field.len()) else { return };
        place.copy_from_slice(field);
        self.out = rest;
    }

    fn model(&mut self, model: &Model) {
        self.put(&model.digest);
        self.put(&model.size.to_le_bytes());
        self.put(&model.version.to_le_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(RecordError)?;
        self.0 = rest;
        Ok(*field)
    }

    fn model(&mut self) -> Result<Model, RecordError> {
        Ok(Model {
            digest: self.take()?,
            size: u32::from_le_bytes(self.take()?),
            version: u32::from_le_bytes(self.take()?),
        })
    }
}
