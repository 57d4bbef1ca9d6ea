//! Runs one model on a bare Cortex-M, proves its outputs by the artifact's golden vectors, and prints what it took.
//!
//! The artifact is named by the environment variable `DUNLIN_ARTIFACT` when this is built.
#![no_std]
#![no_main]

mod board;

use cortex_m_rt::entry;
use dunlin_runtime::artifact::Pattern;
use dunlin_runtime::{RunError, verify_golden};

dunlin_runtime::model!(
    model,
    env!("DUNLIN_ARTIFACT", "name a file made by `dunlin compile` in DUNLIN_ARTIFACT")
);

#[entry]
fn main() -> ! {
    static mut ARENA: model::Arena = model::Arena::new();
    let success = match check(ARENA) {
        Ok(success) => success,
        Err(error) => {
            board::print_error(error);
            false
        }
    };
    board::exit(success)
}

/// Counts and measures one inference, then compares all golden vectors; false when one differs.
fn check(arena: &mut model::Arena) -> Result<bool, RunError> {
    line!("arena", size_of::<model::Arena>());
    let mut session = board::counted(|| model::session(arena))?;
    let mut noise = Pattern::Lcg(1);
    for (index, input) in session.artifact().inputs().enumerate() {
        noise.fill(input.dtype, session.input_bytes_mut(index)?);
    }
    board::counted(|| session.run())?;
    line!("stack", board::stack_high_water());

    match verify_golden(&mut session)? {
        Ok(vectors) => line!("equal", vectors),
        Err(m) => {
            line!("vector", m.vector, "step", m.step, "output", m.output, "element", m.element);
            line!("expected bits", m.expected as u32, "actual bits", m.actual as u32);
            return Ok(false);
        }
    }
    Ok(true)
}
