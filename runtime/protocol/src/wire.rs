//! Reading and writing fields in postcard's wire format, in fixed buffers.
//!
//! Each field is a postcard value of its own, so that a reader can stop where an older writer stopped
//! ([`Reader::take_or`]) and ignore what a newer writer appended.

use serde::{Deserialize, Serialize};

use crate::{DecodeError, EncodeError, limits};

/// A message or a part of one, read from the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// A message that begins with its version.
    pub(crate) fn message(bytes: &'a [u8], limit: usize, field: &'static str) -> Result<Self, DecodeError> {
        if bytes.len() > limit {
            return Err(DecodeError::Limit { field });
        }
        let mut reader = Self::new(bytes);
        match reader.take::<u8>(field)? {
            limits::VERSION => Ok(reader),
            found => Err(DecodeError::Version { found }),
        }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take<T: Deserialize<'a>>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        match postcard::take_from_bytes(self.rest) {
            Ok((value, rest)) => {
                self.rest = rest;
                Ok(value)
            }
            Err(postcard::Error::DeserializeUnexpectedEnd) => Err(DecodeError::Truncated { field }),
            Err(_) => Err(DecodeError::Invalid { field }),
        }
    }

    /// A field that older writers do not have: `default` when the message ends here. Version 1 has none yet.
    #[cfg_attr(not(test), expect(dead_code))]
    pub(crate) fn take_or<T: Deserialize<'a>>(
        &mut self,
        field: &'static str,
        default: T,
    ) -> Result<T, DecodeError> {
        if self.is_empty() { Ok(default) } else { self.take(field) }
    }

    /// A count of at most [`limits::MAX_COUNT`].
    pub(crate) fn count(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let count = self.take(field)?;
        if count > limits::MAX_COUNT { Err(DecodeError::Limit { field }) } else { Ok(count) }
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn bytes(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.take::<u32>(field)? as usize;
        if len > limit {
            return Err(DecodeError::Limit { field });
        }
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self, field: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        core::str::from_utf8(self.bytes(field, limit)?).map_err(|_| DecodeError::Invalid { field })
    }

    /// A part that states its own length, so that it can grow.
    pub(crate) fn nested(&mut self, field: &'static str) -> Result<Self, DecodeError> {
        self.bytes(field, usize::MAX).map(Self::new)
    }
}

/// A message being written into the caller's buffer.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(out: &'b mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    pub(crate) fn message(out: &'b mut [u8], field: &'static str) -> Result<Self, EncodeError> {
        let mut writer = Self::new(out);
        writer.put(field, &limits::VERSION)?;
        Ok(writer)
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that are left.
    pub(crate) fn room(&self) -> usize {
        self.out.len().saturating_sub(self.len)
    }

    /// Takes back everything after the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn put<T: Serialize>(&mut self, field: &'static str, value: &T) -> Result<(), EncodeError> {
        let free = self.out.get_mut(self.len..).ok_or(EncodeError::Full { field })?;
        let written = postcard::to_slice(value, free).map_err(|_| EncodeError::Full { field })?.len();
        self.len += written;
        Ok(())
    }

    pub(crate) fn raw(&mut self, field: &'static str, bytes: &[u8]) -> Result<(), EncodeError> {
        let free = self.out.get_mut(self.len..).unwrap_or_default();
        let (place, _) = free.split_at_mut_checked(bytes.len()).ok_or(EncodeError::Full { field })?;
        place.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    pub(crate) fn count(&mut self, field: &'static str, count: u64) -> Result<(), EncodeError> {
        if count > limits::MAX_COUNT {
            return Err(EncodeError::Limit { field });
        }
        self.put(field, &count)
    }

    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        bytes: &[u8],
        limit: usize,
    ) -> Result<(), EncodeError> {
        let len = u32::try_from(bytes.len()).map_err(|_| EncodeError::Limit { field })?;
        if bytes.len() > limit {
            return Err(EncodeError::Limit { field });
        }
        self.put(field, &len)?;
        self.raw(field, bytes)
    }

    pub(crate) fn text(&mut self, field: &'static str, text: &str, limit: usize) -> Result<(), EncodeError> {
        self.bytes(field, text.as_bytes(), limit)
    }

    /// Writes a part and puts its length before it. What was written of a part that does not fit is taken back.
    pub(crate) fn nested(
        &mut self,
        field: &'static str,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let start = self.len;
        let result = self.try_nested(field, start, write);
        if result.is_err() {
            self.len = start;
        }
        result
    }

    fn try_nested(
        &mut self,
        field: &'static str,
        start: usize,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        // Nearly all parts are shorter than 128 bytes: their length takes one byte. Longer ones are moved up.
        self.put(field, &0_u8)?;
        write(self)?;
        let len = (self.len - start).saturating_sub(1);
        let prefix = u32::try_from(len).map_err(|_| EncodeError::Limit { field })?;
        let extra = match prefix {
            0..0x80 => 0,
            0x80..0x4000 => 1,
            _ => 2,
        };
        if extra > 0 {
            let part = self.out.get_mut(start..).and_then(|out| out.get_mut(..1 + len + extra));
            let part = part.ok_or(EncodeError::Full { field })?;
            // From its end on, as the places overlap. `copy_within` would do, but can panic.
            for from in (1..=len).rev() {
                let byte = part.get(from).copied().unwrap_or_default();
                if let Some(to) = part.get_mut(from + extra) {
                    *to = byte;
                }
            }
        }
        self.len = start;
        self.put(field, &prefix)?;
        self.len += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_were_appended_later_have_a_default() {
        let mut reader = Reader::new(&[5]);
        assert_eq!(reader.take::<u32>("first"), Ok(5));
        assert_eq!(reader.take_or("appended", 7_u32), Ok(7));
        let mut reader = Reader::new(&[5, 6]);
        assert_eq!(reader.take::<u32>("first"), Ok(5));
        assert_eq!(reader.take_or("appended", 7_u32), Ok(6));
        // A field that has begun must be whole.
        assert_eq!(Reader::new(&[0x80]).take_or("cut", 7_u32), Err(DecodeError::Truncated { field: "cut" }));
    }

    #[test]
    fn the_length_before_a_part_takes_as_few_bytes_as_postcard_gives_it() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 20_000] {
            let part = std::vec![0xa5_u8; len];
            let mut buffer = std::vec![0; len + 3];
            let mut writer = Writer::new(&mut buffer);
            writer.nested("part", |writer| writer.raw("part", &part)).unwrap();
            let len = writer.len();
            let mut expected = std::vec![0; part.len() + 3];
            let expected = postcard::to_slice(part.as_slice(), &mut expected).unwrap();
            assert_eq!(buffer[..len], *expected);
            assert_eq!(Reader::new(&buffer).bytes("part", usize::MAX), Ok(part.as_slice()));
        }
    }

    #[test]
    fn a_part_that_does_not_fit_leaves_nothing_behind() {
        for size in 0..131 {
            let mut buffer = [0; 131];
            let mut writer = Writer::new(&mut buffer[..size]);
            let result = writer.nested("part", |writer| writer.raw("part", &[0; 129]));
            assert_eq!((result, writer.len()), (Err(EncodeError::Full { field: "part" }), 0), "{size}");
        }
    }
}
