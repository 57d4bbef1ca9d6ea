//! A control plane of one's own, for the time of a measurement.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

use crate::error::Failure;
use crate::server::{Login, Token};

/// More than any measurement asks for: what is measured is the work, not the limit.
const RATE: &str = "1000000";

/// `dunlin serve` as a child process on a temporary folder; killed when it is dropped.
pub(crate) struct Served {
    child: Child,
    folder: std::path::PathBuf,
    /// How to reach it.
    pub(crate) login: Login,
}

#[derive(Deserialize)]
struct Started {
    http: String,
    admin_token: Option<String>,
}

impl Served {
    /// Starts it with these further flags.
    pub(crate) fn start(more: &[String]) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("dunlin serve cannot be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let folder = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let mut child = Command::new(program)
            .args(["serve", "--json", "--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"])
            .args([
                "--log-level",
                "warn",
                "--mqtt-device-rate",
                RATE,
                "--http-token-rate",
                RATE,
                "--data-dir",
            ])
            .arg(&folder)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        let stdout = child.stdout.take();
        let read = stdout.map_or(Ok(0), |stdout| BufReader::new(stdout).read_line(&mut line));
        let started: Option<Started> = read.ok().and_then(|_| serde_json::from_str(&line).ok());
        let login = started.and_then(|started| {
            Some(Login { server: started.http, token: Token::new(&started.admin_token?).ok()?, ca: None })
        });
        let Some(login) = login else {
            // It has said why on standard error.
            let _ = child.kill();
            let _ = child.wait();
            let failure = Failure::new("dunlin serve did not start, or its database is in use already");
            return Err(failure.way_out("give an empty database"));
        };
        Ok(Served { child, folder, login })
    }

    /// Its process id.
    pub(crate) fn process(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Nobody needs what it has counted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
