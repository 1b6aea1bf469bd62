//! The signals that ask a command to stop.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::failure::Result;

/// Signals that come closer together are one: supervisors such as timeout(1) signal a process and
/// then its whole group.
const ONE_SIGNAL: Duration = Duration::from_millis(300);

/// SIGTERM and SIGINT, heard from its making on.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    last: Option<Instant>,
}

impl StopSignals {
    pub fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            last: None,
        })
    }

    /// Waits for the first signal, or for one more. Safe to cancel.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            let now = Instant::now();
            let before = self.last.replace(now);
            if before.is_none_or(|before| now.duration_since(before) > ONE_SIGNAL) {
                return;
            }
        }
    }
}
