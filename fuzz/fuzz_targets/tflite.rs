//! Any bytes as a TensorFlow Lite file: to compile it may fail, and nothing else. What comes out must run.
#![no_main]

use dunlin_compiler::{AlignedBytes, Bounds, Options, compile};
use dunlin_fuzz::run_all;
use dunlin_runtime::Artifact;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Tighter than usual, so that a model of an hour's work is refused soon.
    let bounds = Bounds { arena: 1 << 20, work: 1 << 24 };
    let Ok(compiled) = compile(bytes, &Options { golden: 1, bounds, ..Options::default() }) else { return };
    let file = AlignedBytes::new(&compiled.artifact);
    let artifact = Artifact::parse(file.as_slice()).expect("the compiler writes valid artifacts");
    match run_all(artifact) {
        None | Some(Ok(Ok(_))) => {}
        Some(Ok(Err(mismatch))) => panic!("the golden vectors are wrong: {mismatch:?}"),
        Some(Err(error)) => panic!("the artifact does not run: {error}"),
    }
});
