//! From an assignment to what a slot should hold.

use dunlin_protocol::{DesiredSlot, List, Pair};
use dunlin_trust::{Refused, Time, Trust, Verifier};

use super::{Model, Target, Trial};

/// The slot's setting for [`Trial::windows`].
pub const TRIAL_WINDOWS: &str = "trial.windows";
/// The slot's setting for [`Trial::failures_permille`].
pub const TRIAL_FAILURES: &str = "trial.max_failures_permille";
/// The slot's setting for [`Trial::boots`].
pub const TRIAL_BOOTS: &str = "trial.boots";

/// What an assignment that is believed says about a slot, if those with release keys say the same. The caller stores
/// `trust` before it passes the target on: a floor may have risen.
///
/// # Errors
/// [`Refused`], see [`Trust::release`]; the slot stays as it is. An empty slot needs nobody's release.
pub fn target(
    trust: &mut Trust,
    slot: &DesiredSlot<'_>,
    hardware: &str,
    now: Time,
    verifier: &impl Verifier,
) -> Result<Target, Refused> {
    if slot.model == [0; 32] {
        return Ok(Target { model: Model::default(), trial: Trial::default() });
    }
    trust.release(slot, hardware, now, verifier)?;
    let model = Model { digest: slot.model, size: slot.size, version: slot.version };
    Ok(Target { model, trial: Trial::from_settings(&slot.settings) })
}

impl Trial {
    /// As the slot's settings say; what they do not say, or what is no such number, is the default.
    pub fn from_settings<'a>(settings: &List<'a, Pair<'a>>) -> Self {
        let mut trial = Self::default();
        for Pair { key, value } in settings.iter() {
            match key {
                TRIAL_WINDOWS => trial.windows = value.parse().unwrap_or(trial.windows),
                TRIAL_FAILURES => {
                    trial.failures_permille = value.parse().unwrap_or(trial.failures_permille);
                }
                TRIAL_BOOTS => trial.boots = value.parse().unwrap_or(trial.boots),
                _ => {}
            }
        }
        trial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_no_numbers_leave_the_default() {
        let pair = |key, value| Pair { key, value };
        let settings = [
            pair(TRIAL_WINDOWS, "7"),
            pair(TRIAL_FAILURES, "-1"),
            pair(TRIAL_BOOTS, "256"),
            pair("gain", "2"),
        ];
        let trial = Trial::from_settings(&List::from(settings.as_slice()));
        assert_eq!(trial, Trial { windows: 7, ..Trial::default() });
        let settings = [pair(TRIAL_FAILURES, "25"), pair(TRIAL_BOOTS, "1")];
        let trial = Trial::from_settings(&List::from(settings.as_slice()));
        assert_eq!(trial, Trial { failures_permille: 25, boots: 1, ..Trial::default() });
    }
}
