//! A private PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::account::Account;
use crate::free_port;
use crate::process::Process;

/// A PostgreSQL server with its own data folder. Its superuser `postgres` needs no password.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    account: Account,
    port: u16,
    process: Option<Process>,
}

impl Postgres {
    /// Where PostgreSQL's programs are: on the search path, or where Debian puts them.
    pub fn programs() -> Option<PathBuf> {
        let on_path = std::env::var_os("PATH");
        let on_path = on_path.iter().flat_map(std::env::split_paths).collect::<Vec<_>>();
        let mut of_debian = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|release| Some(release.ok()?.path().join("bin")))
            .collect::<Vec<_>>();
        of_debian.sort();
        on_path.into_iter().chain(of_debian).rfind(|folder| folder.join("initdb").is_file())
    }

    /// Makes an empty cluster and starts it.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start; its own words are on standard error then.
    pub fn start() -> Result<Self> {
        let programs = Self::programs().context("PostgreSQL is not installed (Debian package postgresql)")?;
        let account = Account::of("postgres")?;
        let folder = tempfile::Builder::new().prefix("dunlin-postgres-").tempdir()?;
        account.own(folder.path())?;
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.arg("--pgdata").arg(data_folder(folder.path()));
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        finish(account.run(&mut initdb).current_dir(folder.path()))?;
        let mut server = Self { programs, folder, account, port: free_port()?, process: None };
        server.resume()?;
        Ok(server)
    }

    /// The address of a database on this server, for clients.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database; its address.
    ///
    /// # Errors
    /// When it exists already or the server does not run.
    pub fn create(&self, database: &str) -> Result<String> {
        let mut createdb = Command::new(self.programs.join("createdb"));
        createdb.args(["--username=postgres", "--host=127.0.0.1", "--port"]).arg(self.port.to_string());
        finish(createdb.arg(database))?;
        Ok(self.url(database))
    }

    /// Ends the server as an operator would: open transactions are rolled back, connections closed.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let mut stop = Command::new(self.programs.join("pg_ctl"));
        stop.args(["stop", "--mode=fast", "--pgdata"]).arg(self.data());
        finish(self.account.run(&mut stop).current_dir(self.folder.path()))?;
        process.wait()
    }

    /// Ends the server without warning.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts the server again, on the same port and data.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn resume(&mut self) -> Result<()> {
        // After a kill the old server's children hold its memory for a moment, and a new one refuses to start.
        let patience = Duration::from_secs(20);
        let begin = Instant::now();
        loop {
            match self.start_process() {
                Ok(process) => {
                    self.process = Some(process);
                    return Ok(());
                }
                Err(_) if begin.elapsed() < patience => sleep(Duration::from_millis(100)),
                Err(error) => return Err(error),
            }
        }
    }

    fn start_process(&self) -> Result<Process> {
        let port = self.port.to_string();
        let mut postgres = Command::new(self.programs.join("postgres"));
        postgres
            .arg("-D")
            .arg(self.data())
            .args(["-p", &port, "-h", "127.0.0.1", "-k"])
            .arg(self.folder.path());
        // The machine does not lose power in a test, so that waiting for the disk would prove nothing.
        postgres.args(["-c", "fsync=off", "-c", "max_connections=200", "-c", "log_min_messages=fatal"]);
        let mut process = Process::spawn(self.account.run(&mut postgres).current_dir(self.folder.path()))?;
        process.wait_until_ready("PostgreSQL", || {
            let mut ready = Command::new(self.programs.join("pg_isready"));
            ready.args(["--quiet", "--host=127.0.0.1", "--port", &port]);
            ready.status().is_ok_and(|status| status.success())
        })?;
        Ok(process)
    }

    fn data(&self) -> PathBuf {
        data_folder(self.folder.path())
    }
}

fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Runs a command to its end; an error with its words when it fails.
fn finish(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let name = command.get_program().display();
    let output = output.with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Postgres;

    #[test]
    #[ignore = "needs PostgreSQL"]
    fn a_server_outlives_a_restart_and_a_kill() {
        let mut server = Postgres::start().expect("it starts");
        server.create("first").expect("a new database");
        server.stop().expect("it stops");
        server.resume().expect("it starts again");
        assert!(server.create("first").is_err(), "the database is still there");
        server.kill().expect("it ends");
        server.resume().expect("it recovers");
        assert!(server.create("first").is_err(), "the database is still there");
    }
}
