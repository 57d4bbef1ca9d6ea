//! Places the memory map of the chosen board where the linker finds it.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    memory_map(&out);
}

/// `DUNLIN_BOARD` names a file in `memory/`; without it, the emulated board that fits the target.
fn memory_map(out: &Path) {
    println!("cargo::rerun-if-env-changed=DUNLIN_BOARD");
    println!("cargo::rerun-if-changed=memory");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let board = env::var("DUNLIN_BOARD").unwrap_or_else(|_| {
        let fitting = if target.starts_with("thumbv8m") { "an505" } else { "mps2" };
        fitting.into()
    });
    let source = format!("memory/{board}.x");
    let map = fs::read(&source).unwrap_or_else(|e| panic!("DUNLIN_BOARD={board}: {source}: {e}"));
    fs::write(out.join("memory.x"), map).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
