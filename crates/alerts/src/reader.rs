//! The reader of one instance: listen, read, push, and start over when anything fails.
//!
//! It listens first, then reads: whatever is committed after the read has a notification to come.
//! Notifications only say *when* to read; *what* is new comes from the cursor, so a lost one costs
//! at most a heartbeat, and ten thousand of them cost one read.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::changes::Cause;
use crate::cursor::{rewind, rewind_to};
use crate::hub::Shared;
use crate::notes::Note;
use crate::ring::Batch;
use crate::slot::{Health, Moment, Slot, State, now_us};
use crate::window::{self, Misread};
use crate::{Cursor, Identity, Listener, Source, SourceError, TimelineStart, Wake};

/// Asks a source, and does not wait for ever.
pub(crate) async fn ask<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    match timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(SourceError::new(format!(
            "{what}: no answer within {limit:?}"
        ))),
    }
}

/// Why a reader's connection ended.
#[derive(Debug)]
enum Stop {
    Failed(SourceError),
    /// Another reader has taken over.
    Replaced,
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

/// See the module.
pub(crate) struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) term: u64,
}

impl Reader {
    /// Follows the instance until it is aborted or replaced.
    pub(crate) async fn run(self) {
        let config = &self.shared.config;
        let mut failures = 0u32;
        let mut lost: Option<Arc<str>> = None;
        loop {
            let Err(stop) = self.follow(&mut lost, &mut failures).await;
            let Stop::Failed(error) = stop else {
                return;
            };
            let reason: Arc<str> = error.chain().into();
            lost = Some(reason.clone());
            if !self.mark_down(reason) {
                return;
            }
            sleep(jitter(config.reconnect_min, config.reconnect_max, failures)).await;
            failures = failures.saturating_add(1);
            self.slot.metrics.reconnects.increment(1);
        }
    }

    /// One connection, from listening to its end. `lost` is why the one before it ended.
    async fn follow(
        &self,
        lost: &mut Option<Arc<str>>,
        failures: &mut u32,
    ) -> Result<Infallible, Stop> {
        let config = &self.shared.config;
        let source = &self.source;
        let listening = source.listen(&config.channels);
        let mut listener = ask(config.call_timeout, "listening", listening).await?;
        if let Some(reason) = lost.take() {
            self.mark_gap(reason)?;
        }
        let identity = source.identity();
        let identity = ask(config.call_timeout, "asking for the identity", identity).await?;
        let timelines = source.timelines();
        let timelines = ask(config.call_timeout, "asking for its timelines", timelines).await?;
        self.adopt(identity, timelines)?;
        self.changes_live().await?;
        if self.slot.lock().ring.end().is_none() {
            let now = ask(config.call_timeout, "asking for the position", source.now()).await?;
            self.update(|state| state.ring.restart(now))?;
        }
        self.catch_up().await?;
        self.mark_up()?;
        *failures = 0;
        self.shared.ownership_may_have_changed(self.slot.instance);
        // The connection is drained while a read is under way: its wake-ups then fall into one.
        let wake = Notify::new();
        tokio::select! {
            stop = self.listen(listener.as_mut(), &wake) => stop,
            stop = self.read(&wake) => stop,
        }
    }

    async fn listen(&self, listener: &mut dyn Listener, wake: &Notify) -> Result<Infallible, Stop> {
        let config = &self.shared.config;
        let patience = config.heartbeat + config.call_timeout;
        loop {
            match ask(patience, "listening", listener.next(config.heartbeat)).await? {
                Wake::Alerts => wake.notify_one(),
                // The read at each heartbeat is `read`'s.
                Wake::Idle => {}
                // No table has gone: who follows changes misses nothing.
                Wake::Groups => self.shared.ownership_may_have_changed(self.slot.instance),
                Wake::Ownership => {
                    self.shared.ownership_may_have_changed(self.slot.instance);
                    // A table may have gone: its changes come from another instance from now on.
                    let reason = "tables or rules may have changed".into();
                    (self.slot.changes).down(self.term, Cause::Ownership, reason);
                    self.changes_live().await?;
                }
                Wake::Changed(changes) => {
                    for change in changes {
                        self.slot.changes.push(self.term, change);
                    }
                    self.shared.changes.wake();
                }
                Wake::ChangesLost { feed, reason } => {
                    self.slot.changes.lost(self.term, feed, reason);
                    self.shared.changes.wake();
                }
                Wake::Checked(started) => self.slot.changes.complete(self.term, started),
                Wake::Notification {
                    channel,
                    payload,
                    pid,
                } => {
                    self.slot.metrics.notifications.increment(1);
                    let (channel, payload) = (channel.into(), payload.into());
                    let at_us = now_us();
                    let note = Note::Message {
                        channel,
                        payload,
                        pid,
                        at_us,
                    };
                    self.update(|state| state.notes.push(note))?;
                    self.shared.wake();
                }
            }
        }
    }

    async fn read(&self, wake: &Notify) -> Result<Infallible, Stop> {
        loop {
            // Woken or not, the outbox is read at each heartbeat.
            let woken = timeout(self.shared.config.heartbeat, wake.notified()).await;
            self.catch_up().await?;
            if woken.is_ok() {
                self.shared.wake_groups();
            }
        }
    }

    /// Reads from the live cursor until nothing is left, page by page.
    async fn catch_up(&self) -> Result<(), Stop> {
        loop {
            let from = self.slot.lock().ring.end().cloned();
            let from = from.unwrap_or_else(Cursor::earliest);
            let started = Moment::now();
            let config = &self.shared.config;
            let reading = self.source.read(&from, config.read_batch);
            let page = ask(config.call_timeout, "reading the outbox", reading).await?;
            let page = match window::check(&from, page) {
                Ok(page) => page,
                Err(Misread::Broken(error)) => return Err(error.into()),
                Err(Misread::WentBack { xmin }) => return Err(self.went_back(&from, xmin)?.into()),
            };
            // The end of a window is as old as its beginning: read on to the present.
            let again = page.more || page.next.page.is_some() || from.page.is_some();
            let metrics = &self.slot.metrics;
            metrics.alerts_read(&self.shared.channels, &page.alerts);
            if page.dropped.is_some() {
                // Each subscription reads on by itself, and is told what it lost.
                self.update(|state| state.ring.restart(page.next))?;
                self.shared.wake();
                continue;
            }
            let news = !page.alerts.is_empty();
            let batch = Batch {
                from,
                to: page.next,
                alerts: page.alerts.into(),
            };
            self.update(|state| {
                state.ring.push(batch);
                if !again {
                    state.read_at = Some(started);
                }
            })?;
            if news {
                self.shared.wake();
            }
            if !again {
                return Ok(());
            }
        }
    }

    /// Asks which feeds tell of their changes; from here on they are followed.
    async fn changes_live(&self) -> Result<(), Stop> {
        let limit = self.shared.config.call_timeout;
        let asking = self.source.tracked_feeds();
        let feeds = ask(limit, "asking which feeds tell of their changes", asking).await?;
        self.slot
            .changes
            .live(self.term, feeds.into_iter().collect());
        self.shared.changes.wake();
        Ok(())
    }

    /// Takes note of which PostgreSQL answers. If it is another one than before, the live cursor
    /// is taken back; each subscription does the same with its own when it sees the change.
    fn adopt(&self, identity: Identity, timelines: Vec<TimelineStart>) -> Result<(), Stop> {
        let before = self.update(|state| {
            state.rewinds.timelines = timelines;
            let before = state.identity.replace(identity);
            let end = state.ring.end().cloned();
            if let (Some(before), Some(end)) = (before, end)
                && before != identity
            {
                state
                    .ring
                    .restart(rewind(&end, before, identity, &state.rewinds));
            }
            before
        })?;
        if let Some(before) = before.filter(|before| *before != identity) {
            let instance = self.slot.instance;
            tracing::warn!(%instance, %before, now = %identity, "the instance has another history; reading again from an earlier point");
            self.shared.wake();
        }
        Ok(())
    }

    /// Takes the live cursor back to before the transactions that are being given again.
    fn went_back(&self, from: &Cursor, xmin: u64) -> Result<SourceError, Stop> {
        let xmin = xmin.min(from.base.xmin());
        let cursor = rewind_to(xmin, self.shared.config.rewind_xids);
        self.update(|state| {
            state.went_back.times += 1;
            state.went_back.xmin = cursor.base.xmin();
            state.ring.restart(cursor);
        })?;
        Ok(SourceError::new(format!(
            "the instance's transaction ids went back to {xmin}, as after a restore or a crash; reading again from an earlier point"
        )))
    }

    fn mark_gap(&self, reason: Arc<str>) -> Result<(), Stop> {
        if self.shared.config.channels.is_empty() {
            return Ok(());
        }
        self.slot.metrics.gaps.increment(1);
        self.update(|state| state.notes.push(Note::Gap { reason }))?;
        self.shared.wake();
        Ok(())
    }

    fn mark_up(&self) -> Result<(), Stop> {
        self.update(|state| state.health = Health::Up)?;
        self.slot.metrics.readable.set(1.0);
        self.shared.wake();
        Ok(())
    }

    /// False if the reader was replaced.
    fn mark_down(&self, reason: Arc<str>) -> bool {
        let instance = self.slot.instance;
        // Once an outage is enough; it may take a thousand attempts.
        if self.slot.down_reason().is_none() {
            tracing::warn!(%instance, %reason, "the instance cannot be read; trying again");
        } else {
            tracing::debug!(%instance, %reason, "the instance still cannot be read");
        }
        (self.slot.changes).down(self.term, Cause::Connection, reason.clone());
        self.shared.changes.wake();
        let down = Health::Down(reason);
        if self.update(|state| state.health = down).is_err() {
            return false;
        }
        self.slot.metrics.readable.set(0.0);
        self.shared.wake();
        true
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, Stop> {
        self.slot.update(self.term, change).ok_or(Stop::Replaced)
    }
}

/// Exponential backoff with full jitter: many routers that lost one instance do not come back
/// in step.
pub(crate) fn jitter(min: Duration, max: Duration, failures: u32) -> Duration {
    let longest = min.saturating_mul(1 << failures.min(20)).min(max);
    longest.mul_f64(rand::random_range(0.0..=1.0))
}
