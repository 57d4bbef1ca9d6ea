//! Any bytes as a TensorFlow Lite file: to compile it may fail, and nothing else. What comes out must run.
#![no_main]

use dunlin_compiler::{Bounds, Options, compile};
use dunlin_fuzz::{AlignedBytes, run_all};
use dunlin_runtime::Artifact;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bounds = Bounds { arena: 1 << 20, work: 1 << 26 };
    let Ok(compiled) = compile(bytes, &Options { golden: 1, bounds, ..Options::default() }) else { return };
    let file = AlignedBytes::copy_of(&compiled.artifact);
    let artifact = Artifact::parse(file.as_slice()).expect("the compiler writes valid artifacts");
    if let Some(Err(error)) = run_all(artifact) {
        panic!("the compiler made an artifact that does not run: {error}");
    }
});
