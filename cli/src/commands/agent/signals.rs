//! SIGTERM and Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use crate::error::Failure;

/// SIGTERM and Ctrl-C.
pub(super) struct Signals {
    came: mpsc::Receiver<()>,
    first: AtomicBool,
    again: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let (sender, came) = mpsc::channel();
        let again = Arc::new(AtomicBool::new(false));
        let failed = |error: std::io::Error| Failure::new(format!("signals cannot be received: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (noted, (ready, is_ready)) = (Arc::clone(&again), mpsc::channel());
        std::thread::spawn(move || {
            runtime.block_on(async {
                let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
                let _ = ready.send(terminate.as_ref().err().map(std::io::Error::kind));
                let Ok(mut terminate) = terminate else { return };
                for number in 0.. {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = tokio::signal::ctrl_c() => {}
                    }
                    noted.store(number > 0, Ordering::Relaxed);
                    if sender.send(()).is_err() {
                        // Nobody listens any more: the program is on its way out, and takes too long.
                        std::process::exit(1);
                    }
                }
            });
        });
        match is_ready.recv() {
            Ok(None) => Ok(Signals { came, first: AtomicBool::new(false), again }),
            Ok(Some(kind)) => Err(failed(kind.into())),
            Err(_) => Err(failed(std::io::ErrorKind::Other.into())),
        }
    }

    /// Waits until then; whether a signal came before.
    pub(super) fn wait_until(&self, due: Instant) -> bool {
        let left = due.saturating_duration_since(Instant::now());
        let came =
            if left.is_zero() { self.came.try_recv().is_ok() } else { self.came.recv_timeout(left).is_ok() };
        self.first.fetch_or(came, Ordering::Relaxed) || came
    }

    pub(super) fn came(&self) -> bool {
        self.wait_until(Instant::now())
    }

    /// Whether a second signal came.
    pub(super) fn again(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }
}
