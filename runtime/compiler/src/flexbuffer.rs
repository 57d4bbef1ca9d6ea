//! Options of custom operators: a FlexBuffers map of scalars (flatbuffers.dev/flexbuffers).
//!
//! A FlexBuffer is read from its end: the last byte is the width of the root, the one before its type, and before
//! that lies the root itself, for a map the distance back to its values. Ahead of the values stand their number, the
//! keys' width and the distance to the keys; behind them the types. Every access is checked against the buffer.

/// The scalars of a map, by key. Values of other types are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    entries: Vec<(String, Scalar)>,
}

/// A scalar of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scalar {
    Int(i64),
    Float(f64),
}

/// Types as in the two parts of a type byte: the type and, in the two low bits, the logarithm of the width.
mod kind {
    pub(super) const INT: u8 = 1;
    pub(super) const UINT: u8 = 2;
    pub(super) const FLOAT: u8 = 3;
    pub(super) const INDIRECT_INT: u8 = 6;
    pub(super) const INDIRECT_UINT: u8 = 7;
    pub(super) const INDIRECT_FLOAT: u8 = 8;
    pub(super) const MAP: u8 = 9;
    pub(super) const BOOL: u8 = 26;
}

impl Options {
    /// Reads a map; no bytes are an empty map. `None` when the bytes are not a FlexBuffer with a map.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Options::default());
        }
        let buffer = Buffer { bytes };
        let (&[kind, root_width], start) =
            bytes.split_last_chunk::<2>().map(|(rest, tail)| (tail, rest.len()))?;
        if kind >> 2 != kind::MAP {
            return None;
        }
        let root = start.checked_sub(root_width.into())?;
        let values = buffer.follow(root, root_width.into())?;
        let width = 1 << (kind & 3);
        let count = buffer.count(values, width)?;
        let keys = buffer.follow(values.checked_sub(3 * width)?, width)?;
        let key_width = usize::try_from(buffer.unsigned(values.checked_sub(2 * width)?, width)?).ok()?;
        if buffer.count(keys, key_width)? != count {
            return None;
        }
        let types = values.checked_add(count.checked_mul(width)?)?;
        let mut entries = Vec::new();
        for index in 0..count {
            let key = buffer.key(buffer.follow(keys + index * key_width, key_width)?)?;
            let kind = *bytes.get(types.checked_add(index)?)?;
            if let Some(value) = buffer.scalar(values + index * width, width, kind)? {
                entries.push((key, value));
            }
        }
        Some(Options { entries })
    }

    /// An integer, bool or whole number.
    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            Scalar::Int(value) => Some(value),
            Scalar::Float(value) => {
                (value == value.trunc() && value.abs() < 2f64.powi(53)).then_some(value as i64)
            }
        }
    }

    fn get(&self, key: &str) -> Option<Scalar> {
        self.entries.iter().find(|(name, _)| name == key).map(|&(_, value)| value)
    }
}

/// Bounds-checked access.
#[derive(Clone, Copy)]
struct Buffer<'a> {
    bytes: &'a [u8],
}

impl Buffer<'_> {
    /// The unsigned number of `width` bytes at `at`.
    fn unsigned(self, at: usize, width: usize) -> Option<u64> {
        let field = self.bytes.get(at..at.checked_add(width)?)?;
        if !matches!(width, 1 | 2 | 4 | 8) {
            return None;
        }
        Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// The signed number of `width` bytes at `at`.
    fn signed(self, at: usize, width: usize) -> Option<i64> {
        let unused = 64 - 8 * width as u32;
        Some((self.unsigned(at, width)? << unused) as i64 >> unused)
    }

    /// The floating-point number of `width` bytes at `at`.
    fn float(self, at: usize, width: usize) -> Option<f64> {
        let bits = self.unsigned(at, width)?;
        match width {
            2 => Some(half::f16::from_bits(bits as u16).to_f64()),
            4 => Some(f32::from_bits(bits as u32).into()),
            8 => Some(f64::from_bits(bits)),
            _ => None,
        }
    }

    /// Where the offset at `at` points: offsets count backwards from where they stand.
    fn follow(self, at: usize, width: usize) -> Option<usize> {
        at.checked_sub(usize::try_from(self.unsigned(at, width)?).ok()?)
    }

    /// The number of elements of the vector at `at`, which stands ahead of it. All of them lie within the buffer.
    fn count(self, at: usize, width: usize) -> Option<usize> {
        let count = usize::try_from(self.unsigned(at.checked_sub(width)?, width)?).ok()?;
        let end = at.checked_add(count.checked_mul(width)?)?;
        (end <= self.bytes.len()).then_some(count)
    }

    /// The key at `at`, up to its zero byte.
    fn key(self, at: usize) -> Option<String> {
        let rest = self.bytes.get(at..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    /// The value at `at` in a vector of elements of `width` bytes; `Some(None)` when it is not a scalar.
    fn scalar(self, at: usize, width: usize, kind: u8) -> Option<Option<Scalar>> {
        let indirect = 1 << (kind & 3);
        Some(Some(match kind >> 2 {
            kind::INT => Scalar::Int(self.signed(at, width)?),
            kind::UINT | kind::BOOL => Scalar::Int(self.unsigned(at, width)? as i64),
            kind::FLOAT => Scalar::Float(self.float(at, width)?),
            kind::INDIRECT_INT => Scalar::Int(self.signed(self.follow(at, width)?, indirect)?),
            kind::INDIRECT_UINT => Scalar::Int(self.unsigned(self.follow(at, width)?, indirect)? as i64),
            kind::INDIRECT_FLOAT => Scalar::Float(self.float(self.follow(at, width)?, indirect)?),
            _ => return Some(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made with Python's `flexbuffers` module: `{'fft_length': 512, 'T': 7}`.
    const TWO_WIDE: &[u8] = b"T\0fft_length\0\x02\x0e\x0d\x02\0\x01\0\x02\0\x07\0\0\x02\x05\x05\x06%\x01";

    #[test]
    fn reads_integers_of_any_width() {
        let options = Options::read(TWO_WIDE).unwrap();
        assert_eq!(options.int("T"), Some(7));
        assert_eq!(options.int("fft_length"), Some(512));
        assert_eq!(options.int("fft"), None);
    }

    #[test]
    fn an_empty_map_and_nothing_at_all_have_no_options() {
        assert_eq!(Options::read(b"\0\0\x01\0\0$\x01"), Some(Options::default()));
        assert_eq!(Options::read(b""), Some(Options::default()));
    }

    #[test]
    fn a_negative_number_keeps_its_sign() {
        let options = Options::read(b"n\0\x01\x03\x01\x01\x01\xfb\x04\x02$\x01").unwrap();
        assert_eq!(options.int("n"), Some(-5));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        assert_eq!(Options::read(b"\x05\x04\x01"), None);
        assert_eq!(Options::read(b"\x24\x01"), None);
    }

    #[test]
    fn every_truncation_is_refused_or_read() {
        for len in 0..TWO_WIDE.len() {
            Options::read(&TWO_WIDE[..len]);
            Options::read(&TWO_WIDE[len..]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
            Options::read(&bytes);
        }

        #[test]
        fn a_damaged_map_is_refused_or_read(at in 0..TWO_WIDE.len(), byte: u8) {
            let mut bytes = TWO_WIDE.to_vec();
            bytes[at] = byte;
            Options::read(&bytes);
        }
    }
}
