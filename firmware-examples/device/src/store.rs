//! What survives a restart: two small values in flash.

use core::ops::Range;

use dunlin_agent::flash::{Cell, FlashError};
use dunlin_agent::update::{RECORD_BYTES, Record};
use dunlin_trust::{STATE_BYTES, Trust};
use embedded_storage::nor_flash::NorFlash;

/// Bytes of a stored record, with what a [`Cell`] adds.
const RECORD_FRAME: usize = 256;
/// Bytes of what is stored about keys, with what a [`Cell`] adds.
const TRUST_FRAME: usize = 1280;

const _: () = assert!(RECORD_BYTES + 10 <= RECORD_FRAME && STATE_BYTES + 10 <= TRUST_FRAME);

/// What is stored of a value.
pub(crate) enum Stored<T> {
    /// Nothing yet.
    Nothing,
    /// Something that cannot be read.
    Damaged,
    /// The value.
    Value(T),
}

/// The region of flash for what the slot and the device's trust must not forget.
pub(crate) struct Store<F> {
    flash: F,
    record: Cell<RECORD_FRAME>,
    trust: Cell<TRUST_FRAME>,
}

impl<F: NorFlash> Store<F> {
    /// The record is in the first pages, the trust in those that follow.
    pub(crate) fn open(mut flash: F) -> Result<Self, FlashError<F::Error>> {
        let record = region(0, RECORD_FRAME, F::ERASE_SIZE);
        let trust = region(record.end, TRUST_FRAME, F::ERASE_SIZE);
        if u32::try_from(flash.capacity()).is_ok_and(|capacity| capacity < trust.end) {
            return Err(FlashError::Full);
        }
        let (record, trust) = (Cell::open(&mut flash, record)?, Cell::open(&mut flash, trust)?);
        Ok(Store { flash, record, trust })
    }

    pub(crate) fn record(&mut self) -> Stored<Record> {
        let mut bytes = [0; RECORD_FRAME];
        let length = self.record.read(&mut self.flash, &mut bytes);
        decoded(length.ok(), &bytes, |bytes| Record::decode(bytes).ok())
    }

    pub(crate) fn trust(&mut self) -> Stored<Trust> {
        let mut bytes = [0; TRUST_FRAME];
        let length = self.trust.read(&mut self.flash, &mut bytes);
        decoded(length.ok(), &bytes, |bytes| Trust::decode(bytes).ok())
    }

    pub(crate) fn save_record(&mut self, record: &Record) -> Result<(), FlashError<F::Error>> {
        self.record.write(&mut self.flash, &record.encode())
    }

    pub(crate) fn save_trust(&mut self, trust: &Trust) -> Result<(), FlashError<F::Error>> {
        self.trust.write(&mut self.flash, &trust.encode())
    }
}

/// Two halves of whole pages, each with room for a frame.
fn region(start: u32, frame: usize, page: usize) -> Range<u32> {
    let half = if page == 0 { 0 } else { frame.next_multiple_of(page) };
    start..start.saturating_add(u32::try_from(2 * half).unwrap_or(u32::MAX))
}

fn decoded<T>(length: Option<Option<usize>>, bytes: &[u8], decode: impl Fn(&[u8]) -> Option<T>) -> Stored<T> {
    match length {
        Some(None) => Stored::Nothing,
        Some(Some(length)) => bytes.get(..length).and_then(decode).map_or(Stored::Damaged, Stored::Value),
        None => Stored::Damaged,
    }
}
