//! Writing one of the two places of a model slot.

use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;

use super::{FlashError, fits_pages};

/// Writes an artifact into a region of flash from front to back, while it is being fetched.
#[derive(Debug)]
pub struct BankWriter {
    region: Range<u32>,
    /// How many bytes are there.
    written: u32,
}

impl BankWriter {
    /// Goes on where `stored` bytes are there for sure. Fewer may be kept, as only whole pages can be erased: fetch from
    /// [`BankWriter::written`] on.
    ///
    /// # Errors
    /// [`FlashError::Layout`] when the region does not consist of whole pages.
    pub fn resume<F: NorFlash>(region: Range<u32>, stored: u32) -> Result<Self, FlashError<F::Error>> {
        if !fits_pages(&region, F::ERASE_SIZE) || F::WRITE_SIZE == 0 {
            return Err(FlashError::Layout);
        }
        let page = F::ERASE_SIZE as u32;
        // Behind what is stored there may be more, which was written before the power was lost.
        Ok(Self { written: (stored / page * page).min(region.end - region.start), region })
    }

    /// How many bytes are there; the next one that is needed.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Appends bytes, and erases pages as they are reached. All but the last piece are multiples of what the flash writes
    /// at once.
    ///
    /// # Errors
    /// [`FlashError`]; how much of the piece is there is not known then: begin again with [`BankWriter::resume`].
    pub fn append<F: NorFlash>(&mut self, flash: &mut F, bytes: &[u8]) -> Result<(), FlashError<F::Error>> {
        let length = u32::try_from(bytes.len()).map_err(|_| FlashError::Full)?;
        let word = F::WRITE_SIZE as u32;
        if !self.written.is_multiple_of(word) {
            return Err(FlashError::Layout);
        }
        let at = self.region.start.saturating_add(self.written);
        let end = at.checked_add(length.next_multiple_of(word)).filter(|end| *end <= self.region.end);
        let end = end.ok_or(FlashError::Full)?;
        let page = F::ERASE_SIZE as u32;
        // The page that `at` is inside of was erased when it was reached.
        let (erase_from, erase_to) = (at.next_multiple_of(page), end.next_multiple_of(page));
        if erase_from < erase_to {
            flash.erase(erase_from, erase_to)?;
        }
        let whole = bytes.len() - bytes.len() % F::WRITE_SIZE;
        let (words, rest) = bytes.split_at_checked(whole).unwrap_or((bytes, &[]));
        if !words.is_empty() {
            flash.write(at, words)?;
        }
        if !rest.is_empty() {
            let mut last = [0xff; 64];
            let padded = last.get_mut(..F::WRITE_SIZE).ok_or(FlashError::Layout)?;
            padded.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
            flash.write(at.saturating_add(words.len() as u32), padded)?;
        }
        self.written = self.written.saturating_add(length);
        Ok(())
    }
}
