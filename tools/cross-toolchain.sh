#!/usr/bin/env bash
# Makes the active stable Rust able to compile for bare-metal Cortex-M. Idempotent: a second run takes under a second.
#
# For each target that does not work yet:
#   1. `rustup target add`, with a short time limit, so that a machine without access to it is not held up;
#   2. otherwise core and alloc are built from the library sources of exactly that release, which lie beside this
#      script, and put where rustup would put them: <sysroot>/lib/rustlib/<target>/lib.
# Afterwards plain `cargo build --target <target>` works on the stable tool chain.
#
# usage: cross-toolchain.sh [TARGET...]
#
# Settings (environment)
#   WORK            scratch folder                                    (default: ../target/cross-toolchain)
#   JOBS            cargo -j                                          (default: nproc)
#   RUSTUP_SECONDS  time limit of one `rustup target add`; 0 = never  (default: 60)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$here/../target/cross-toolchain}
JOBS=${JOBS:-$(nproc)}
RUSTUP_SECONDS=${RUSTUP_SECONDS:-60}
TARGETS=${*:-thumbv6m-none-eabi thumbv7em-none-eabihf thumbv8m.main-none-eabihf}

start=$SECONDS
say() { echo "[cross +$((SECONDS - start))s] $*"; }
fail() { echo "cross-toolchain: $*" >&2; exit 1; }

rustc=$(rustup which rustc 2>/dev/null || command -v rustc) || fail "no rustc: install Rust first"
cargo=$(dirname "$rustc")/cargo
sysroot=$("$rustc" --print sysroot)
version=$("$rustc" --version | awk '{print $2}')
archive=$here/rust-library-$version.tar.xz
mkdir -p "$WORK"
WORK=$(cd "$WORK" && pwd) # normalized: cargo takes a `..` in the library's path for another workspace

# Compiling is the only proof: it also sees a library that was built by another compiler.
works() {
  echo '#![no_std]
  pub fn probe(x: &[u8]) -> Option<u8> { x.first().copied() }' |
    "$rustc" --target "$1" --crate-type rlib --crate-name probe -o "$WORK/probe-$1.rlib" - >/dev/null 2>&1
}

missing=()
for target in $TARGETS; do works "$target" || missing+=("$target"); done

# 1. rustup
unsolved=()
for target in ${missing[@]+"${missing[@]}"}; do
  log=$WORK/rustup-$target.log
  rm -f "$log"
  if [ "$RUSTUP_SECONDS" != 0 ] && command -v rustup >/dev/null &&
    timeout "$RUSTUP_SECONDS" rustup target add "$target" >"$log" 2>&1 && works "$target"; then
    say "$target: installed by rustup"
  else
    [ ! -s "$log" ] || say "$target: rustup could not: $(tail -n 1 "$log")"
    unsolved+=("$target")
  fi
done

# 2. from source
if [ ${#unsolved[@]} != 0 ]; then
  [ -f "$archive" ] || fail "rustup cannot install ${unsolved[*]}, and there is no $archive to build them from"
  [ -w "$sysroot/lib/rustlib" ] || fail "rustup cannot install ${unsolved[*]}, and $sysroot is not writable"
  library=$WORK/library-$version/library
  if [ ! -f "$library/.complete" ]; then
    say "unpacking $(basename "$archive")"
    (cd "$here" && sha256sum --check --quiet rust-library.sha256)
    rm -rf "$WORK/library-$version"
    mkdir -p "$WORK/library-$version"
    tar -C "$WORK/library-$version" -xf "$archive"
    touch "$library/.complete"
  fi

  say "building core and alloc for ${unsolved[*]}"
  build=$WORK/build
  rm -rf "$build"
  mkdir -p "$build/src"
  echo '#![no_std]' >"$build/src/lib.rs"
  # No panic = "abort" here: the library must serve profiles with either strategy.
  cat >"$build/Cargo.toml" <<'TOML'
[package]
name = "sysroot"
version = "0.0.0"
edition = "2024"
[profile.release]
opt-level = 3
codegen-units = 1
[workspace]
TOML
  args=()
  for target in "${unsolved[@]}"; do args+=(--target "$target"); done
  # -Zbuild-std is unstable, hence RUSTC_BOOTSTRAP; bitcode makes `lto = "fat"` possible later.
  (cd "$build" &&
    env -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET -u CARGO_TARGET_DIR -u CARGO -u RUSTC_WRAPPER \
      RUSTC="$rustc" RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$library" CARGO_HOME="$WORK/cargo-home" \
      RUSTFLAGS=-Cembed-bitcode=yes \
      "$cargo" build --quiet -j"$JOBS" --offline --release -Zbuild-std=core,alloc,panic_abort "${args[@]}" \
      --config 'source.crates-io.replace-with="vendored"' \
      --config "source.vendored.directory=\"$library/vendor\"")
  for target in "${unsolved[@]}"; do
    folder=$sysroot/lib/rustlib/$target
    rm -rf "$folder" "$folder.new"
    mkdir -p "$folder.new/lib"
    for rlib in "$build/target/$target/release/deps"/lib*.rlib; do
      case $rlib in */libsysroot-*) ;; *) cp "$rlib" "$folder.new/lib/" ;; esac
    done
    mv "$folder.new" "$folder"
    works "$target" || fail "$target was built but does not work"
    say "$target: built from source"
  done
  rm -rf "$build"
fi
say "ready: rustc $version, $TARGETS"
