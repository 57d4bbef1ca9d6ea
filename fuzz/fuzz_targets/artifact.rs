//! Any bytes as an artifact: to read it, run it and check its golden vectors may fail, and nothing else.
#![no_main]

use dunlin_compiler::AlignedBytes;
use dunlin_fuzz::{read_all, run_all};
use dunlin_runtime::Artifact;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = AlignedBytes::new(bytes);
    let Ok(artifact) = Artifact::parse(file.as_slice()) else { return };
    read_all(&artifact);
    run_all(artifact);
});
