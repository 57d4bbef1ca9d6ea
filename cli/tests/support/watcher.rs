//! Commands that go on and on.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};

use super::plane::{PATIENCE, Plane, wait_for};

/// A command that goes on until something ends it.
pub(crate) struct Watcher {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
}

impl Watcher {
    pub(crate) fn start(plane: &Plane, arguments: &[&str]) -> Self {
        let mut child = plane
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        // Ends with the command, or when nobody wants lines any more; then the command's reader is gone.
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Watcher { child, lines }
    }

    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }

    pub(crate) fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    }

    /// Waits for the end; how it ended, and what it said on standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_for("the command's end", || {
            status = self.child.try_wait().expect("it was started");
            status.is_some()
        });
        let mut stderr = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
        (status.expect("it ended"), stderr)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
