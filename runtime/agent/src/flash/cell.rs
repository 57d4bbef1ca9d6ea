//! One value that survives a loss of power.

use core::ops::Range;

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};

use super::{FlashError, fits_pages};

/// Bytes of a frame that are not the value's.
const OVERHEAD: usize = 4 + 2 + 4;

/// A value of at most `FRAME` - 10 bytes in a region of flash that is used as a log:
///
/// ```text
/// frame: number u32 | length u16 | value | 0xff… | CRC-32 of all before u32        (FRAME bytes)
/// ```
///
/// The region has two halves. New values are appended to the half that has the newest one; when it is full, the other
/// half is erased and the value goes there. So the newest value is never in a page that is being erased, and a frame that
/// was not written to its end has a wrong sum. `FRAME` is a multiple of what the flash writes at once.
#[derive(Debug)]
pub struct Cell<const FRAME: usize> {
    region: Range<u32>,
    /// Where the newest value is, and its number.
    newest: Option<(u32, u32)>,
}

impl<const FRAME: usize> Cell<FRAME> {
    /// Looks for the newest value.
    ///
    /// # Errors
    /// [`FlashError`].
    pub fn open<F: NorFlash>(flash: &mut F, region: Range<u32>) -> Result<Self, FlashError<F::Error>> {
        let half = (region.end.saturating_sub(region.start)) / 2;
        let halves =
            [region.start..region.start.saturating_add(half), region.start.saturating_add(half)..region.end];
        let is_usable = halves.iter().all(|half| fits_pages(half, F::ERASE_SIZE))
            && FRAME > OVERHEAD
            && FRAME <= usize::from(u16::MAX)
            && FRAME.is_multiple_of(F::WRITE_SIZE)
            && FRAME.is_multiple_of(F::READ_SIZE)
            && half >= FRAME as u32;
        if !is_usable {
            return Err(FlashError::Layout);
        }
        let mut cell = Self { region, newest: None };
        let mut frame = [0; FRAME];
        for half in [0, 1] {
            for at in cell.places(half) {
                flash.read(at, &mut frame)?;
                if let Some((number, _)) = open(&frame)
                    && cell.newest.is_none_or(|(_, newest)| number > newest)
                {
                    cell.newest = Some((at, number));
                }
            }
        }
        Ok(cell)
    }

    /// Where frames can be in one of the halves.
    fn places(&self, half: u32) -> impl Iterator<Item = u32> + use<FRAME> {
        let length = (self.region.end - self.region.start) / 2;
        let start = self.region.start + half * length;
        let frame = FRAME as u32;
        (0..length / frame).map(move |index| start + index * frame)
    }

    /// Copies the value into `out`: how long it is; `None` when there is none yet.
    ///
    /// # Errors
    /// [`FlashError::Full`] when `out` is too small, [`FlashError::Worn`] when it cannot be read any more.
    pub fn read<F: ReadNorFlash>(
        &self,
        flash: &mut F,
        out: &mut [u8],
    ) -> Result<Option<usize>, FlashError<F::Error>> {
        let Some((at, _)) = self.newest else { return Ok(None) };
        let mut frame = [0; FRAME];
        flash.read(at, &mut frame)?;
        let (_, value) = open(&frame).ok_or(FlashError::Worn)?;
        out.get_mut(..value.len()).ok_or(FlashError::Full)?.copy_from_slice(value);
        Ok(Some(value.len()))
    }

    /// Replaces the value. When this fails, or power is lost meanwhile, it is the old one or the new one.
    ///
    /// # Errors
    /// [`FlashError`].
    pub fn write<F: NorFlash>(&mut self, flash: &mut F, value: &[u8]) -> Result<(), FlashError<F::Error>> {
        let number = self.newest.map_or(0, |(_, number)| number.saturating_add(1));
        let mut frame = [0xff; FRAME];
        seal(number, value, &mut frame).ok_or(FlashError::Full)?;
        let at = match self.free(flash)? {
            Some(at) => at,
            None => self.erase_other(flash)?,
        };
        flash.write(at, &frame)?;
        let mut written = [0; FRAME];
        flash.read(at, &mut written)?;
        if written != frame {
            return Err(FlashError::Worn);
        }
        self.newest = Some((at, number));
        Ok(())
    }

    fn half_of_newest(&self) -> Option<u32> {
        let middle = self.region.start + (self.region.end - self.region.start) / 2;
        self.newest.map(|(at, _)| u32::from(at >= middle))
    }

    /// The next place behind the newest value that nobody has touched since its half was erased.
    fn free<F: ReadNorFlash>(&self, flash: &mut F) -> Result<Option<u32>, FlashError<F::Error>> {
        let (Some((newest, _)), Some(half)) = (self.newest, self.half_of_newest()) else { return Ok(None) };
        let mut frame = [0; FRAME];
        for at in self.places(half).filter(|at| *at > newest) {
            flash.read(at, &mut frame)?;
            if frame.iter().all(|byte| *byte == 0xff) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Makes room in the half that does not have the newest value; where it begins.
    fn erase_other<F: NorFlash>(&self, flash: &mut F) -> Result<u32, FlashError<F::Error>> {
        let length = (self.region.end - self.region.start) / 2;
        let half = self.half_of_newest().map_or(0, |half| 1 - half);
        let start = self.region.start + half * length;
        flash.erase(start, start + length)?;
        Ok(start)
    }
}

/// Writes a frame; `None` when the value is too long.
fn seal(number: u32, value: &[u8], frame: &mut [u8]) -> Option<()> {
    let (rest, sum) = frame.split_last_chunk_mut()?;
    let (head, room) = rest.split_first_chunk_mut::<6>()?;
    let [a, b, c, d] = number.to_le_bytes();
    let [low, high] = u16::try_from(value.len()).ok()?.to_le_bytes();
    *head = [a, b, c, d, low, high];
    room.get_mut(..value.len())?.copy_from_slice(value);
    *sum = crc32(rest).to_le_bytes();
    Some(())
}

/// Reads a frame; `None` when it is not whole.
fn open(frame: &[u8]) -> Option<(u32, &[u8])> {
    let (rest, sum) = frame.split_last_chunk()?;
    if crc32(rest) != u32::from_le_bytes(*sum) {
        return None;
    }
    let ([a, b, c, d, low, high], room) = rest.split_first_chunk()?;
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    Some((u32::from_le_bytes([*a, *b, *c, *d]), room.get(..length)?))
}

/// CRC-32 (IEEE 802.3), bit by bit: values are short, and a table takes a kilobyte of flash.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| {
                if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn erased_and_zeroed_flash_is_no_value() {
        assert_eq!(open(&[0xff; 32]), None);
        assert_eq!(open(&[0; 32]), None);
    }

    #[test]
    fn a_frame_that_is_damaged_anywhere_is_no_value() {
        let mut frame = [0xff; 32];
        assert!(seal(7, b"something", &mut frame).is_some());
        assert_eq!(open(&frame), Some((7, &b"something"[..])));
        for bit in 0..32 * 8 {
            let mut damaged = frame;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&damaged), None, "bit {bit}");
        }
        assert!(seal(7, &[0; 23], &mut frame).is_none(), "too long");
    }
}
