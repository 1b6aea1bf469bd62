//! What the hub keeps per instance: ring, notes, health. Written by the instance's reader, read by
//! every subscription.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use pgbraid_shardmap::InstanceName;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::changes::ChangeLog;
use crate::metrics::InstanceMetrics;
use crate::notes::Notes;
use crate::ring::Ring;
use crate::{HubConfig, Identity, Rewinds, Source};

/// Now, in µs since the Unix epoch.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_micros() as i64)
}

/// A moment by both clocks: one to show, one to measure with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) wall_us: i64,
    at: Instant,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let wall_us = now_us();
        let at = Instant::now();
        Self { wall_us, at }
    }

    /// A moment that has passed.
    pub(crate) fn of(at: std::time::Instant) -> Self {
        let wall_us = now_us() - at.elapsed().as_micros() as i64;
        let at = Instant::from_std(at);
        Self { wall_us, at }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }
}

/// Whether the instance can be read.
#[derive(Debug, Clone)]
pub(crate) enum Health {
    /// Not known yet.
    Connecting,
    Up,
    /// It cannot, for this reason.
    Down(Arc<str>),
}

/// The instance's transaction ids went back under its readers, this many times.
#[derive(Debug, Default)]
pub(crate) struct WentBack {
    pub(crate) times: u64,
    /// Everything from this transaction on is to be read again.
    pub(crate) xmin: u64,
}

/// See the module.
pub(crate) struct Slot {
    pub(crate) instance: InstanceName,
    pub(crate) metrics: InstanceMetrics,
    /// Bounds the reads of subscribers that catch up.
    pub(crate) catch_up: Semaphore,
    pub(crate) changes: ChangeLog,
    generation: AtomicU64,
    state: Mutex<State>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) ring: Ring,
    pub(crate) notes: Notes,
    pub(crate) identity: Option<Identity>,
    pub(crate) health: Health,
    pub(crate) went_back: WentBack,
    pub(crate) rewinds: Rewinds,
    /// The start of the last read that reached the end of the outbox.
    pub(crate) read_at: Option<Moment>,
    /// Which reader may write here. An aborted one may still be running for a moment.
    term: u64,
    created: Moment,
}

impl Slot {
    pub(crate) fn new(source: Arc<dyn Source>, config: &HubConfig) -> Self {
        let instance = source.instance();
        let ring = || Ring::new(config.ring_alerts, config.ring_bytes);
        Self {
            instance,
            metrics: InstanceMetrics::new(instance),
            catch_up: Semaphore::new((config.catchup_reads / 4).max(1)),
            changes: ChangeLog::new(instance, config.ring_bytes),
            generation: AtomicU64::new(0),
            state: Mutex::new(State {
                source,
                ring: ring(),
                notes: Notes::new(config.ring_alerts.max(1), config.ring_bytes),
                identity: None,
                health: Health::Connecting,
                went_back: WentBack::default(),
                rewinds: Rewinds {
                    timelines: Vec::new(),
                    margin_xids: config.rewind_xids,
                },
                read_at: None,
                term: 0,
                created: Moment::now(),
            }),
        }
    }

    /// Grows with every change; a subscriber compares it with what it last saw, without a lock.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the state, unless the reader of this term was replaced.
    pub(crate) fn update<T>(&self, term: u64, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.state.lock();
        if state.term != term {
            return None;
        }
        let result = change(&mut state);
        self.generation.fetch_add(1, Ordering::Release);
        Some(result)
    }

    /// Makes way for a new reader, of this source, and returns its term.
    pub(crate) fn new_term(&self, source: Arc<dyn Source>) -> u64 {
        let mut state = self.state.lock();
        state.source = source;
        state.term += 1;
        self.changes.new_term(state.term);
        state.term
    }

    /// Why it cannot be read, if so.
    pub(crate) fn down_reason(&self) -> Option<Arc<str>> {
        match &self.state.lock().health {
            Health::Down(reason) => Some(reason.clone()),
            Health::Up | Health::Connecting => None,
        }
    }

    pub(crate) fn source(&self) -> Arc<dyn Source> {
        self.state.lock().source.clone()
    }

    /// Time since the outbox was last read to its end; if it never was, since the instance is known.
    pub(crate) fn lag(&self) -> Duration {
        let state = self.state.lock();
        state.read_at.unwrap_or(state.created).elapsed()
    }
}
