//! The lease of whoever carries out moves, or must not meet them: one at a time, in the home.

use std::{sync::Arc, time::Duration};

use pgbraid_instance::{Instance, TakenTerm};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tracing::debug;

use crate::MoveError;

/// Who this process is, for whoever meets its lease: `pgbraid map on host, process 17`.
pub fn holder(what: &str) -> String {
    let host = nix::unistd::gethostname().ok();
    let host = host.and_then(|host| host.into_string().ok());
    format!(
        "{what} on {}, process {}",
        host.as_deref().unwrap_or("an unknown host"),
        std::process::id()
    )
}

/// What the heartbeat knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// The lease is ours until then, at the least.
    until: Instant,
    pub paused: bool,
    /// The home has answered since the lease was taken.
    heard: bool,
    /// What routers agree on, by its name.
    agreed: Option<String>,
}

/// The lease, kept while it lives.
pub struct Lease {
    term: i64,
    home: Arc<Instance>,
    pulse: watch::Receiver<Pulse>,
    beating: JoinHandle<()>,
}

impl Lease {
    /// Takes the lease.
    ///
    /// # Errors
    /// [`MoveError::Busy`] if another has it.
    pub async fn take(
        home: &Arc<Instance>,
        holder: &str,
        lease: Duration,
    ) -> Result<Self, MoveError> {
        let asked = Instant::now();
        let taken = home
            .take_mover(holder, lease)
            .await
            .map_err(|error| MoveError::of(home.name(), error))?;
        let term = match taken {
            TakenTerm::Ours(term) => term,
            TakenTerm::Held { holder, left } => return Err(MoveError::Busy { holder, left }),
        };
        let (send, pulse) = watch::channel(Pulse {
            until: asked + lease,
            paused: false,
            heard: false,
            agreed: None,
        });
        let beating = tokio::spawn(beat(home.clone(), term, lease, send));
        Ok(Self {
            term,
            home: home.clone(),
            pulse,
            beating,
        })
    }

    /// The mover's number: none before it had as great a one.
    pub fn term(&self) -> i64 {
        self.term
    }

    /// Whether the lease is still ours. Looked at before each step; whoever was stopped right after
    /// is kept from doing harm by its term.
    ///
    /// # Errors
    /// [`MoveError::LeaseLost`] if not.
    pub fn check(&self) -> Result<(), MoveError> {
        check(&self.pulse)
    }

    /// Until routers agree on another placement than this one, as far as the home says.
    pub(crate) async fn until_agreed_is_not(&self, places: &str) {
        let mut pulse = self.pulse.clone();
        let other = |pulse: &Pulse| pulse.heard && pulse.agreed.as_deref() != Some(places);
        if pulse.wait_for(other).await.is_err() {
            // The lease is over: whoever works under it finds out by itself.
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.clone()
    }

    /// Gives the lease back.
    pub async fn release(self) {
        self.beating.abort();
        let limit = Duration::from_secs(5);
        let _ = tokio::time::timeout(limit, self.home.release_mover(self.term)).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

pub(crate) fn check(pulse: &watch::Receiver<Pulse>) -> Result<(), MoveError> {
    match pulse.borrow().until > Instant::now() {
        true => Ok(()),
        false => Err(MoveError::LeaseLost),
    }
}

async fn beat(home: Arc<Instance>, term: i64, lease: Duration, send: watch::Sender<Pulse>) {
    loop {
        let asked = Instant::now();
        let renewed = tokio::time::timeout(lease / 3, home.renew_mover(term, lease)).await;
        match renewed {
            Ok(Ok(Some(state))) => {
                send.send_replace(Pulse {
                    until: asked + lease,
                    paused: state.paused,
                    heard: true,
                    agreed: state.agreed.map(|agreed| agreed.placement),
                });
            }
            // Another has it: ours is over.
            Ok(Ok(None)) => {
                send.send_modify(|pulse| pulse.until = asked);
                return;
            }
            Ok(Err(error)) => debug!("the lease was not renewed: {error}"),
            Err(_) => debug!("the lease was not renewed: no answer"),
        }
        sleep((lease / 5).min(Duration::from_secs(1))).await;
    }
}
