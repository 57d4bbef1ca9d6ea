//! A server's process.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a server may take until it answers: far longer than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child process that ends with its owner.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Process(child.with_context(|| format!("cannot start {}", command.get_program().display()))?))
    }

    /// Waits until the server answers; an error when it ends instead.
    pub(crate) fn wait_until_ready(&mut self, name: &str, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            if let Some(status) = self.0.try_wait()? {
                bail!("{name} ended with {status} instead of starting");
            }
            if Instant::now() > deadline {
                bail!("{name} does not answer");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> Result<()> {
        self.0.wait()?;
        Ok(())
    }

    /// The process' id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The end without warning.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` gives a value. Tests wait for conditions, never for a time.
///
/// # Errors
/// When it gives none within `patience`; the error says `what` was waited for.
pub fn wait_until<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", patience.as_secs());
        }
        sleep(Duration::from_millis(25));
    }
}
