//! `cargo xtask api`: requests made from the API's own description; no answer may be a server error.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use dunlin_test_servers::free_port;
use xshell::cmd;

use crate::project::Project;
use crate::setup::{Need, Tools, api_tester};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Requests per operation and phase.
    #[arg(long, default_value_t = 40)]
    examples: u32,
    /// Where the requests come from: the same number makes the same requests.
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

impl Options {
    pub(crate) fn all() -> Self {
        Options { examples: 40, seed: 1 }
    }
}

/// Starts `dunlin serve` on an empty folder and lets the tester at it.
pub(crate) fn run(project: &Project, tools: &mut Tools, options: &Options) -> Result<String> {
    tools.need(Need::ApiTester)?;
    project.cargo(&["build", "--quiet", "--package", "dunlin"]).run()?;
    let data = project.target.join("api-test");
    project.shell.remove_path(&data)?;
    let (http, mqtt) = (free_port()?, free_port()?);
    let program = project.target.join("debug/dunlin");
    let mut command = Command::new(program);
    command.arg("serve").arg("--data-dir").arg(&data);
    command.arg(format!("--http-listen=127.0.0.1:{http}")).arg(format!("--mqtt-listen=127.0.0.1:{mqtt}"));
    // The tester makes requests as fast as it can; the limits have tests of their own.
    let rates = ["--http-token-rate", "--http-token-burst", "--http-address-rate", "--http-address-burst"];
    command.args(rates.map(|flag| format!("{flag}=1000000")));
    command.arg("--log-level=error");
    let mut server = Server(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let token = server.token()?;
    let (tester, header) = (api_tester(project), format!("Authorization: Bearer {token}"));
    let (examples, seed) = (options.examples.to_string(), options.seed.to_string());
    let description = format!("http://127.0.0.1:{http}/api/v1/openapi.json");
    let checks =
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    // Live events never end: they are no request with an answer.
    let result = cmd!(
        project.shell,
        "{tester} run {description} --header {header} --checks {checks} --exclude-path /api/v1/live
         --max-examples {examples} --seed {seed} --workers 2 --generation-database none --no-color"
    )
    .quiet()
    .run();
    if let Some(status) = server.0.try_wait()? {
        bail!("the server ended with {status}");
    }
    result.context("an answer was a server error or contradicts the API's description; see above")?;
    Ok(format!("seed {seed}, {examples} requests per operation and phase"))
}

/// A running `dunlin serve` that ends with its owner.
struct Server(Child);

impl Server {
    /// The administrator's token that the server prints at its first start.
    fn token(&mut self) -> Result<String> {
        let output = self.0.stdout.take().context("the server's output is not there")?;
        let mut lines = BufReader::new(output);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            if let Some(token) = line.split_whitespace().find(|word| word.starts_with("dunlin_")) {
                let token = token.to_owned();
                // Nobody reads on, and the server must not wait for it.
                std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
                return Ok(token);
            }
            line.clear();
        }
        bail!("the server ended before it printed its token");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
