//! A private Mosquitto.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::free_port;
use crate::process::Process;

/// An MQTT broker with one listener on the loopback interface.
#[derive(Debug)]
pub struct Mosquitto {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    process: Option<Process>,
}

impl Mosquitto {
    /// Where the broker's program is: on the search path, or where Debian puts it.
    pub fn program() -> Option<PathBuf> {
        let on_path = std::env::var_os("PATH");
        let on_path = on_path.iter().flat_map(std::env::split_paths).collect::<Vec<_>>();
        let of_debian = PathBuf::from("/usr/sbin");
        on_path
            .into_iter()
            .chain([of_debian])
            .map(|folder| folder.join("mosquitto"))
            .find(|file| file.is_file())
    }

    /// Starts a broker that accepts anyone and keeps sessions and queued messages on disk. `extra` are more lines of
    /// its configuration (they come after those of this listener).
    ///
    /// # Errors
    /// When Mosquitto is not installed or does not start.
    pub fn start(extra: &str) -> Result<Self> {
        Self::start_with(|_| Ok(format!("allow_anonymous true\n{extra}")))
    }

    /// Starts a broker with the configuration that `configure` gives for the broker's own folder, in which it may put
    /// certificates, password files and access lists.
    ///
    /// # Errors
    /// When Mosquitto is not installed or does not start.
    pub fn start_with(configure: impl FnOnce(&Path) -> Result<String>) -> Result<Self> {
        let program = Self::program().context("Mosquitto is not installed (Debian package mosquitto)")?;
        let folder = tempfile::Builder::new().prefix("dunlin-mosquitto-").tempdir()?;
        let port = free_port()?;
        let path = folder.path().display();
        // Started as root, it would change to an account that may not read the folder.
        let configuration = format!(
            "user root\nlistener {port} 127.0.0.1\nlog_type error\npersistence true\npersistence_location {path}/\n\
             max_queued_messages 100000\n{}\n",
            configure(folder.path())?
        );
        fs::write(folder.path().join("mosquitto.conf"), configuration)?;
        let mut broker = Self { program, folder, port, process: None };
        broker.resume()?;
        Ok(broker)
    }

    /// The listener's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The broker's own folder, with its configuration and what `configure` put there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the broker without warning.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Has the broker read its access list and its certificates again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn reload(&self) -> Result<()> {
        let process = self.process.as_ref().context("the broker does not run")?;
        let status = Command::new("kill").args(["-HUP", &process.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "the broker did not get the signal");
        Ok(())
    }

    /// Starts the broker again, on the same port and folder.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        let mut process = Process::spawn(&mut command)?;
        process.wait_until_ready("Mosquitto", || TcpStream::connect(("127.0.0.1", self.port)).is_ok())?;
        self.process = Some(process);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::Mosquitto;

    #[test]
    #[ignore = "needs Mosquitto"]
    fn a_broker_comes_back_on_its_port() {
        let mut broker = Mosquitto::start("").expect("it starts");
        broker.kill().expect("it ends");
        assert!(TcpStream::connect(("127.0.0.1", broker.port())).is_err());
        broker.resume().expect("it starts again");
        assert!(TcpStream::connect(("127.0.0.1", broker.port())).is_ok());
    }
}
