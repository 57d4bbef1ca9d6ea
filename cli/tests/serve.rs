//! `dunlin serve` as a process: start, signals, crash, configuration.

#![cfg(unix)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Bench, dunlin};

/// A running `dunlin serve`; killed when it is dropped.
struct Served {
    child: Child,
    started: Value,
}

impl Served {
    /// Starts it on the bench's data folder, on ports that the system chooses, and waits until it says where it is.
    fn start(bench: &Bench, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(["serve", "--json", "--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"])
            .args(["--data-dir", &bench.path("data")])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let started = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Served { child, started }
    }

    fn text(&self, key: &str) -> &str {
        self.started[key].as_str().unwrap_or_else(|| panic!("{key} in {}", self.started))
    }

    /// Opens a connection and sends a request.
    fn open(&self, request: &str) -> TcpStream {
        let address = self.text("http").trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    }

    /// The status of `GET path`.
    fn get(&self, path: &str, token: &str) -> u16 {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        let mut answer = String::new();
        self.open(&request).read_to_string(&mut answer).expect("an answer");
        answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("{answer:?}"))
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the end: the exit code, and what was said after the start.
    fn wait(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = String::new();
        self.child.stderr.as_mut().expect("piped").read_to_string(&mut said).expect("text");
        (status.code(), said)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_starts_with_nothing_and_a_signal_ends_it_in_good_order() {
    let bench = Bench::new();
    for signal in ["-TERM", "-INT"] {
        let served = Served::start(&bench, &["--log-format", "json"]);
        assert_eq!(served.get("/readyz", ""), 200);
        served.signal(signal);
        let (code, said) = served.wait();
        assert_eq!(code, Some(0), "{said}");
        for line in said.lines() {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(entry["level"].is_string() && entry["timestamp"].is_string(), "{line}");
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_the_token_is_shown_once() {
    let bench = Bench::new();
    let served = Served::start(&bench, &[]);
    let token = served.text("admin_token").to_owned();
    let body = r#"{"name": "kept", "role": "viewer"}"#;
    let request = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    served.open(&request).read_to_string(&mut answer).expect("an answer");
    let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
    let created: Value = serde_json::from_str(json).expect("JSON");
    served.signal("-KILL");
    let (code, said) = served.wait();
    assert_eq!(code, None, "killed");
    let new = created["token"].as_str().expect("a token");
    assert!(!said.contains(&token) && !said.contains(new), "no token in the logs: {said}");

    let served = Served::start(&bench, &[]);
    assert!(served.started.get("admin_token").is_none(), "{}", served.started);
    assert_eq!(served.get("/api/v1/me", created["token"].as_str().expect("a token")), 200);
    assert_eq!(served.get("/api/v1/me", &token), 200);
    drop(served);

    let served = Served::start(&bench, &["--new-admin-token"]);
    assert_eq!(served.get("/api/v1/tokens", served.text("admin_token")), 200);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let bench = Bench::new();
    let served = Served::start(&bench, &[]);
    let token = served.text("admin_token").to_owned();
    // A request whose body does not come keeps the drain waiting.
    let request = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n"
    );
    let _open = served.open(&request);
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    served.signal("-TERM");
    std::thread::sleep(Duration::from_millis(300));
    served.signal("-TERM");
    let (code, said) = served.wait();
    assert_eq!(code, Some(130), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn the_effective_settings_are_shown_with_their_sources_and_without_secrets() {
    let bench = Bench::new();
    let text = b"[log]\nformat = \"json\"\n[broker]\nurl = \"mqtts://dunlin:hunter2@broker:8883\"\n";
    let file = bench.file("dunlin.toml", text);
    let said = dunlin(&["serve", "--config", &file, "--http-token-rate", "7", "--print-config", "--json"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let settings: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let find = |key: &str| {
        let settings = settings.as_array().expect("a list");
        let setting = settings.iter().find(|setting| setting["key"] == key).expect("the key");
        (
            setting["value"].as_str().expect("text").to_owned(),
            setting["source"].as_str().expect("text").to_owned(),
        )
    };
    assert_eq!(find("log.format"), ("json".to_owned(), file.clone()));
    assert_eq!(find("broker.url"), ("mqtts://dunlin:********@broker:8883".to_owned(), file.clone()));
    assert_eq!(find("http.token_rate"), ("7".to_owned(), "--http-token-rate".to_owned()));
    assert_eq!(find("http.listen"), ("127.0.0.1:8080".to_owned(), "default".to_owned()));
    let said = dunlin(&["serve", "--config", &file, "--print-config"]);
    assert!(said.stdout.contains("log.format") && !said.stdout.contains("hunter2"), "{}", said.stdout);
}

#[test]
fn wrong_settings_are_wrong_usage_and_a_taken_port_is_a_failure() {
    let bench = Bench::new();
    let file = bench.file("dunlin.toml", b"[http]\nlisten_on = \"x\"\n");
    let cases = [
        (vec!["serve", "--config", file.as_str()], "the nearest is \"http.listen\""),
        (vec!["serve", "--http-listen", "everywhere"], "http.listen = \"everywhere\" (from --http-listen)"),
        (vec!["serve", "--log-level", "loud,,="], "log.level"),
        (vec!["serve", "--http-lisen", "x"], "--http-listen"),
    ];
    for (arguments, expected) in cases {
        let said = dunlin(&arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(expected), "{arguments:?}: {}", said.stderr);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let said = dunlin(&["serve", "--data-dir", &bench.path("data"), "--http-listen", &address]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains(&format!("http.listen {address}: ")), "{}", said.stderr);
}
