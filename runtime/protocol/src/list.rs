//! Lists of items that can grow: the items of a decoded message stay where they are, in the message.

use core::fmt;

use crate::wire::{Reader, Writer};
use crate::{DecodeError, EncodeError};

/// What a [`List`] can hold. Implemented by the items of this crate's messages.
pub trait Item<'a>: Copy {
    #[doc(hidden)]
    const FIELD: &'static str;
    #[doc(hidden)]
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    #[doc(hidden)]
    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError>;
}

/// A list in a message: a slice of items to be sent, or the bytes of a message received, which were checked when
/// the message was decoded.
///
/// On the wire: the number of items, then each item as a byte string with its length, so that newer writers can
/// append fields to items.
#[derive(Clone, Copy)]
pub struct List<'a, T>(Source<'a, T>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    Items(&'a [T]),
    Encoded { count: u32, items: Reader<'a> },
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// The number of items.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Items(items) => items.len(),
            Source::Encoded { count, .. } => count as usize,
        }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a + use<'a, T> {
        let mut source = self.0;
        core::iter::from_fn(move || match &mut source {
            Source::Items(items) => {
                let (first, rest) = items.split_first()?;
                *items = rest;
                Some(*first)
            }
            Source::Encoded { count, items } => {
                *count = count.checked_sub(1)?;
                T::read(&mut items.nested(T::FIELD).ok()?).ok()
            }
        })
    }

    pub(crate) fn read(reader: &mut Reader<'a>, limit: usize) -> Result<Self, DecodeError> {
        let count = reader.take::<u32>(T::FIELD)?;
        if count as usize > limit {
            return Err(DecodeError::Limit { field: T::FIELD });
        }
        let items = *reader;
        for _ in 0..count {
            T::read(&mut reader.nested(T::FIELD)?)?;
        }
        Ok(Self(Source::Encoded { count, items }))
    }

    pub(crate) fn write(&self, writer: &mut Writer, limit: usize) -> Result<(), EncodeError> {
        let field = T::FIELD;
        let count = u32::try_from(self.len()).map_err(|_| EncodeError::Limit { field })?;
        if count as usize > limit {
            return Err(EncodeError::Limit { field });
        }
        writer.put(field, &count)?;
        self.iter().try_for_each(|item| writer.nested(field, |writer| item.write(writer)))
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self(Source::Items(&[]))
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(items: &'a [T]) -> Self {
        Self(Source::Items(items))
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for List<'a, T> {
    fn from(items: &'a [T; N]) -> Self {
        Self(Source::Items(items))
    }
}

impl<'a, T: Item<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A key with a value, both text: an attribute of a device or a setting of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// At most [`crate::limits::MAX_KEY`] bytes.
    pub key: &'a str,
    /// At most [`crate::limits::MAX_VALUE`] bytes.
    pub value: &'a str,
}

impl<'a> Item<'a> for Pair<'a> {
    const FIELD: &'static str = "pair";

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.text("pair.key", crate::limits::MAX_KEY)?,
            value: reader.text("pair.value", crate::limits::MAX_VALUE)?,
        })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.text("pair.key", self.key, crate::limits::MAX_KEY)?;
        writer.text("pair.value", self.value, crate::limits::MAX_VALUE)
    }
}
