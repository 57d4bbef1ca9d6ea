//! A private S3 service.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::free_port;
use crate::process::Process;

/// Names the program, which the test command installs in a place of its own.
const PROGRAM: &str = "DUNLIN_TEST_S3";

/// An S3 service that keeps everything in memory.
#[derive(Debug)]
pub struct S3 {
    port: u16,
    process: Process,
}

impl S3 {
    /// Starts it.
    ///
    /// # Errors
    /// When the variable `DUNLIN_TEST_S3` does not name `moto_server`, or that does not start.
    pub fn start() -> Result<Self> {
        let program = std::env::var_os(PROGRAM).map(PathBuf::from);
        let program = program.with_context(|| {
            format!("{PROGRAM} does not name moto_server (`cargo xtask test` installs it)")
        })?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let mut process = Process::spawn(&mut command)?;
        process.wait_until_ready("the S3 service", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(S3 { port, process })
    }

    /// Its endpoint.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes an empty bucket.
    ///
    /// # Errors
    /// When the service does not.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        let answer = self.ask("PUT", name)?;
        if !answer.starts_with("HTTP/1.1 200") && !answer.starts_with("HTTP/1.0 200") {
            bail!("the bucket {name} was not made: {answer}");
        }
        Ok(())
    }

    /// The service's own list of what is in a bucket, in XML.
    ///
    /// # Errors
    /// When the service does not answer.
    pub fn list(&self, bucket: &str) -> Result<String> {
        self.ask("GET", bucket)
    }

    /// Ends the service without warning; what it kept is gone.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Asks without a signature, which this service does not check.
    fn ask(&self, method: &str, bucket: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let host = format!("127.0.0.1:{}", self.port);
        write!(
            stream,
            "{method} /{bucket} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
