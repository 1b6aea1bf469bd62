//! Receives the demo's alerts, and counts each once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pgbraid_client::{Client, Event, Start, SubscribeOptions, Subscriber, proto};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::screen::Screen;
use crate::failure::{Failure, Result};
use crate::meter::Latencies;
use crate::router_args::refused;

/// A task that follows all alerts; it ends with this value.
pub struct Follower {
    seen: Arc<AtomicU64>,
    changed: watch::Receiver<u64>,
    latencies: Arc<Latencies>,
    failed: oneshot::Receiver<Failure>,
    task: JoinHandle<()>,
}

impl Follower {
    pub async fn start(client: Client, screen: Arc<Screen>) -> Result<Self> {
        let options = SubscribeOptions {
            start: Start::Earliest,
            ..SubscribeOptions::default()
        };
        let subscriber = Subscriber::start(client, options).await.map_err(refused)?;
        let seen = Arc::new(AtomicU64::new(0));
        let latencies = Arc::new(Latencies::default());
        let (count, changed) = watch::channel(0);
        let (fail, failed) = oneshot::channel();
        let work = Work {
            subscriber,
            screen,
            seen: Arc::clone(&seen),
            latencies: Arc::clone(&latencies),
            count,
        };
        let task = tokio::spawn(async move {
            // Nobody may be waiting for it any more.
            let _ = fail.send(work.run().await);
        });
        Ok(Self {
            seen,
            changed,
            latencies,
            failed,
            task,
        })
    }

    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// From raised to received.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Resolves when the subscription has ended, which it should not.
    pub async fn failed(&mut self) -> Failure {
        let failure = (&mut self.failed).await;
        failure.unwrap_or_else(|_| Failure::new("the follower of alerts ended early"))
    }

    /// Waits for so many alerts, then a moment for any too many; how many came in the end.
    pub async fn wait_for(&mut self, raised: u64, deadline: Duration) -> Result<u64> {
        let mut changed = self.changed.clone();
        let enough = changed.wait_for(|seen| *seen >= raised);
        let waited = tokio::time::timeout(deadline, enough).await;
        if let Ok(Err(_)) = waited {
            return Err(self.failed().await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(self.seen())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work {
    subscriber: Subscriber,
    screen: Arc<Screen>,
    seen: Arc<AtomicU64>,
    latencies: Arc<Latencies>,
    count: watch::Sender<u64>,
}

impl Work {
    /// Until the subscription ends: why.
    async fn run(mut self) -> Failure {
        let mut known = HashSet::new();
        loop {
            match self.subscriber.next().await {
                Err(error) => return refused(error),
                Ok(received) => {
                    if let Event::Alert(alert) = received.event
                        && known.insert((alert.instance.clone(), alert.seq))
                    {
                        self.take(&alert, known.len() as u64);
                    }
                }
            }
        }
    }

    fn take(&self, alert: &proto::Alert, count: u64) {
        let raised = alert.raised_at.and_then(|at| SystemTime::try_from(at).ok());
        // Clocks of one machine: earlier than raised can only be a clock that was set.
        let age = raised.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if let Some(age) = age {
            self.latencies.record(age);
        }
        self.screen.alert(alert);
        self.seen.store(count, Ordering::Relaxed);
        self.count.send_replace(count);
    }
}
