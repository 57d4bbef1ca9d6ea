//! A gate: whether a rate of failing devices allows a rollout to go on.

use serde::{Deserialize, Serialize};

use crate::bets::{Bets, Side};
use crate::interval::{Interval, mean_interval, rate_interval};

/// What the rate is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// A rate that is known, between 0 and 1.
    Limit(f64),
    /// Devices that keep the old version at the same time, chosen at random.
    Control,
}

/// A gate on the rate of failing devices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// What the rate is compared with.
    pub against: Against,
    /// By how much it may be higher: promotion needs evidence that it is not.
    pub margin: f64,
    /// The probability of stopping a rollout that is no worse, and of promoting one that is worse by the margin.
    pub alpha: f64,
}

/// Settings that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GateError {
    /// Alpha is no probability that leaves anything open.
    #[error("alpha is {0}; it is between 0 and 1, such as 0.05")]
    Alpha(f64),
    /// The margin is negative, or so large that every rate is within it.
    #[error("the margin is {0}; it is above 0, and limit and margin together are below 1")]
    Margin(f64),
    /// The limit is no rate.
    #[error("the limit is {0}; it is between 0 and 1, such as 0.01")]
    Limit(f64),
}

/// Devices of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Those that have reported.
    pub devices: u64,
    /// Those of them that failed.
    pub failures: u64,
}

/// Devices of both groups, compared in pairs in the order in which they reported. A device without a partner waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    treated: Group,
    control: Group,
    /// Pairs in which only the treated device failed, and only the other one.
    worse: u64,
    better: u64,
    /// The devices without a partner; at most one of the groups has any.
    waiting: Vec<(bool, bool)>,
    pairs: u64,
}

impl Pairs {
    /// A device has reported.
    pub fn report(&mut self, is_treated: bool, has_failed: bool) {
        let group = if is_treated { &mut self.treated } else { &mut self.control };
        group.devices += 1;
        group.failures += u64::from(has_failed);
        match self.waiting.first().copied() {
            Some((waits, partner_failed)) if waits != is_treated => {
                self.waiting.remove(0);
                self.pairs += 1;
                let (treated, control) =
                    if is_treated { (has_failed, partner_failed) } else { (partner_failed, has_failed) };
                self.worse += u64::from(treated && !control);
                self.better += u64::from(control && !treated);
            }
            _ => self.waiting.push((is_treated, has_failed)),
        }
    }

    /// The devices that have the new version.
    pub fn treated(&self) -> Group {
        self.treated
    }

    /// The differences of the pairs, and how often each was seen.
    fn differences(&self) -> [(f64, u64); 3] {
        [(1.0, self.worse), (0.0, self.pairs - self.worse - self.better), (-1.0, self.better)]
    }
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No worse than the margin allows.
    Pass,
    /// Worse.
    Fail,
    /// Not known yet.
    Inconclusive,
    /// There is no data: never a pass.
    Error,
}

/// What a gate says, and why.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// What it says.
    pub verdict: Verdict,
    /// The devices that have the new version.
    pub treated: Group,
    /// The devices that keep the old one, if they are compared with.
    pub control: Option<Group>,
    /// The rate of failures, or how much higher it is than control's.
    pub effect: f64,
    /// Where it lies, at all times together with a probability of 1 - alpha.
    pub interval: Interval,
    /// The e-value of "it is worse".
    pub against: f64,
    /// The e-value of "it is within the margin".
    pub in_favour: f64,
    /// The e-value that decides.
    pub needed: f64,
    /// About how many further devices (pairs of devices) decide, if the rate stays what it is.
    pub devices_needed: Option<u64>,
}

impl Gate {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// [`GateError`] names the setting.
    pub fn check(&self) -> Result<(), GateError> {
        let within = |value: f64| value > 0.0 && value < 1.0;
        if !within(self.alpha) {
            return Err(GateError::Alpha(self.alpha));
        }
        let limit = match self.against {
            Against::Limit(limit) if !within(limit) => return Err(GateError::Limit(limit)),
            Against::Limit(limit) => limit,
            Against::Control => 0.0,
        };
        match within(limit + self.margin) && self.margin > 0.0 {
            true => Ok(()),
            false => Err(GateError::Margin(self.margin)),
        }
    }

    /// Decides about a rate against a limit.
    pub fn rate(&self, limit: f64, treated: Group) -> Decision {
        let good = treated.devices.saturating_sub(treated.failures);
        let values = [(1.0, treated.failures.min(treated.devices)), (0.0, good)];
        let effect = ratio(treated.failures as f64, treated.devices);
        let interval = rate_interval(treated.failures, treated.devices, self.alpha);
        let bounds = (limit, limit + self.margin);
        self.decide(&values, bounds, effect, |decision| Decision { treated, interval, ..decision })
    }

    /// Decides about the devices of both groups.
    pub fn control(&self, pairs: &Pairs) -> Decision {
        let differences = pairs.differences();
        let effect = ratio(pairs.worse as f64 - pairs.better as f64, pairs.pairs);
        let interval = mean_interval(&differences, (-1.0, 1.0), self.alpha);
        // From -1 … 1 to 0 … 1.
        let half = |value: f64| (value + 1.0) / 2.0;
        let values = differences.map(|(value, times)| (half(value), times));
        let (treated, control) = (pairs.treated, Some(pairs.control));
        let bounds = (half(0.0), half(self.margin));
        let decision = self.decide(&values, bounds, half(effect), |decision| decision);
        Decision { treated, control, effect, interval, ..decision }
    }

    /// Decides by what was seen: values between 0 and 1, how often, and the means that are no worse and too bad.
    fn decide(
        &self,
        values: &[(f64, u64)],
        (good, bad): (f64, f64),
        mean: f64,
        complete: impl FnOnce(Decision) -> Decision,
    ) -> Decision {
        let mut against = Bets::new(Side::Above, good);
        let mut in_favour = Bets::new(Side::Below, bad);
        for (value, times) in values {
            against.observe(*value, *times);
            in_favour.observe(*value, *times);
        }
        let needed = 1.0 / self.alpha;
        let seen: u64 = values.iter().map(|(_, times)| times).sum();
        let verdict = match (against.e(), in_favour.e()) {
            _ if seen == 0 => Verdict::Error,
            (against, _) if against >= needed => Verdict::Fail,
            (_, in_favour) if in_favour >= needed => Verdict::Pass,
            _ => Verdict::Inconclusive,
        };
        let further = |bets: &Bets| {
            let growth = bets.growth(mean);
            let left = libm::log(needed) - bets.log_e();
            (growth > 0.0 && verdict == Verdict::Inconclusive).then(|| libm::ceil(left / growth) as u64)
        };
        let devices_needed = [further(&against), further(&in_favour)].into_iter().flatten().min();
        complete(Decision {
            verdict,
            treated: Group::default(),
            control: None,
            effect: mean,
            interval: Interval { low: 0.0, high: 1.0 },
            against: against.e(),
            in_favour: in_favour.e(),
            needed,
            devices_needed,
        })
    }
}

fn ratio(part: f64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: Gate = Gate { against: Against::Limit(0.01), margin: 0.02, alpha: 0.05 };

    fn decided(failures: u64, devices: u64) -> Decision {
        GATE.rate(0.01, Group { devices, failures })
    }

    #[test]
    fn no_data_is_no_pass_and_little_data_is_inconclusive() {
        assert_eq!(decided(0, 0).verdict, Verdict::Error);
        let little = decided(0, 20);
        assert_eq!(little.verdict, Verdict::Inconclusive);
        assert!(little.devices_needed.is_some_and(|needed| (50..400).contains(&needed)), "{little:?}");
    }

    #[test]
    fn promotion_needs_evidence_within_the_margin() {
        assert_eq!(decided(6, 50).verdict, Verdict::Fail);
        assert_eq!(decided(0, 300).verdict, Verdict::Pass);
        // At the margin itself there is never enough.
        assert_eq!(decided(30, 1_000).verdict, Verdict::Fail);
    }

    #[test]
    fn a_control_group_that_fails_as_much_excuses_the_treated() {
        let gate = Gate { against: Against::Control, margin: 0.03, ..GATE };
        let run = |treated: fn(u64) -> bool, control: fn(u64) -> bool| {
            let mut pairs = Pairs::default();
            for device in 0..2_000 {
                pairs.report(true, treated(device));
                pairs.report(false, control(device));
            }
            gate.control(&pairs)
        };
        let same = run(|device| device % 20 == 0, |device| device % 20 == 10);
        assert_eq!(same.verdict, Verdict::Pass, "{same:?}");
        let worse = run(|device| device % 10 == 0, |device| device % 100 == 5);
        assert_eq!(worse.verdict, Verdict::Fail, "{worse:?}");
        assert!(worse.interval.low > 0.0 && (worse.effect - 0.09).abs() < 1e-9, "{worse:?}");
        assert_eq!(worse.control.map(|control| control.failures), Some(20));
        let none = gate.control(&Pairs::default());
        assert_eq!(none.verdict, Verdict::Error);
    }

    #[test]
    fn pairs_wait_for_their_partner() {
        let mut pairs = Pairs::default();
        for failed in [true, false, true] {
            pairs.report(true, failed);
        }
        assert_eq!((pairs.pairs, pairs.treated().devices), (0, 3));
        pairs.report(false, false);
        assert_eq!((pairs.pairs, pairs.worse, pairs.better), (1, 1, 0));
        pairs.report(false, true);
        assert_eq!((pairs.pairs, pairs.worse, pairs.better), (2, 1, 1));
    }

    #[test]
    fn settings_are_checked() {
        assert_eq!(GATE.check(), Ok(()));
        assert_eq!(Gate { alpha: 0.0, ..GATE }.check(), Err(GateError::Alpha(0.0)));
        assert_eq!(Gate { margin: 0.0, ..GATE }.check(), Err(GateError::Margin(0.0)));
        assert_eq!(Gate { margin: 0.995, ..GATE }.check(), Err(GateError::Margin(0.995)));
        let limit = Gate { against: Against::Limit(1.0), ..GATE };
        assert_eq!(limit.check(), Err(GateError::Limit(1.0)));
    }
}
