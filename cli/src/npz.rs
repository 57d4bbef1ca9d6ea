//! NumPy archives: reading and writing `.npz`, a zip file with one `.npy` file per array.

use std::io::{Cursor, Read as _, Write as _};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::array::Array;

/// Most arrays in an archive.
const MAX_ARRAYS: usize = 4_096;
/// Most bytes that all arrays of an archive may unpack to. Deflate can shrink a thousandfold, so the size of the
/// file does not bound them well enough.
const MAX_UNPACKED: u64 = 4 << 30;

/// Whether a file with these first bytes is a zip file.
pub(crate) fn is_npz(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// Reads all arrays with their names, in the order of the file. The error continues the sentence that begins
/// with the file's name.
pub(crate) fn read(file: &[u8]) -> Result<Vec<(String, Array)>, String> {
    let damaged = |error: &dyn std::fmt::Display| format!("is not a readable .npz file: {error}");
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(|error| damaged(&error))?;
    if archive.len() > MAX_ARRAYS {
        return Err(format!("holds {} arrays; at most {MAX_ARRAYS} are read", archive.len()));
    }
    let mut arrays = Vec::new();
    let mut room = MAX_UNPACKED;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        // The buffer grows with what is really unpacked, whatever size the entry states.
        let mut bytes = Vec::new();
        entry.take(room + 1).read_to_end(&mut bytes).map_err(|error| format!("array {name}: {error}"))?;
        room = room
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| format!("unpacks to more than {MAX_UNPACKED} bytes, the most that are read"))?;
        let array = Array::from_npy(&bytes).map_err(|error| format!("array {name} {error}"))?;
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// Writes arrays under their names, compressed.
pub(crate) fn write(arrays: &[(String, Array)]) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot be packed: {error}");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        let bytes = array.to_npy();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .large_file(bytes.len() > u32::MAX as usize / 2);
        writer.start_file(format!("{name}.npy"), options).map_err(|error| failed(&error))?;
        writer.write_all(&bytes).map_err(|error| failed(&error))?;
    }
    Ok(writer.finish().map_err(|error| failed(&error))?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Element;
    use dunlin_artifact::DType;

    #[test]
    fn names_order_and_contents_survive_a_round_trip() {
        let array = |n: usize| Array::new(Element::Tensor(DType::I8), vec![n], vec![7; n]);
        let arrays =
            [("StatefulPartitionedCall:0".to_owned(), array(3)), ("a/b c".to_owned(), array(10_000))];
        let file = write(&arrays).unwrap();
        assert!(is_npz(&file) && file.len() < 1_000, "compressed");
        assert_eq!(read(&file).unwrap(), arrays);
    }

    #[test]
    fn damage_is_an_error() {
        let file = write(&[("x".to_owned(), Array::new(Element::Float64, vec![2], vec![1; 16]))]).unwrap();
        for len in 0..file.len() {
            assert!(read(&file[..len]).is_err());
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x41;
            let _ = read(&damaged);
        }
    }
}
