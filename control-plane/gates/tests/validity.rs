//! What the gates promise, over thousands of rollouts that are looked at after every report.

use dunlin_gates::simulate::{Outcome, Settings, simulate};
use dunlin_gates::{Interval, rate_interval};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

const SETTINGS: Settings =
    Settings { base_rate: 0.01, rate: 0.05, devices: 400, look_every: 1, alpha: 0.05, runs: 4_000, seed: 7 };

fn outcome<'a>(outcomes: &'a [Outcome], part: &str) -> &'a Outcome {
    outcomes.iter().find(|outcome| outcome.gate.contains(part)).expect("the gate")
}

#[test]
fn healthy_rollouts_are_stopped_less_often_than_alpha_and_faulty_ones_soon() {
    let outcomes = simulate(&SETTINGS);
    for gate in ["the base rate", "a control group"] {
        let outcome = outcome(&outcomes, gate);
        assert!(outcome.false_alarm_rate < SETTINGS.alpha, "{outcome:?}");
    }
    let ours = outcome(&outcomes, "the base rate");
    assert!(ours.stopped_rate >= 0.98, "{ours:?}");
    assert!(ours.median_devices.is_some_and(|devices| devices <= 90), "{ours:?}");
    // What looking at a fixed test or threshold does.
    assert!(outcome(&outcomes, "z-test").false_alarm_rate > 2.0 * SETTINGS.alpha);
    assert!(outcome(&outcomes, "at least 10").false_alarm_rate > 2.0 * SETTINGS.alpha);
}

#[test]
fn other_rates_and_levels_keep_the_promise() {
    for (base_rate, alpha) in [(0.001, 0.05), (0.05, 0.01), (0.3, 0.1), (0.5, 0.2)] {
        let settings = Settings { base_rate, alpha, rate: base_rate, runs: 2_000, ..SETTINGS };
        for outcome in simulate(&settings).iter().take(2) {
            assert!(outcome.false_alarm_rate <= alpha, "{base_rate} {alpha}: {outcome:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let settings = Settings { runs: 200, ..SETTINGS };
    assert_eq!(simulate(&settings), simulate(&settings));
    assert_ne!(simulate(&settings), simulate(&Settings { seed: 8, ..settings }));
}

#[test]
fn an_interval_holds_at_all_times_together() {
    let (rate, alpha, runs) = (0.03, 0.1, 1_000);
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let missed = (0..runs)
        .filter(|_| {
            let mut failures = 0;
            (1..=300).any(|devices| {
                failures += u64::from(random.random_bool(rate));
                let Interval { low, high } = rate_interval(failures, devices, alpha);
                rate < low || rate > high
            })
        })
        .count();
    assert!((missed as f64) < alpha * f64::from(runs), "{missed} of {runs}");
}
