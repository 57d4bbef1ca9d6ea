//! Devices that run a real model, and the comparison of what they counted with what the control plane has.

use std::process::Command;

use super::Bench;
use super::plane::{AgentProcess, Plane, digits};

/// Runs of the model on each device.
pub(crate) const RUNS: u64 = 1_500;
/// The devices' ids.
pub(crate) const DEVICES: [&str; 3] = ["pump-1", "pump-2", "pump-3"];

/// Three agents.
pub(crate) struct Fleet([AgentProcess; 3]);

impl Fleet {
    /// Pushes the model and starts the agents; `adjust` adds to their commands.
    pub(crate) fn start(bench: &Bench, plane: &Plane, adjust: impl Fn(&mut Command)) -> Self {
        let (artifact, input) = digits(bench);
        plane.run(&["model", "push", &artifact, "--name", "digits"]);
        let claim = plane.fleet("pumps");
        Fleet(DEVICES.map(|device| {
            let mut command = AgentProcess::command(bench, plane, &claim, device, (&artifact, &input), RUNS);
            command.args(["--patience", "110s"]);
            adjust(&mut command);
            AgentProcess::start(command)
        }))
    }

    /// Waits until the agents have run and everything is acknowledged, and compares the counts.
    pub(crate) fn finish(self, plane: &Plane) {
        self.finish_by(plane, |plane| {
            assert_eq!(plane.counted(), (3 * RUNS, 0));
            counted_in_full(plane, 3 * RUNS);
        });
    }

    /// [`Fleet::finish`] with another comparison.
    pub(crate) fn finish_by(self, plane: &Plane, compare: impl FnOnce(&Plane)) {
        let reports = self.0.map(AgentProcess::finish);
        let sum =
            |key: &str| reports.iter().map(|report| report[key].as_u64().expect("a count")).sum::<u64>();
        assert_eq!((sum("inferences"), sum("failures")), (3 * RUNS, 0));
        compare(plane);
        for device in DEVICES {
            let shown = plane.run(&["device", "show", device]);
            assert_eq!(shown["fleet"], "pumps");
            assert_eq!(shown["slots"][0]["status"], "running", "{shown}");
            assert_eq!(shown["slots"][0]["version"], 1, "{shown}");
        }
    }
}

/// Every run of the digits model has its latency and its class.
pub(crate) fn counted_in_full(plane: &Plane, runs: u64) {
    let statistics = plane.run(&["stats", "digits"]);
    assert_eq!(statistics["total"]["inferences"], runs, "{statistics}");
    assert_eq!(statistics["total"]["latency"]["count"], runs, "{statistics}");
    assert_eq!(statistics["contradicting_features"], 0, "{statistics}");
    let classes = statistics["features"].as_array().expect("features").iter();
    let classes: Vec<_> = classes.filter(|feature| feature["kind"] == "classes").collect();
    assert_eq!(classes.len(), 1, "{statistics}");
    assert_eq!(classes[0]["count"], runs, "every result is in one class: {statistics}");
}
