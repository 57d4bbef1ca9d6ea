//! Runs the program and makes and reads NumPy files, independently of the program's own code.

#![allow(dead_code, reason = "every test file uses another part")]

pub(crate) mod certificates;
pub(crate) mod disk;
pub(crate) mod fleet;
pub(crate) mod message;
pub(crate) mod mqtt;
pub(crate) mod plane;
pub(crate) mod watcher;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A folder for one test, and the program.
pub(crate) struct Bench {
    folder: TempDir,
}

/// What the program said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Bench { folder: TempDir::new().expect("temporary folder") }
    }

    /// A file in the test's folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).expect("writable");
        self.path(name)
    }

    /// Compiles one of the repository's models and returns the artifact's path.
    pub(crate) fn compiled(&self, model: &str) -> String {
        let artifact = self.path(&format!("{model}.dunlin"));
        dunlin(&["compile", &model_file(&format!("{model}.tflite")), "-o", &artifact]).success();
        artifact
    }
}

/// Runs the program.
pub(crate) fn dunlin(arguments: &[&str]) -> Said {
    let program = Command::new(env!("CARGO_BIN_EXE_dunlin")).args(arguments).output();
    let Output { status, stdout, stderr } = program.expect("the program starts");
    Said {
        code: status.code().expect("no signal"),
        stdout: String::from_utf8(stdout).expect("UTF-8"),
        stderr: String::from_utf8(stderr).expect("UTF-8"),
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    /// Failed with this exit code, with one line on standard error that says all of `parts`.
    #[track_caller]
    pub(crate) fn failure(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(
            self.stderr.starts_with("error: ") && self.stderr.trim_end().lines().count() == 1,
            "{}",
            self.stderr
        );
        for part in parts {
            assert!(self.stderr.contains(part), "{:?} does not say {part:?}", self.stderr);
        }
        self
    }

    /// Standard output as one JSON object.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect(&self.stdout)
    }
}

/// A file of the repository's models folder.
pub(crate) fn model_file(name: &str) -> String {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    models.join(name).to_str().expect("UTF-8").to_owned()
}

/// The names of all models in the repository.
pub(crate) fn models() -> Vec<String> {
    let folder = PathBuf::from(model_file(""));
    let files = std::fs::read_dir(folder).expect("models").map(|entry| entry.expect("entry").path());
    let models = files.filter(|path| path.extension().is_some_and(|extension| extension == "tflite"));
    let mut names: Vec<String> =
        models.map(|path| path.file_stem().expect("name").to_str().expect("UTF-8").to_owned()).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// An array as text describes it: NumPy's type string, the shape as Python writes it, the bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Npy {
    pub(crate) descr: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Npy {
    pub(crate) fn new(descr: &str, shape: &[usize], bytes: Vec<u8>) -> Self {
        Npy { descr: descr.to_owned(), shape: shape.to_vec(), bytes }
    }

    pub(crate) fn f32(shape: &[usize], values: &[f32]) -> Self {
        Npy::new("<f4", shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// The values of a float32 array; nothing for another one.
    pub(crate) fn f32s(&self) -> Vec<f32> {
        let elements = if self.descr == "<f4" { self.bytes.as_slice() } else { &[] };
        elements.as_chunks().0.iter().map(|element| f32::from_le_bytes(*element)).collect()
    }

    pub(crate) fn file(&self) -> Vec<u8> {
        let dims: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let comma = if dims.len() == 1 { "," } else { "" };
        let header = format!(
            "{{'descr': '{}', 'fortran_order': False, 'shape': ({}{comma}), }}\n",
            self.descr,
            dims.join(", ")
        );
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(&self.bytes);
        file
    }

    pub(crate) fn parse(file: &[u8]) -> Self {
        let len = usize::from(u16::from_le_bytes([file[8], file[9]]));
        let header = std::str::from_utf8(&file[10..10 + len]).expect("text");
        let between = |from: &str, to: &str| {
            let rest = &header[header.find(from).expect(from) + from.len()..];
            rest[..rest.find(to).expect(to)].to_owned()
        };
        let dims = between("'shape': (", ")");
        let shape = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty());
        Npy {
            descr: between("'descr': '", "'"),
            shape: shape.map(|dim| dim.parse().expect("number")).collect(),
            bytes: file[10 + len..].to_vec(),
        }
    }

    pub(crate) fn read(path: &str) -> Self {
        Npy::parse(&std::fs::read(path).expect(path))
    }

    /// The same elements in another shape.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Self {
        Npy { shape: shape.to_vec(), ..self.clone() }
    }
}

/// The arrays of an archive by name, in the file's order.
pub(crate) fn read_npz(path: &str) -> Vec<(String, Npy)> {
    let file = std::fs::File::open(path).expect(path);
    let mut archive = zip::ZipArchive::new(file).expect("zip");
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("entry");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("entry");
        let name = String::from_utf8(entry.name_raw().to_vec()).expect("UTF-8");
        arrays.push((name.strip_suffix(".npy").expect("npy").to_owned(), Npy::parse(&bytes)));
    }
    arrays
}

/// Writes an archive.
pub(crate) fn write_npz(path: &str, arrays: &[(&str, Npy)]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).expect(path));
    for (name, array) in arrays {
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("entry");
        std::io::Write::write_all(&mut archive, &array.file()).expect("entry");
    }
    archive.finish().expect("zip");
}

/// One array of an archive.
pub(crate) fn array(path: &str, name: &str) -> Npy {
    read_npz(path).into_iter().find(|(found, _)| found == name).expect(name).1
}
