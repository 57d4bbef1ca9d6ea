//! What a real product takes from its board support: text output, an exit, the stack's high-water mark, and markers
//! around the code to count. It is made for an emulator or a debug probe with semihosting.
//!
//! Numbers are printed without `core::fmt`, so that the image's size is the model's and the runtime's, not the
//! formatter's.
#![allow(unsafe_code, reason = "memory and symbols of the machine; each block says why it is sound")]

use core::fmt::Display;
#[cfg(feature = "explain")]
use core::fmt::Write as _;
use core::panic::PanicInfo;

use cortex_m_rt::exception;
use cortex_m_semihosting::{debug, hio};

/// One word of a line of output.
pub enum Word<'a> {
    /// Text.
    Text(&'a str),
    /// A decimal number.
    Number(u32),
}

impl<'a> From<&'a str> for Word<'a> {
    fn from(text: &'a str) -> Self {
        Word::Text(text)
    }
}

impl From<u32> for Word<'_> {
    fn from(number: u32) -> Self {
        Word::Number(number)
    }
}

impl From<usize> for Word<'_> {
    fn from(number: usize) -> Self {
        Word::Number(number as u32) // usize has 32 bits on these targets
    }
}

/// Prints a line of words with a space between them.
pub fn print(words: &[Word]) {
    let Ok(mut host) = hio::hstdout() else { return };
    for (i, word) in words.iter().enumerate() {
        if i > 0 {
            let _ = host.write_all(b" ");
        }
        let _ = match word {
            Word::Text(text) => host.write_all(text.as_bytes()),
            Word::Number(number) => host.write_all(decimal(*number, &mut [0; 10])),
        };
    }
    let _ = host.write_all(b"\n");
}

/// The decimal digits of a number; ten are enough for 32 bits.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut first = digits.len();
    for (i, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        first = i;
        if number == 0 {
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

/// Prints a line of words, each of them a string literal or an unsigned number.
#[macro_export]
macro_rules! line {
    ($($word:expr),+) => { $crate::board::print(&[$($word.into()),+]) };
}

/// Prints an error. Formatting takes several kilobytes of flash, hence the feature.
#[cfg(feature = "explain")]
pub fn print_error(error: impl Display) {
    if let Ok(mut host) = hio::hstdout() {
        let _ = writeln!(host, "failed: {error}");
    }
}

/// Prints that there was an error.
#[cfg(not(feature = "explain"))]
pub fn print_error(_: impl Display) {
    line!("failed: the feature `explain` gives the reason");
}

/// Ends the program; the emulator's exit code is 0 for success and 1 for failure.
pub fn exit(success: bool) -> ! {
    loop {
        debug::exit(if success { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    match info.location() {
        Some(place) => line!("panic at", place.file(), place.line()),
        None => line!("panic"),
    }
    exit(false)
}

/// Wrong memory accesses end here; the emulator would otherwise hang.
#[exception]
unsafe fn HardFault(_: &cortex_m_rt::ExceptionFrame) -> ! {
    line!("hard fault");
    exit(false)
}

/// How many bytes of stack have been in use at most since the start, counted from its top.
pub fn stack_high_water() -> usize {
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    let (lowest, top) = (&raw const _stack_end, &raw const _stack_start);
    let mut word = lowest;
    // SAFETY: the linker script makes both symbols aligned bounds of RAM that only the stack uses. The start-up code
    // painted it all; volatile, because the compiler does not know of that.
    while word < top && unsafe { word.read_volatile() } == cortex_m_rt::STACK_PAINT_VALUE {
        word = word.wrapping_add(1);
    }
    top as usize - word as usize
}

// In assembly, because two identical empty functions would be merged into one.
core::arch::global_asm!(
    ".pushsection .text.dunlin_region, \"ax\", %progbits",
    ".thumb",
    ".global dunlin_region_begin",
    ".type dunlin_region_begin, %function",
    ".thumb_func",
    "dunlin_region_begin: bx lr",
    ".size dunlin_region_begin, . - dunlin_region_begin",
    ".global dunlin_region_end",
    ".type dunlin_region_end, %function",
    ".thumb_func",
    "dunlin_region_end: bx lr",
    ".size dunlin_region_end, . - dunlin_region_end",
    ".popsection",
);

/// Runs `work` between two markers, between which the emulator's plugin counts instructions.
pub fn counted<R>(work: impl FnOnce() -> R) -> R {
    unsafe extern "C" {
        safe fn dunlin_region_begin();
        safe fn dunlin_region_end();
    }
    dunlin_region_begin();
    let result = work();
    dunlin_region_end();
    result
}
