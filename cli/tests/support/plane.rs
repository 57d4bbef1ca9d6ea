//! A control plane as a process, and the commands as its users run them.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Bench, Said, model_file};

/// Far longer than anything takes on a busy machine. Tests wait for conditions, never for a time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What is around a process: commands that start it, and variables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// A command that runs the words after it, such as `nsenter …`; nothing to run them directly.
    pub(crate) launcher: Vec<String>,
    /// Environment variables.
    pub(crate) variables: Vec<(String, String)>,
}

/// A running `dunlin serve`; killed when it is dropped.
pub(crate) struct Plane {
    child: Child,
    arguments: Vec<String>,
    surroundings: Surroundings,
    http: String,
    pub(crate) mqtt_port: u16,
    token: String,
    log: String,
}

impl Plane {
    /// Starts it on a folder of the bench, on free ports that it keeps over restarts.
    pub(crate) fn start(bench: &Bench, folder: &str, more: &[&str]) -> Self {
        Plane::start_in(Surroundings::default(), bench, folder, more)
    }

    /// [`Plane::start`] somewhere else.
    pub(crate) fn start_in(surroundings: Surroundings, bench: &Bench, folder: &str, more: &[&str]) -> Self {
        let port = || dunlin_test_servers::free_port().expect("a free port");
        let (http, mqtt_port) = (format!("127.0.0.1:{}", port()), port());
        let mut arguments: Vec<String> =
            ["serve", "--json", "--log-format", "json", "--http-listen", &http].map(str::to_owned).to_vec();
        arguments.extend(["--mqtt-listen".into(), format!("127.0.0.1:{mqtt_port}")]);
        arguments.extend(["--data-dir".into(), bench.path(folder)]);
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let log = bench.path(&format!("{}.log", folder.replace('/', "-")));
        let (child, started) = spawn(&arguments, &surroundings, &log);
        let text = |key: &str| started[key].as_str().unwrap_or_default().to_owned();
        let (http, token) = (text("http"), text("admin_token"));
        Plane { child, arguments, surroundings, http, mqtt_port, token, log }
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

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Whether it runs still.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_none()
    }

    /// The end without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Starts it again.
    pub(crate) fn resume(&mut self) {
        self.child = spawn(&self.arguments, &self.surroundings, &self.log).0;
    }

    /// The administrator's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A command against this control plane.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(arguments).env("DUNLIN_SERVER", &self.http).env("DUNLIN_TOKEN", &self.token);
        // Not the keys of whoever runs the tests.
        command.env("DUNLIN_KEYS", format!("{}.keys", self.log)).env_remove("DUNLIN_RELEASE_KEY");
        command.envs(self.surroundings.variables.iter().cloned());
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

    /// What `GET path` answers: the status and the body. Without TLS only.
    pub(crate) fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let address = self.http.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        // Of HTTP 1.0, in which a body is neither cut in pieces nor followed by another answer.
        let request = format!("GET {path} HTTP/1.0\r\nauthorization: Bearer {}\r\n\r\n", self.token);
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("the end of the head");
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).expect("text");
        (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body)
    }

    /// What it says of itself to those who ask whether it can work.
    pub(crate) fn readiness(&self) -> (u16, String) {
        let (status, body) = self.get("/readyz");
        (status, String::from_utf8(body).expect("text"))
    }

    /// Makes a fleet whose devices report soon, and a claim for it.
    pub(crate) fn fleet(&self, name: &str) -> String {
        self.run(&["fleet", "create", name]);
        let key = self.run(&["claim", "create", "--fleet", name, "--name", "test"]);
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
        if std::thread::panicking() {
            eprintln!("{} logged:\n{}", self.http, self.log());
        }
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
fn spawn(arguments: &[String], surroundings: &Surroundings, log: &str) -> (Child, Value) {
    let words = surroundings.launcher.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_dunlin")]);
    let mut words = words.chain(arguments.iter().map(String::as_str));
    let file = OpenOptions::new().create(true).append(true).open(log).expect("a log");
    let mut child = Command::new(words.next().expect("the program"))
        .args(words)
        .envs(surroundings.variables.iter().cloned())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let started = serde_json::from_str(&line).unwrap_or_else(|error| {
        panic!("{error}: {line:?}: {}", std::fs::read_to_string(log).unwrap_or_default())
    });
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
    /// The command that enrols as `device` with its own state folder, and runs the model `count` times.
    pub(crate) fn command(
        bench: &Bench,
        plane: &Plane,
        claim: &str,
        device: &str,
        (artifact, input): (&str, &str),
        count: u64,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command
            .args(["agent", "--json", "--server", plane.http(), "--device", device])
            .args(["--artifact", artifact, "--input", input, "--state-dir", &bench.path(device)])
            .args(["--rate", "200", "--window", "100ms", "--count", &count.to_string()])
            .env("DUNLIN_CLAIM", claim);
        command
    }

    pub(crate) fn start(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        AgentProcess(child.expect("the program starts"))
    }

    /// Ends it as `dunlin agent` is ended; what it counted itself, all of it acknowledged.
    pub(crate) fn terminate(self) -> Value {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        self.finish()
    }

    /// The end without warning.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }

    /// Waits for its end; what it counted itself.
    pub(crate) fn report(self) -> Value {
        let output = self.0.wait_with_output().expect("it ends");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success(), "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// [`AgentProcess::report`]; everything was acknowledged.
    pub(crate) fn finish(self) -> Value {
        let report = self.report();
        assert_eq!(report["kept"], 0, "{report}");
        report
    }
}
