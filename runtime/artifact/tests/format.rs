//! The reader gives back what the writer wrote, and refuses everything else without a panic.

use dunlin_artifact::baseline::{self, Category, Part, Source};
use dunlin_artifact::writer::{self, Baseline, Contents, Feature, instruction, with_baseline};
use dunlin_artifact::{
    Artifact, DType, Digester, FormatError, Golden, GoldenInput, Kernel, Manifest, Pattern, Place, Tensor,
    arena_len, kernel_set, layout, limits, monitored_counters, monitored_features, op,
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
    contents().write()
}

fn contents() -> Contents<'static> {
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
        baseline: Some(sample_baseline()),
        arena_len: 24,
        state_len: 8,
        work: 1000,
    }
}

/// One feature of every kind.
fn sample_baseline() -> Baseline {
    let feature =
        |name: &str, source, part, bins| Feature { name: name.into(), source, part, bins, missing: 3 };
    let numeric = writer::Bins::Numeric {
        edges: vec![-1.0, 0.0, 2.5],
        counts: vec![1, 2, 3, 400_000],
        min: -7.5,
        max: 63.5,
        unit: 0.5,
        zero: 1.0,
        sum: -5,
        squares: u128::MAX,
    };
    let mut known = [Category::Text("de"), Category::Integer(-1)].map(|category| category.hash());
    known.sort_unstable();
    let features = vec![
        feature("in", Source::Input(0), Part::Elements { stride: 3 }, numeric),
        feature("class", Source::Output(0), Part::ArgMax, writer::Bins::Classes { counts: (0..8).collect() }),
        feature(
            "country",
            Source::Application,
            Part::Element(0),
            writer::Bins::Categories { known: known.to_vec(), counts: vec![5, 6, 0, 1, 0] },
        ),
    ];
    Baseline { samples: 77, features }
}

#[test]
fn the_digest_is_the_same_in_pieces_of_any_length() {
    let file = Aligned::new(&sample());
    let digest = Artifact::parse(file.bytes()).unwrap().digest();
    for length in 1..=file.bytes().len() {
        let mut digester = Digester::new();
        file.bytes().chunks(length).for_each(|piece| digester.update(piece));
        assert_eq!(digester.finish(), digest, "{length}");
    }
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
    assert_eq!((monitored_features(file.bytes()), monitored_counters(file.bytes())), (3, 17));
}

#[test]
fn gives_back_the_baseline() {
    let file = Aligned::new(&sample());
    let baseline = Artifact::parse(file.bytes()).unwrap().baseline().unwrap();
    assert_eq!((baseline.samples(), baseline.feature_count(), baseline.counter_count()), (77, 3, 17));
    let features: Vec<_> = baseline.features().collect();
    let [input, class, country] = features.as_slice() else { panic!("{features:?}") };
    assert_eq!((input.name, input.source, input.missing), ("in", Source::Input(0), 3));
    assert_eq!((input.part, input.observed()), (Part::Elements { stride: 3 }, 3));
    let baseline::Bins::Numeric(numeric) = input.bins else { panic!("{input:?}") };
    assert_eq!(numeric.edges.iter().collect::<Vec<_>>(), [-1.0, 0.0, 2.5]);
    assert_eq!(numeric.counts.iter().collect::<Vec<_>>(), [1, 2, 3, 400_000]);
    assert_eq!((numeric.min, numeric.max, numeric.unit, numeric.zero), (-7.5, 63.5, 0.5, 1.0));
    assert_eq!((numeric.sum, numeric.squares), (-5, u128::MAX));
    let bins =
        [f32::NEG_INFINITY, -1.0, -0.5, 0.0, -0.0, 0.1, 2.5, 2.6].map(|value| numeric.edges.bin(value));
    assert_eq!(bins, [0, 0, 1, 1, 1, 2, 2, 3]);
    assert_eq!((class.part, class.bins.counts().iter().sum::<u32>()), (Part::ArgMax, 28));
    let baseline::Bins::Categories(categories) = country.bins else { panic!("{country:?}") };
    assert!(country.tensor.is_none());
    let counters = [Category::Text("de"), Category::Integer(-1)].map(|known| categories.counter(known));
    assert!(counters == [0, 1] || counters == [1, 0], "{counters:?}");
    let mut others = [false; 5];
    for other in 0..100 {
        others[categories.counter(Category::Integer(other))] = true;
    }
    assert_eq!(others, [false, false, true, true, true]);
}

/// The hash is part of the format: computed independently, byte by byte.
#[test]
fn hashes_of_categories_never_change() {
    let cases = [
        (Category::Text(""), 0xAB3E_7C0Bu32),
        (Category::Text("de"), 0x79DB_449B),
        (Category::Integer(-1), 0x1FBC_A3D7),
    ];
    for (category, hash) in cases {
        assert_eq!(category.hash(), hash, "{category:?}: {:#x}", category.hash());
    }
}

#[test]
fn a_baseline_is_put_into_a_finished_artifact() {
    let bare = Contents { baseline: None, ..contents() }.write();
    let file = Aligned::new(&bare);
    let artifact = Artifact::parse(file.bytes()).unwrap();
    assert!(artifact.baseline().is_none());
    assert_eq!((monitored_features(file.bytes()), monitored_counters(file.bytes())), (0, 0));
    let calibrated = with_baseline(&artifact, &sample_baseline());
    assert_eq!(calibrated, sample());
    // Another one takes its place.
    let file = Aligned::new(&calibrated);
    let again = with_baseline(&Artifact::parse(file.bytes()).unwrap(), &Baseline::default());
    let file = Aligned::new(&again);
    let artifact = Artifact::parse(file.bytes()).unwrap();
    assert_eq!((artifact.verify_digest(), artifact.baseline().unwrap().feature_count()), (Ok(()), 0));
    let unmonitored = Artifact::parse_unmonitored(file.bytes()).unwrap();
    assert!(unmonitored.baseline().is_none() && unmonitored.golden().count() == artifact.golden().count());
    assert_eq!(artifact.sections().count(), 7);
}

/// Readers from before the section skip it, as this one skips a number that it does not know.
#[test]
fn unknown_sections_are_skipped() {
    let mut bytes = sample();
    let table = layout::header::SIZE..layout::header::SIZE + 7 * layout::section::ENTRY;
    let entry = bytes[table].chunks(layout::section::ENTRY).position(|entry| entry[0] == 7).unwrap();
    bytes[layout::header::SIZE + entry * layout::section::ENTRY] = 200;
    let file = Aligned::new(&bytes);
    let artifact = Artifact::parse(file.bytes()).unwrap();
    assert!(artifact.baseline().is_none() && artifact.golden().count() == 2);
}

#[test]
fn malformed_baselines_are_refused() {
    let refused = |change: &dyn Fn(&mut Baseline)| {
        let mut baseline = sample_baseline();
        change(&mut baseline);
        let file = Aligned::new(&Contents { baseline: Some(baseline), ..contents() }.write());
        Artifact::parse(file.bytes()).map(|_| ()).unwrap_err()
    };
    let numeric = |edges: &[f32], counts: usize, unit: f32| writer::Bins::Numeric {
        edges: edges.to_vec(),
        counts: vec![0; counts],
        min: 0.0,
        max: 0.0,
        unit,
        zero: 0.0,
        sum: 0,
        squares: 0,
    };
    let at = |feature: u16| FormatError::Baseline { feature };
    let many: Vec<f32> = (0..64).map(|edge| edge as f32).collect();
    for bins in [
        numeric(&[], 1, 1.0),
        numeric(&[1.0, 1.0], 3, 1.0),
        numeric(&[f32::NAN], 2, 1.0),
        numeric(&[1.0], 1, 1.0),
        numeric(&[1.0], 2, 0.0),
        numeric(&[1.0], 2, f32::INFINITY),
        numeric(&many, 65, 1.0),
        writer::Bins::Classes { counts: vec![0; 8] },
        writer::Bins::Categories { known: vec![2, 1], counts: vec![0; 3] },
        writer::Bins::Categories { known: vec![1, 2], counts: vec![0; 2] },
    ] {
        assert_eq!(refused(&|baseline| baseline.features[0].bins = bins.clone()), at(0), "{bins:?}");
    }
    let parts = [Part::Elements { stride: 0 }, Part::Element(8), Part::ArgMax];
    for part in parts {
        assert_eq!(refused(&|baseline| baseline.features[0].part = part), at(0), "{part:?}");
    }
    assert_eq!(refused(&|baseline| baseline.features[1].source = Source::Output(1)), at(1));
    assert_eq!(
        refused(&|baseline| baseline.features[1].bins = writer::Bins::Classes { counts: vec![0; 7] }),
        at(1)
    );
    assert_eq!(refused(&|baseline| baseline.features[2].part = Part::Max), at(2));
    assert_eq!(refused(&|baseline| baseline.features[2].name = "x".repeat(129)), at(2));
    let feature = sample_baseline().features[0].clone();
    let many = vec![feature; limits::MAX_FEATURES + 1];
    assert_eq!(refused(&|baseline| baseline.features = many.clone()), FormatError::Limit);
    let counts = vec![0; limits::MAX_COUNTERS];
    let wide = writer::Bins::Categories { known: vec![], counts };
    assert_eq!(refused(&|baseline| baseline.features[2].bins = wide.clone()), FormatError::Limit);
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
        baseline: None,
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
    let _ = (monitored_features(artifact.bytes()), monitored_counters(artifact.bytes()));
    let Some(baseline) = artifact.baseline() else { return };
    assert_eq!(baseline.features().count(), baseline.feature_count());
    assert_eq!(monitored_features(artifact.bytes()), baseline.feature_count());
    for feature in baseline.features() {
        let counter = match feature.bins {
            baseline::Bins::Numeric(numeric) => numeric.edges.bin(0.5),
            baseline::Bins::Classes(_) => 0,
            baseline::Bins::Categories(categories) => categories.counter(Category::Integer(5)),
        };
        assert!(counter < feature.bins.counters());
    }
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
