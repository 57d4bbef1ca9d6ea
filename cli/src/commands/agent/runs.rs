//! One model after another, as the slot holds them.

use std::time::Duration;

use dunlin_agent::{Agent, Mark, Models};

use super::signals::Signals;
use super::task::{End, Pace, Task};
use super::{Args, tell};
use crate::error::Failure;
use crate::model::ModelFile;

/// How often it is looked for signals while there is no model.
const IDLE: Duration = Duration::from_millis(100);

/// Runs what the slot holds until there is no more to do; the digest of what ran last.
pub(super) fn run(
    args: &Args,
    agent: &Agent,
    models: &mut Models,
    signals: &Signals,
    json: bool,
) -> Result<Option<[u8; 32]>, Failure> {
    let mut pace = Pace::new();
    let mut last = None;
    let mut is_waiting = false;
    loop {
        let Some(slot) = models.current() else {
            if !json && !is_waiting {
                tell("there is no model yet: waiting for an assignment");
            }
            is_waiting = true;
            while !models.wait(IDLE) {
                if signals.came() {
                    return Ok(last);
                }
            }
            continue;
        };
        let digest: String = slot.model().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let file = ModelFile::new(format!("the model {digest}").as_ref(), slot.artifact());
        let model = file.parse()?;
        let mut arena = model.arena();
        let mut task = match Task::new(args, &model, &mut arena) {
            Ok(task) => task,
            Err(failure) => {
                if !json {
                    tell(&format!("model {digest} cannot be run here: {}", failure.message()));
                }
                models.failed(&slot, failure.message());
                if !models.has_changed() {
                    return Err(failure);
                }
                continue;
            }
        };
        if !json && (is_waiting || last.is_some()) {
            tell(&format!("model {digest} runs"));
        }
        is_waiting = false;
        last = Some(slot.model());
        slot.mark(Mark::Arena, model.artifact.arena_len());
        match task.infer(args, agent, &slot, || models.has_changed(), &mut pace, signals) {
            End::Stop => return Ok(last),
            End::Changed => {}
        }
    }
}
