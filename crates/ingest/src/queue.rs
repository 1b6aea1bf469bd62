//! The queues of one instance and their writers' hand-over.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use pgbraid_shardmap::InstanceName;
use tokio::{sync::Notify, time::Instant};

use crate::{
    IngestConfig,
    admission::{Health, HealthState},
    job::{Job, next_job},
    metrics::InstanceMetrics,
    sink::Sink,
    table::{Segment, TableQueue, TableRef},
};

/// All that is queued for one instance.
pub(crate) struct InstanceQueue {
    pub name: InstanceName,
    pub sink: Arc<dyn Sink>,
    pub config: IngestConfig,
    pub metrics: InstanceMetrics,
    state: Mutex<State>,
    /// A writer should look for work.
    work: Notify,
    /// Bytes were let go.
    space: Notify,
}

struct State {
    tables: HashMap<TableRef, TableQueue>,
    /// Bytes queued and in flight.
    bytes: u64,
    /// Rows in flight.
    in_flight: usize,
    health: Health,
    closed: bool,
}

/// What a writer finds.
pub(crate) enum Next {
    Job(Job),
    /// Nothing to do until then, or until there is work.
    Wait(Option<Instant>),
    Closed,
}

/// Rows that left another instance's queue.
pub(crate) type Moved = Vec<(TableRef, InstanceName, Vec<Segment>)>;

impl InstanceQueue {
    pub fn new(sink: Arc<dyn Sink>, config: IngestConfig) -> Self {
        let name = sink.instance();
        Self {
            name,
            metrics: InstanceMetrics::new(name),
            state: Mutex::new(State {
                tables: HashMap::new(),
                bytes: 0,
                in_flight: 0,
                health: Health::new(),
                closed: false,
            }),
            work: Notify::new(),
            space: Notify::new(),
            sink,
            config,
        }
    }

    /// Adds rows, all of one request.
    pub fn push(&self, segments: impl IntoIterator<Item = (TableRef, Segment)>) {
        let mut state = self.state.lock();
        for (table, segment) in segments {
            state.bytes += segment.bytes();
            state.tables.entry(table).or_default().push(segment);
        }
        drop(state);
        self.work.notify_one();
    }

    /// What the instance can take: see [`HealthState`].
    pub fn health(&self) -> HealthState {
        let state = self.state.lock();
        let queued = state.bytes;
        state.health.state(
            Instant::now(),
            self.config.stall_after,
            queued,
            self.config.queue_bytes_per_instance,
        )
    }

    /// Waits until bytes were let go, or a moment passed: the instance may have gone down.
    pub async fn space(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(100), self.space.notified()).await;
    }

    /// Takes work. The job's tables are busy until [`Self::finish`].
    pub fn next(&self) -> Next {
        let mut state = self.state.lock();
        let now = Instant::now();
        if let Some(until) = state.health.not_before(now) {
            return match state.closed && state.bytes == 0 {
                true => Next::Closed,
                false => Next::Wait(Some(until)),
            };
        }
        match next_job(&mut state.tables, &self.config, now) {
            Some(job) => {
                let rows: usize = job
                    .tables
                    .iter()
                    .flat_map(|(_, s)| s)
                    .map(Segment::len)
                    .sum();
                state.in_flight += rows;
                state.health.started(now);
                let more = state.tables.values().any(TableQueue::ready);
                drop(state);
                if more {
                    self.work.notify_one();
                }
                Next::Job(job)
            }
            None if state.closed && state.bytes == 0 => Next::Closed,
            None => Next::Wait(None),
        }
    }

    /// Waits for work.
    pub async fn idle(&self, until: Option<Instant>) {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => self.work.notified().await,
        }
    }

    /// The job is over: `back` are the rows that go to the front of their tables again, for each
    /// table in order. Returns what belongs to another instance by now.
    pub fn finish(&self, bytes: u64, rows: usize, back: Vec<(TableRef, Vec<Segment>)>) -> Moved {
        let mut moved = Moved::new();
        let mut state = self.state.lock();
        state.bytes -= bytes;
        state.in_flight -= rows;
        for (table, segments) in back {
            let returned: u64 = segments.iter().map(Segment::bytes).sum();
            let queue = state.tables.entry(table.clone()).or_default();
            queue.push_front(segments);
            queue.busy = false;
            let leaving = queue.leaving.take();
            if let Some(instance) = leaving {
                let gone = queue.drain();
                let gone_bytes: u64 = gone.iter().map(Segment::bytes).sum();
                state.tables.remove(&table);
                state.bytes -= gone_bytes - returned;
                moved.push((table, instance, gone));
            } else {
                state.bytes += returned;
            }
        }
        drop(state);
        self.work.notify_one();
        self.space.notify_waiters();
        moved
    }

    /// The instance answered: whatever was wrong is over.
    pub fn succeeded(&self) {
        if self.state.lock().health.succeeded() {
            self.metrics.writable.set(1.0);
        }
    }

    /// A writer got its answer, good or bad: the instance is not stalled.
    pub fn answered(&self) {
        self.state.lock().health.answered();
    }

    /// The instance can't be written to. Returns whether that is news.
    pub fn failed(&self, reason: &str) -> bool {
        self.metrics.writable.set(0.0);
        self.state.lock().health.failed(
            reason,
            Instant::now(),
            self.config.retry_min,
            self.config.retry_max,
        )
    }

    /// Why the instance can't be written to, if so.
    pub fn reason(&self) -> Option<String> {
        self.state.lock().health.reason()
    }

    /// Drops what has all its answers or whose time is over.
    pub fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        let freed: u64 = state
            .tables
            .values_mut()
            .map(|table| table.sweep(now))
            .sum();
        state.bytes -= freed;
        let rows = state.in_flight + state.tables.values().map(TableQueue::rows).sum::<usize>();
        self.metrics.queue_rows.set(rows as f64);
        self.metrics.queue_bytes.set(state.bytes as f64);
        let all_done = state.closed && state.bytes == 0;
        drop(state);
        if freed > 0 || all_done {
            self.space.notify_waiters();
            self.work.notify_one();
        }
    }

    /// Rows and bytes queued and in flight.
    pub fn queued(&self) -> (u64, u64) {
        let state = self.state.lock();
        let rows = state.in_flight + state.tables.values().map(TableQueue::rows).sum::<usize>();
        (rows as u64, state.bytes)
    }

    /// Applies who owns a table: `None` is "not this instance, and no other is known".
    pub fn assign(&self, table: &TableRef, owner: Option<InstanceName>, held: bool) -> Moved {
        let mut moved = Moved::new();
        let mut state = self.state.lock();
        let Some(queue) = state.tables.get_mut(table) else {
            return moved;
        };
        match owner {
            Some(owner) if owner == self.name => {
                queue.leaving = None;
                queue.held = held;
            }
            Some(owner) if queue.busy => queue.leaving = Some(owner),
            Some(owner) => {
                let gone = queue.drain();
                let bytes: u64 = gone.iter().map(Segment::bytes).sum();
                state.tables.remove(table);
                state.bytes -= bytes;
                moved.push((table.clone(), owner, gone));
            }
            // Rows wait where they are until an owner is known or their time is over.
            None => queue.held = true,
        }
        drop(state);
        self.work.notify_one();
        moved
    }

    /// Tables that have a queue here.
    pub fn tables(&self) -> Vec<TableRef> {
        self.state.lock().tables.keys().cloned().collect()
    }

    /// No further rows come: writers end when all is written.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_waiters();
        self.work.notify_one();
    }
}
