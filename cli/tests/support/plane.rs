//! A control plane as a process, and the commands as its users run them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Bench, Said, model_file};

/// Far longer than anything takes on a busy machine. Tests wait for conditions, never for a time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running `dunlin serve`; killed when it is dropped.
pub(crate) struct Plane {
    child: Child,
    arguments: Vec<String>,
    http: String,
    pub(crate) mqtt_port: u16,
    token: String,
}

impl Plane {
    /// Starts it on a folder of the bench, on free ports that it keeps over restarts.
    pub(crate) fn start(bench: &Bench, folder: &str, more: &[&str]) -> Self {
        let port = || dunlin_test_servers::free_port().expect("a free port");
        let (http, mqtt_port) = (format!("127.0.0.1:{}", port()), port());
        let mut arguments: Vec<String> =
            ["serve", "--json", "--log-format", "json", "--http-listen", &http].map(str::to_owned).to_vec();
        arguments.extend(["--mqtt-listen".into(), format!("127.0.0.1:{mqtt_port}")]);
        arguments.extend(["--data-dir".into(), bench.path(folder)]);
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let (child, started) = spawn(&arguments);
        let token = started["admin_token"].as_str().unwrap_or_default().to_owned();
        Plane { child, arguments, http: format!("http://{http}"), mqtt_port, token }
    }

    /// Another process on the same database asks with the same token.
    pub(crate) fn with_token_of(mut self, other: &Plane) -> Self {
        self.token.clone_from(&other.token);
        self
    }

    /// The HTTP address.
    pub(crate) fn http(&self) -> &str {
        &self.http
    }

    /// The end without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Starts it again.
    pub(crate) fn resume(&mut self) {
        self.child = spawn(&self.arguments).0;
    }

    /// The administrator's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A command against this control plane.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(arguments).env("DUNLIN_SERVER", &self.http).env("DUNLIN_TOKEN", &self.token);
        command
    }

    /// Runs a command against this control plane.
    pub(crate) fn try_run(&self, arguments: &[&str]) -> Said {
        said(&mut self.command(arguments))
    }

    /// Runs a command with `--json` against this control plane; what it says.
    pub(crate) fn run(&self, arguments: &[&str]) -> Value {
        let said = self.try_run(&[arguments, &["--json"]].concat()).success();
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout))
    }

    /// Makes a fleet whose devices report soon, and an enrolment key for it.
    pub(crate) fn fleet(&self, name: &str) -> String {
        self.run(&["fleet", "create", name]);
        let key = self.run(&["key", "create", "--fleet", name, "--name", "test"]);
        key["claim"].as_str().expect("a key").to_owned()
    }

    /// Makes a device; its MQTT password.
    pub(crate) fn device(&self, fleet: &str, id: &str) -> String {
        let made = self.run(&["device", "create", "--id", id, "--fleet", fleet, "--hardware", "test"]);
        made["password"].as_str().expect("a password").to_owned()
    }

    /// Inferences, failures of all models, as the statistics tell.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let summary = self.run(&["stats"]);
        let sum = |key: &str| {
            let items = summary["items"].as_array().expect("items");
            items.iter().map(|item| item[key].as_u64().expect("a count")).sum()
        };
        (sum("inferences"), sum("failures"))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn said(command: &mut Command) -> Said {
    let output = command.output().expect("the program starts");
    Said {
        code: output.status.code().expect("no signal"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Starts the server and waits until it says where it is.
fn spawn(arguments: &[String]) -> (Child, Value) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let started = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    (child, started)
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The digits model with a baseline, and inputs for it.
pub(crate) fn digits(bench: &Bench) -> (String, String) {
    let artifact = bench.path("digits.dunlin");
    let input = model_file("digits_x_int8.npy");
    let model = model_file("digits_resnet_int8.tflite");
    super::dunlin(&["compile", &model, "--calibrate", &input, "-o", &artifact]).success();
    (artifact, input)
}

/// A `dunlin agent` process.
pub(crate) struct AgentProcess(Child);

impl AgentProcess {
    /// Enrols as `device` with its own state folder, and runs the model `count` times.
    pub(crate) fn start(
        bench: &Bench,
        plane: &Plane,
        claim: &str,
        device: &str,
        (artifact, input): (&str, &str),
        count: u64,
    ) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(["agent", "--json", "--server", plane.http(), "--device", device])
            .args(["--artifact", artifact, "--input", input, "--state-dir", &bench.path(device)])
            .args(["--rate", "200", "--window", "100ms", "--patience", "110s", "--count", &count.to_string()])
            .env("DUNLIN_CLAIM", claim)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program starts");
        AgentProcess(child)
    }

    /// Waits for its end; what it counted itself. Everything was acknowledged.
    pub(crate) fn finish(self) -> Value {
        let output = self.0.wait_with_output().expect("it ends");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success(), "{text}");
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(report["kept"], 0, "{report}");
        report
    }
}
