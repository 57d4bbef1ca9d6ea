//! The reader gives back what the writer wrote, and refuses everything else without a panic.

use dunlin_artifact::writer::{Contents, instruction};
use dunlin_artifact::{
    Artifact, DType, FormatError, Golden, GoldenInput, Kernel, Manifest, Pattern, Place, Tensor, arena_len,
    kernel_set, op,
};
use proptest::prelude::*;

/// Bytes at a multiple of 16.
struct Aligned(Vec<u128>, usize);

impl Aligned {
    fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0u128; bytes.len().div_ceil(16)];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(16)) {
            let mut le = [0; 16];
            le[..chunk.len()].copy_from_slice(chunk);
            *word = u128::from_ne_bytes(le);
        }
        Aligned(words, bytes.len())
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }
}

fn sample() -> Vec<u8> {
    let tensor = |shape: &[u32], place| Tensor::new(DType::I8, shape, place, 0.5, -3).unwrap();
    Contents {
        manifest: Manifest {
            name: "sample",
            producer: "test",
            target: "generic",
            source_format: "none",
            source_digest: [7; 32],
            macs: 42,
            arena_bound: 24,
            io_names: "in\nout",
        },
        tensors: vec![
            tensor(&[2, 4], Place::Arena(8)),
            tensor(&[8], Place::Arena(16)),
            tensor(&[256], Place::Data(0)),
            tensor(&[8], Place::Arena(0)),
        ],
        program: vec![instruction(Kernel::Lut8, &op::Lut8 { input: 0, output: 1, table: 2 })],
        data: (0..=255).collect(),
        inputs: vec![0],
        outputs: vec![1],
        states: vec![(3, Err(9))],
        golden: vec![
            Golden { input: GoldenInput::Pattern(Pattern::Lcg(5)), steps: 2, outputs: &[1; 16] },
            Golden { input: GoldenInput::Stored(&[3; 16]), steps: 2, outputs: &[2; 16] },
        ],
        arena_len: 24,
        state_len: 8,
        work: 1000,
    }
    .write()
}

#[test]
fn gives_back_what_was_written() {
    let file = Aligned::new(&sample());
    let artifact = Artifact::parse(file.bytes()).unwrap();
    assert_eq!(artifact.verify_digest(), Ok(()));
    assert_eq!(artifact.manifest().unwrap().name, "sample");
    assert_eq!((artifact.arena_len(), artifact.state_len(), artifact.work()), (24, 8, 1000));
    assert_eq!(artifact.kernels(), Kernel::Lut8.bit());
    let input = artifact.inputs().next().unwrap();
    assert_eq!((input.shape(), input.scale, input.zero_point), (&[2, 4][..], 0.5, -3));
    let table = artifact.tensor(2).unwrap();
    assert_eq!(artifact.constant(&table), (0..=255).collect::<Vec<u8>>());
    let golden: Vec<_> = artifact.golden().collect();
    assert_eq!(golden[0].input, GoldenInput::Pattern(Pattern::Lcg(5)));
    assert_eq!(golden[1].outputs, [2; 16]);
    assert_eq!(artifact.states().next().unwrap().from.unwrap_err(), 9);
    let instruction = artifact.program().next().unwrap();
    assert_eq!(instruction.kernel, Kernel::Lut8 as u8);
    // What `model!` reads at compile time.
    assert_eq!((kernel_set(file.bytes()), arena_len(file.bytes())), (Kernel::Lut8.bit(), 24));
}

#[test]
fn data_is_aligned_and_trailing_bytes_are_ignored() {
    let mut bytes = sample();
    bytes.extend([0xAA; 100]);
    let file = Aligned::new(&bytes);
    let artifact = Artifact::parse(file.bytes()).unwrap();
    assert_eq!(artifact.verify_digest(), Ok(()));
    let table = artifact.constant(&artifact.tensor(2).unwrap());
    assert_eq!(table.as_ptr().addr() % 16, 0);
}

#[test]
fn refuses_a_misaligned_buffer() {
    let mut bytes = vec![0];
    bytes.extend(sample());
    let file = Aligned::new(&bytes);
    assert_eq!(Artifact::parse(&file.bytes()[1..]).unwrap_err(), FormatError::Misaligned);
}

#[test]
fn refuses_every_truncation() {
    let file = Aligned::new(&sample());
    for len in 0..file.bytes().len() {
        assert!(Artifact::parse(&file.bytes()[..len]).is_err(), "a prefix of {len} bytes was accepted");
    }
}

#[test]
fn the_digest_notices_every_changed_byte() {
    let bytes = sample();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let file = Aligned::new(&changed);
        let noticed = Artifact::parse(file.bytes()).is_err_and(|_| true)
            || Artifact::parse(file.bytes()).unwrap().verify_digest() == Err(FormatError::Digest);
        assert!(noticed, "byte {at} can be changed unnoticed");
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let bytes = sample();
    let refused = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let file = Aligned::new(&bytes);
        Artifact::parse(file.bytes()).unwrap_err()
    };
    assert_eq!(refused(0, b"ELF!"), FormatError::NotAnArtifact);
    assert_eq!(refused(4, &[9, 0]), FormatError::Version { found: 9 });
    assert_eq!(refused(8, &[0, 1, 0, 0]), FormatError::Features { unknown: 256 });
    assert_eq!(refused(16, &[0; 16]), FormatError::Program { offset: 0 });
    assert_eq!(refused(32, &[8, 0, 0, 0]), FormatError::Tensor { index: 0 });
}

#[test]
fn golden_vectors_without_output_are_refused() {
    let empty = Tensor::new(DType::I8, &[0], Place::Arena(0), 0.0, 0).unwrap();
    let manifest = Manifest {
        name: "",
        producer: "",
        target: "",
        source_format: "",
        source_digest: [0; 32],
        macs: 0,
        arena_bound: 0,
        io_names: "",
    };
    let golden = Golden { input: GoldenInput::Pattern(Pattern::Zeros), steps: u16::MAX, outputs: &[] };
    let bytes = Contents {
        manifest,
        tensors: vec![empty],
        program: vec![],
        data: vec![],
        inputs: vec![],
        outputs: vec![0],
        states: vec![],
        golden: vec![golden],
        arena_len: 0,
        state_len: 0,
        work: 0,
    }
    .write();
    let file = Aligned::new(&bytes);
    assert_eq!(Artifact::parse(file.bytes()).unwrap_err(), FormatError::Golden);
}

/// Touches everything that a reader can touch.
fn exercise(artifact: &Artifact<'_>) {
    let _ = (artifact.manifest(), artifact.verify_digest(), artifact.io_len());
    for id in 0..artifact.tensor_count() as u16 {
        let tensor = artifact.tensor(id).unwrap();
        let _ = artifact.constant(&tensor);
    }
    let _ = (artifact.program().count(), artifact.golden().count(), artifact.states().count());
}

proptest! {
    #[test]
    fn damaged_files_are_refused_or_read_without_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)
    ) {
        let mut bytes = sample();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let file = Aligned::new(&bytes);
        if let Ok(artifact) = Artifact::parse(file.bytes()) {
            exercise(&artifact);
        }
    }
}
