//! NumPy arrays: reading and writing `.npy`.
//!
//! Both Rust crates for the format multiply, or allocate by, the shape in the header before anything has checked
//! it against the file, so a hostile header panics them. Here the header's text goes through `py_literal`, the
//! parser that both of them use, and its numbers are checked before they are believed.

use std::fmt;

use dunlin_artifact::DType;
use py_literal::Value;

/// Longest header that is read, in bytes; NumPy's own limit.
const MAX_HEADER: usize = 10_000;
/// Most axes of an array; NumPy's own limit.
const MAX_AXES: usize = 64;
/// Most brackets in a header. A plain array has one pair; nested ones cost the parser stack.
const MAX_BRACKETS: usize = 16;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The element type of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// A type that tensors can have.
    Tensor(DType),
    /// Double precision: NumPy's default, which no tensor has. Good for labels.
    Float64,
}

/// An array in C order, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Element {
    /// Bytes per element.
    pub(crate) fn size(self) -> usize {
        match self {
            Element::Tensor(dtype) => dtype.size(),
            Element::Float64 => 8,
        }
    }

    /// Whether the values are integers or truth values.
    pub(crate) fn is_integer(self) -> bool {
        !matches!(self, Element::Float64 | Element::Tensor(DType::F32 | DType::F16))
    }

    /// NumPy's type string.
    fn descr(self) -> &'static str {
        match self {
            Element::Float64 => "<f8",
            Element::Tensor(DType::I8) => "|i1",
            Element::Tensor(DType::U8) => "|u1",
            Element::Tensor(DType::Bool) => "|b1",
            Element::Tensor(DType::I16) => "<i2",
            Element::Tensor(DType::I32) => "<i4",
            Element::Tensor(DType::U32) => "<u4",
            Element::Tensor(DType::I64) => "<i8",
            Element::Tensor(DType::U64) => "<u8",
            Element::Tensor(DType::F16) => "<f2",
            Element::Tensor(DType::F32) => "<f4",
        }
    }

    fn from_descr(descr: &str) -> Result<Self, String> {
        let tensors = DType::ALL.into_iter().map(Element::Tensor);
        let known = || tensors.clone().chain([Element::Float64]);
        // The byte order of a single byte does not matter.
        let same = |element: &Element| {
            descr == element.descr() || (element.size() == 1 && descr.get(1..) == element.descr().get(1..))
        };
        if let Some(element) = known().find(same) {
            return Ok(element);
        }
        if descr.starts_with('>') {
            return Err(format!(
                "has big-endian elements ({descr}); store it with x.astype(x.dtype.newbyteorder('<'))"
            ));
        }
        let names: Vec<String> = known().map(|element| element.to_string()).collect();
        Err(format!("has elements of type {descr:?}; supported are {}", names.join(", ")))
    }

    /// The value of one element.
    fn real(self, bytes: &[u8]) -> f64 {
        fn le<const N: usize>(bytes: &[u8]) -> [u8; N] {
            *bytes.first_chunk().unwrap_or(&[0; N])
        }
        match self {
            Element::Float64 => f64::from_le_bytes(le(bytes)),
            Element::Tensor(DType::I8) => i8::from_le_bytes(le(bytes)).into(),
            Element::Tensor(DType::U8 | DType::Bool) => u8::from_le_bytes(le(bytes)).into(),
            Element::Tensor(DType::I16) => i16::from_le_bytes(le(bytes)).into(),
            Element::Tensor(DType::I32) => i32::from_le_bytes(le(bytes)).into(),
            Element::Tensor(DType::U32) => u32::from_le_bytes(le(bytes)).into(),
            // Beyond 2^53 the nearest double.
            Element::Tensor(DType::I64) => i64::from_le_bytes(le(bytes)) as f64,
            Element::Tensor(DType::U64) => u64::from_le_bytes(le(bytes)) as f64,
            Element::Tensor(DType::F16) => half::f16::from_le_bytes(le(bytes)).into(),
            Element::Tensor(DType::F32) => f32::from_le_bytes(le(bytes)).into(),
        }
    }

    /// The values of elements.
    pub(crate) fn reals(self, bytes: &[u8]) -> impl Iterator<Item = f64> {
        bytes.chunks_exact(self.size()).map(move |element| self.real(element))
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Tensor(dtype) => dtype.fmt(f),
            Element::Float64 => f.write_str("float64"),
        }
    }
}

impl Array {
    /// An array of these little-endian bytes.
    pub(crate) fn new(element: Element, shape: Vec<usize>, bytes: Vec<u8>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>() * element.size(), bytes.len());
        Array { element, shape, bytes }
    }

    /// An array without elements.
    pub(crate) fn empty() -> Self {
        Array { element: Element::Float64, shape: vec![0], bytes: Vec::new() }
    }

    /// Whether a file with these first bytes is an `.npy` file.
    pub(crate) fn is_npy(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// The values.
    pub(crate) fn reals(&self) -> impl Iterator<Item = f64> {
        self.element.reals(&self.bytes)
    }

    /// Reads an `.npy` file. Arrays in Fortran order are brought into C order. The error continues the sentence
    /// that begins with the file's name.
    pub(crate) fn from_npy(file: &[u8]) -> Result<Self, String> {
        let (header, data) = split_header(file)?;
        let Header { element, shape, fortran_order } = parse_header(header)?;
        let expected = shape.iter().try_fold(element.size(), |bytes, &dim| bytes.checked_mul(dim));
        if expected != Some(data.len()) {
            let expected = expected.map_or("more than a file can hold".into(), |bytes| bytes.to_string());
            let found = data.len();
            return Err(format!(
                "states {element} {shape:?}, {expected} bytes of data, but has {found}; it is damaged"
            ));
        }
        let bytes = if fortran_order { to_c_order(data, element.size(), &shape) } else { data.to_vec() };
        Ok(Array { element, shape, bytes })
    }

    /// The array as an `.npy` file (format version 1.0).
    pub(crate) fn to_npy(&self) -> Vec<u8> {
        let axes: String = self.shape.iter().map(|dim| format!("{dim}, ")).collect();
        // Python writes a tuple of one as `(3,)` and longer ones without the last comma; it reads both.
        let dict =
            format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({axes}), }}", self.element.descr());
        let prefix = MAGIC.len() + 4;
        // The data begins at a multiple of 64, the header ends with a line feed.
        let padded = (prefix + dict.len() + 1).next_multiple_of(64) - prefix;
        let mut file = Vec::with_capacity(prefix + padded + self.bytes.len());
        file.extend(MAGIC);
        file.extend([1, 0]);
        file.extend((padded as u16).to_le_bytes());
        file.extend(dict.as_bytes());
        file.resize(prefix + padded - 1, b' ');
        file.push(b'\n');
        file.extend(&self.bytes);
        file
    }
}

struct Header {
    element: Element,
    shape: Vec<usize>,
    fortran_order: bool,
}

/// Splits a file into the header's text and the data.
fn split_header(file: &[u8]) -> Result<(&str, &[u8]), String> {
    let truncated = || "ends within its header; it is damaged".to_owned();
    let rest = file.strip_prefix(MAGIC).ok_or("is not an .npy file")?;
    let (&[major, _], rest) = rest.split_first_chunk().ok_or_else(truncated)?;
    let (len, rest) = match major {
        1 => {
            let (len, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        2 | 3 => {
            let (len, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
            (u32::from_le_bytes(*len) as usize, rest)
        }
        _ => return Err(format!("has .npy format version {major}; versions 1 to 3 are supported")),
    };
    if len > MAX_HEADER {
        return Err(format!("has a header of {len} bytes; at most {MAX_HEADER} are read"));
    }
    let (header, data) = rest.split_at_checked(len).ok_or_else(truncated)?;
    let header = std::str::from_utf8(header).map_err(|_| "has a header that is not text".to_owned())?;
    Ok((header, data))
}

/// Reads the header, a Python dictionary.
fn parse_header(text: &str) -> Result<Header, String> {
    let malformed = |what: &str| format!("has a malformed header: {what}");
    if text.bytes().filter(|byte| b"([{".contains(byte)).count() > MAX_BRACKETS {
        return Err("is a structured array; a plain array of numbers is expected".into());
    }
    let Ok(Value::Dict(entries)) = text.trim().parse::<Value>() else {
        return Err(malformed("not a Python dictionary"));
    };
    let find = |name: &str| {
        let entry = entries.iter().find(|(key, _)| key.as_string().is_some_and(|key| key == name));
        entry.map(|(_, value)| value).ok_or_else(|| malformed(&format!("{name} is missing")))
    };
    let element = match find("descr")? {
        Value::String(descr) if descr.starts_with("|O") => {
            return Err("holds Python objects; a plain array of numbers is expected".into());
        }
        Value::String(descr) => Element::from_descr(descr)?,
        _ => return Err("is a structured array; a plain array of numbers is expected".into()),
    };
    let fortran_order = find("fortran_order")?.as_boolean().ok_or_else(|| malformed("fortran_order"))?;
    let dims = find("shape")?.as_tuple().ok_or_else(|| malformed("the shape is not a tuple"))?;
    let dim = |value: &Value| value.as_integer().and_then(|dim| usize::try_from(dim).ok());
    let shape: Option<Vec<usize>> = dims.iter().map(dim).collect();
    let shape = shape.filter(|shape| shape.len() <= MAX_AXES).ok_or_else(|| malformed("impossible shape"))?;
    Ok(Header { element, shape, fortran_order })
}

/// Reorders elements that are stored with the first axis running fastest. `data` has exactly the elements of
/// `shape`.
fn to_c_order(data: &[u8], size: usize, shape: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len());
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = size;
    for &dim in shape {
        strides.push(stride);
        stride *= dim;
    }
    // Counts through the shape with the last axis running fastest.
    let mut index = vec![0; shape.len()];
    for _ in 0..data.len() / size {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        bytes.extend(&data[at..at + size]);
        for (i, &dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < dim {
                break;
            }
            *i = 0;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend([1, 0]);
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn every_element_type_survives_a_round_trip() {
        for element in DType::ALL.into_iter().map(Element::Tensor).chain([Element::Float64]) {
            for shape in [vec![], vec![0], vec![3], vec![2, 3], vec![1, 2, 3, 4, 5]] {
                let len = shape.iter().product::<usize>() * element.size();
                let array = Array::new(element, shape, (0..len).map(|i| i as u8).collect());
                let file = array.to_npy();
                assert_eq!(Array::from_npy(&file).as_ref(), Ok(&array));
                assert_eq!((file.len() - len) % 64, 0, "NumPy aligns the data to 64 bytes");
            }
        }
    }

    #[test]
    fn what_numpy_writes_is_read() {
        // numpy.save of numpy.arange(6, dtype="int16").reshape(2, 3).
        let file = npy(
            "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }   \n",
            &[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0],
        );
        let array = Array::from_npy(&file).unwrap();
        assert_eq!(array.shape, [2, 3]);
        assert_eq!(array.reals().collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn fortran_order_is_converted() {
        // Column by column: [[0, 1, 2], [3, 4, 5]].
        let file = npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }\n", &[0, 3, 1, 4, 2, 5]);
        assert_eq!(Array::from_npy(&file).unwrap().bytes, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_reason() {
        let dict = |descr: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")
        };
        let cases = [
            (npy(&dict("'>f4'", "(1,)"), &[0; 4]), "big-endian"),
            (npy(&dict("'<c8'", "(1,)"), &[0; 8]), "supported are int8, uint8"),
            (npy(&dict("'|O'", "(1,)"), &[0; 8]), "Python objects"),
            (npy(&dict("[('a', '<i4')]", "(1,)"), &[0; 4]), "structured array"),
            (npy(&dict("'<i4'", "(2,)"), &[0; 4]), "states int32 [2], 8 bytes of data, but has 4"),
            (npy(&dict("'<i4'", "(4294967296, 4294967296, 4294967296)"), &[]), "more than a file can hold"),
            (npy(&dict("'<i4'", "(-1,)"), &[]), "impossible shape"),
            (npy(&dict("'<i4'", "7"), &[]), "not a tuple"),
            (npy("{'descr': '<i4'}", &[]), "fortran_order is missing"),
            (npy(&"(".repeat(9_000), &[]), "structured array"),
            (npy("nonsense", &[]), "not a Python dictionary"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "at most 10000"),
            (b"\x93NUMPY\x09\x00".to_vec(), "format version 9"),
            (b"\x93NUMPY\x01".to_vec(), "ends within its header"),
            (b"PK".to_vec(), "is not an .npy file"),
        ];
        for (file, reason) in cases {
            let error = Array::from_npy(&file).unwrap_err();
            assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(header in ".{0,200}", data: Vec<u8>) {
            let _ = Array::from_npy(&npy(&header, &data));
            let _ = Array::from_npy(&data);
        }

        #[test]
        fn no_dictionary_makes_the_reader_panic(descr in "['<>|=a-z0-9(),]{0,6}", shape in "[(),0-9 -]{0,40}") {
            let header = format!("{{'descr': {descr}, 'fortran_order': True, 'shape': {shape}, }}");
            let _ = Array::from_npy(&npy(&header, &[0; 16]));
        }
    }
}
