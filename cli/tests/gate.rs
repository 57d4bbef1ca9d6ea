//! What `dunlin gate simulate` prints.

mod support;

use serde_json::Value;
use support::dunlin;

#[test]
fn gates_are_compared_and_the_same_seed_gives_the_same_numbers() {
    let command = ["gate", "simulate", "--runs", "500", "--seed", "3"];
    let said = dunlin(&command).success().stdout;
    for part in
        ["500 rollouts to 400 devices each", "a look every report", "hawkBit", "AWS IoT Jobs", "z-test"]
    {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(dunlin(&command).success().stdout, said);
    let arguments = ["--base-rate", "0.02", "--rate", "0.2", "--devices", "100", "--look-every", "10"];
    let report: Value =
        dunlin(&[&command[..], &arguments, &["--alpha", "0.1", "--json"]].concat()).success().json();
    assert_eq!((&report["devices"], &report["look_every"]), (&100.into(), &10.into()));
    assert!(report["false_alarm_rate"].as_f64().is_some_and(|rate| rate < 0.1), "{report}");
    assert!(report["stopped_rate"].as_f64().is_some_and(|rate| rate > 0.95), "{report}");
    assert!(report["median_devices"].as_u64().is_some_and(|devices| devices % 10 == 0), "{report}");
    assert_eq!(report["gates"].as_array().map(Vec::len), Some(6));
}

#[test]
fn what_is_no_probability_is_refused() {
    for (name, value) in [("--rate", "0"), ("--base-rate", "1"), ("--alpha", "x"), ("--devices", "0")] {
        let said = dunlin(&["gate", "simulate", name, value]);
        assert_eq!(said.code, 2, "{name} {value}");
        assert!(said.stderr.contains(name), "{}", said.stderr);
    }
}
