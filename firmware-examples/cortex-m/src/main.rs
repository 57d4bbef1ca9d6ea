//! Runs one model on a bare Cortex-M and compares its outputs with the golden vectors of its artifact.
#![no_std]
#![no_main]

mod board;

use core::hint::black_box;

use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    let a: [i8; 256] = core::array::from_fn(|i| (i * 7 % 251) as i8);
    let b: [i8; 256] = core::array::from_fn(|i| (i * 13 % 241) as i8);
    let dot = |a: &[i8], b: &[i8]| a.iter().zip(b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum::<i32>();
    let first = board::counted(|| dot(black_box(&a), &b));
    let second = board::counted(|| dot(black_box(&a), &b));
    line!("stack", board::stack_high_water());
    line!("sum", first as u32);
    board::exit(first == second)
}
