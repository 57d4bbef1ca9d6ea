//! What gates do with healthy and with faulty rollouts: repeated, from a seed.

use std::collections::HashMap;

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;

use crate::bets::{Bets, Side};

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The rate of failing devices that is known from the old version, between 0 and 1.
    pub base_rate: f64,
    /// The rate of the new version.
    pub rate: f64,
    /// Devices of a rollout.
    pub devices: u32,
    /// After how many reports the gate is looked at.
    pub look_every: u32,
    /// The probability of stopping a healthy rollout that is put up with.
    pub alpha: f64,
    /// Rollouts.
    pub runs: u32,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// What became of the rollouts at one gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The gate, for people.
    pub gate: &'static str,
    /// The part of healthy rollouts (of the base rate) that was stopped.
    pub false_alarm_rate: f64,
    /// The part of rollouts that was stopped.
    pub stopped_rate: f64,
    /// Devices that had the new version when it was stopped, in the median of those that were stopped.
    pub median_devices: Option<u32>,
    /// Devices that failed before the end, in the mean of all rollouts.
    pub mean_failures: f64,
}

/// A rule for stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Evidence against the base rate.
    Limit,
    /// Evidence against a control group of the same size at the same time, which has the base rate.
    Control,
    /// 5 % of those that reported have failed, from so many on, as AWS IoT Jobs aborts.
    Share { least: u32 },
    /// Failures are 5 % of all devices of the group, as hawkBit's error threshold.
    Group,
    /// A z-test against the control group at the level 0.05, at every look.
    Peeked,
}

const RULES: [(Rule, &str); 6] = [
    (Rule::Limit, "dunlin, against the base rate"),
    (Rule::Control, "dunlin, against a control group"),
    (Rule::Share { least: 10 }, "AWS IoT Jobs: 5 % failed, at least 10 devices"),
    (Rule::Share { least: 100 }, "AWS IoT Jobs: 5 % failed, at least 100 devices"),
    (Rule::Group, "hawkBit: failures are 5 % of the group"),
    (Rule::Peeked, "z-test against control, p < 0.05 at every look"),
];

/// Simulates all gates; the first outcome is that of the gate against the base rate.
pub fn simulate(settings: &Settings) -> Vec<Outcome> {
    let mut evidence = Evidence::new(settings);
    let healthy =
        Settings { rate: settings.base_rate, seed: settings.seed ^ 0x9e37_79b9_7f4a_7c15, ..*settings };
    let alarms = run(&healthy, &mut evidence);
    let stops = run(settings, &mut evidence);
    let part = |count: usize| count as f64 / f64::from(settings.runs.max(1));
    let rules = RULES.iter().zip(alarms.into_iter().zip(stops));
    rules
        .map(|((_, gate), (alarms, mut stops))| {
            stops.at.sort_unstable();
            Outcome {
                gate,
                false_alarm_rate: part(alarms.at.len()),
                stopped_rate: part(stops.at.len()),
                median_devices: stops.at.get(stops.at.len() / 2).copied(),
                mean_failures: stops.failures as f64 / f64::from(settings.runs.max(1)),
            }
        })
        .collect()
}

/// When rollouts were stopped.
#[derive(Clone, Debug, Default)]
struct Stops {
    at: Vec<u32>,
    /// Failures before the end, of all rollouts.
    failures: u64,
}

fn run(settings: &Settings, evidence: &mut Evidence) -> Vec<Stops> {
    let mut random = Pcg64Mcg::seed_from_u64(settings.seed);
    let mut stops = vec![Stops::default(); RULES.len()];
    for _ in 0..settings.runs {
        let mut seen = Seen::default();
        let mut is_stopped = [false; RULES.len()];
        for device in 1..=settings.devices {
            seen.report(random.random_bool(settings.rate), random.random_bool(settings.base_rate));
            let is_look = device.is_multiple_of(settings.look_every.max(1)) || device == settings.devices;
            for (index, (rule, _)) in RULES.iter().enumerate() {
                let (Some(done), Some(stops)) = (is_stopped.get_mut(index), stops.get_mut(index)) else {
                    continue;
                };
                if !*done && is_look && rule.stops(&seen, settings, evidence) {
                    *done = true;
                    stops.at.push(device);
                    stops.failures += u64::from(seen.failures);
                }
            }
        }
        for (stops, _) in stops.iter_mut().zip(is_stopped).filter(|(_, stopped)| !stopped) {
            stops.failures += u64::from(seen.failures);
        }
        // Keeps the streams of rollouts apart, however long they are.
        random.next_u64();
    }
    stops
}

/// What one rollout has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    devices: u32,
    failures: u32,
    /// Failures of the control group.
    control: u32,
    /// Pairs in which only the treated device failed, and only the other one.
    worse: u32,
    better: u32,
}

impl Seen {
    fn report(&mut self, treated: bool, control: bool) {
        self.devices += 1;
        self.failures += u32::from(treated);
        self.control += u32::from(control);
        self.worse += u32::from(treated && !control);
        self.better += u32::from(control && !treated);
    }
}

/// Evidence by counts, as many rollouts come to the same.
struct Evidence {
    base_rate: f64,
    limit: HashMap<(u32, u32), f64>,
    control: HashMap<(u32, u32), f64>,
}

impl Evidence {
    fn new(settings: &Settings) -> Self {
        Evidence { base_rate: settings.base_rate, limit: HashMap::new(), control: HashMap::new() }
    }

    fn limit(&mut self, failures: u32, good: u32) -> f64 {
        *self.limit.entry((failures, good)).or_insert_with(|| {
            let mut bets = Bets::new(Side::Above, self.base_rate);
            bets.observe(1.0, failures.into());
            bets.observe(0.0, good.into());
            bets.e()
        })
    }

    fn control(&mut self, worse: u32, better: u32) -> f64 {
        *self.control.entry((worse, better)).or_insert_with(|| {
            let mut bets = Bets::new(Side::Above, 0.5);
            bets.observe(1.0, worse.into());
            bets.observe(0.0, better.into());
            bets.e()
        })
    }
}

impl Rule {
    fn stops(self, seen: &Seen, settings: &Settings, evidence: &mut Evidence) -> bool {
        let Seen { devices, failures, control, worse, better } = *seen;
        let (count, failed) = (f64::from(devices), f64::from(failures));
        match self {
            Rule::Limit => evidence.limit(failures, devices - failures) * settings.alpha >= 1.0,
            Rule::Control => evidence.control(worse, better) * settings.alpha >= 1.0,
            Rule::Share { least } => devices >= least && failed >= 0.05 * count,
            Rule::Group => failed >= 0.05 * f64::from(settings.devices),
            Rule::Peeked => {
                let pooled = (failed + f64::from(control)) / (2.0 * count);
                let error = libm::sqrt((2.0 * pooled * (1.0 - pooled) / count).max(1e-12));
                // One-sided, 0.05.
                (failed - f64::from(control)) / count / error > 1.644_853_6
            }
        }
    }
}
