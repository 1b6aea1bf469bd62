//! One instance's part of a consumer: when to claim there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Gate;
use crate::reader::jitter;
use crate::slot::Slot;
use crate::{HubConfig, SourceError};

/// Nothing tells a router that a message was delayed or expired elsewhere: look this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why to claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The instance has news. If another member of this router took them, there is no need.
    News,
    /// The last claim left some, or it is time to look.
    Due,
}

pub(crate) struct GroupLane {
    pub(crate) slot: Arc<Slot>,
    pub(crate) gate: Arc<Gate>,
    /// Alerts asked for by the claim that is under way.
    pub(crate) asked: Option<u32>,
    seen: u64,
    look_at: Instant,
    failures: u32,
    pub(crate) told_down: bool,
}

impl GroupLane {
    pub(crate) fn new(slot: Arc<Slot>, gate: Arc<Gate>) -> Self {
        Self {
            slot,
            gate,
            asked: None,
            seen: 0,
            look_at: Instant::now(),
            failures: 0,
            told_down: false,
        }
    }

    /// Whether to claim now.
    pub(crate) fn reason(&self, now: Instant) -> Option<Reason> {
        if self.asked.is_some() {
            return None;
        }
        if self.look_at <= now {
            return Some(Reason::Due);
        }
        // After a failure only time decides.
        let news = self.failures == 0 && self.slot.generation() != self.seen;
        news.then_some(Reason::News)
    }

    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.asked.is_none().then_some(self.look_at)
    }

    /// A claim begins; `generation` was read before it.
    pub(crate) fn started(&mut self, asked: u32, generation: u64) {
        self.asked = Some(asked);
        self.seen = generation;
    }

    pub(crate) fn claimed(&mut self, more: bool, next_in: Option<Duration>) {
        self.asked = None;
        self.failures = 0;
        let wait = match more {
            true => Duration::ZERO,
            false => next_in.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN),
        };
        // Something that is due but locked by another one is not asked for without a pause.
        let least = Duration::from_millis(if more { 0 } else { 5 });
        self.look_at = Instant::now() + wait.max(least);
    }

    pub(crate) fn failed(&mut self, error: &SourceError, config: &HubConfig) {
        self.asked = None;
        let pause = jitter(config.reconnect_min, config.reconnect_max, self.failures);
        self.look_at = Instant::now() + pause.max(Duration::from_millis(1));
        self.failures = self.failures.saturating_add(1);
        tracing::debug!(instance = %self.slot.instance, "no claim: {}", error.chain());
    }

    /// Whether it has nothing as far as is known.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.asked.is_none() && (self.failures > 0 || self.reason(now).is_none())
    }
}
