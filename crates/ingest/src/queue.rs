//! The queues of one instance and their writers' hand-over.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use pgbraid_shardmap::InstanceName;
use tokio::{sync::Notify, time::Instant};

use crate::{
    IngestConfig,
    admission::{Health, HealthState},
    config::WORTH_A_WRITER,
    depth::Depth,
    job::{Choice, Job, next_job},
    lot::Lot,
    metrics::InstanceMetrics,
    sink::Sink,
    table::{Rows, Segment, TableRef},
    tables::Tables,
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
    depth: Arc<Depth>,
}

struct State {
    tables: Tables,
    /// Bytes queued and in flight.
    bytes: u64,
    /// Rows queued and in flight.
    rows: usize,
    /// Rows in flight.
    job_rows: usize,
    /// Small jobs in flight.
    small_jobs: usize,
    /// A writer looks again when the few rows that wait for a job have waited long enough.
    watched: bool,
    /// Whether they are so many that a row more waits behind others of its table.
    deep: bool,
    health: Health,
    closed: bool,
}

impl State {
    fn add(&mut self, number: u32, segment: Segment) {
        self.bytes += segment.bytes();
        self.rows += segment.len();
        self.tables.push(number, segment);
    }

    /// Whether there is something for a writer that waits: see [`next_job`].
    fn wants_writer(&self) -> bool {
        let few = self.rows - self.job_rows < WORTH_A_WRITER;
        !(few && self.small_jobs > 0 && self.watched)
    }

    /// These leave for another instance.
    fn let_go(&mut self, segments: &[Segment]) {
        self.bytes -= segments.iter().map(Segment::bytes).sum::<u64>();
        self.rows -= segments.iter().map(Segment::len).sum::<usize>();
    }
}

/// What a writer finds.
pub(crate) enum Next {
    Job(Job),
    Wait(Wait),
    Closed,
}

/// What a writer waits for.
pub(crate) enum Wait {
    Work,
    /// Nothing is to be written before.
    Until(Instant),
    /// Work, or this time: a few rows wait for what is being written.
    Watch(Instant),
}

/// Rows that left another instance's queue.
pub(crate) type Moved = Vec<(TableRef, InstanceName, Vec<Segment>)>;

/// Who a table belongs to, as one instance's queue sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assigned {
    Here,
    /// Here, but not to be written now.
    Held,
    To(InstanceName),
    /// No other instance is known to own it: rows wait until one is, or their time is over.
    Nobody,
}

impl InstanceQueue {
    pub fn new(sink: Arc<dyn Sink>, config: IngestConfig, depth: Arc<Depth>) -> Self {
        let name = sink.instance();
        Self {
            name,
            metrics: InstanceMetrics::new(name),
            state: Mutex::new(State {
                tables: Tables::default(),
                bytes: 0,
                rows: 0,
                job_rows: 0,
                small_jobs: 0,
                watched: false,
                deep: false,
                health: Health::new(),
                closed: false,
            }),
            work: Notify::new(),
            space: Notify::new(),
            depth,
            sink,
            config,
        }
    }

    /// The numbers of tables in this queue.
    pub fn numbers<'a>(&self, tables: impl IntoIterator<Item = &'a TableRef>) -> Vec<u32> {
        let mut state = self.state.lock();
        tables
            .into_iter()
            .map(|table| state.tables.number(table))
            .collect()
    }

    /// Adds rows of one lot, by number of their table. Returns those whose table has left.
    pub fn push(
        &self,
        lot: &Arc<Lot>,
        queued: Instant,
        rows: impl ExactSizeIterator<Item = (u32, u32, u32)>,
    ) -> Moved {
        let mut moved = Moved::new();
        let mut tickets = match lot.one_request() {
            Some(ticket) => vec![ticket.clone(); rows.len()],
            None => Vec::new(),
        };
        let mut state = self.state.lock();
        for (number, start, end) in rows {
            let queue = state.tables.get(number);
            if let Some(owner) = queue.away {
                let segment = Segment {
                    lot: lot.clone(),
                    rows: Rows::Range(start, end),
                    queued,
                };
                moved.push((queue.table.clone(), owner, vec![segment]));
                continue;
            }
            state.bytes +=
                (state.tables).push_rows(number, lot, (start, end), queued, &mut tickets);
            state.rows += (end - start) as usize;
        }
        self.measure(&mut state);
        let wake = state.wants_writer();
        drop(state);
        drop(tickets);
        if wake {
            self.work.notify_one();
        }
        moved
    }

    /// Adds rows that come from another instance's queue.
    pub fn push_moved(&self, table: &TableRef, segments: Vec<Segment>) {
        let mut state = self.state.lock();
        let number = state.tables.number(table);
        for segment in segments {
            state.add(number, segment);
        }
        self.measure(&mut state);
        drop(state);
        self.work.notify_one();
    }

    /// Says so when it has become deep, or is not any more.
    fn measure(&self, state: &mut State) {
        let deep = !state.closed && self.depth.is_deep(state.rows, state.tables.len());
        if deep != state.deep {
            state.deep = deep;
            self.depth.changed(deep);
        }
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
                false => Next::Wait(Wait::Until(until)),
            };
        }
        let patient = state.small_jobs > 0;
        match next_job(&mut state.tables, &self.config, now, patient) {
            Choice::Job(job) => {
                state.job_rows += job.rows;
                state.small_jobs += usize::from(job.is_small());
                let more = state.wants_writer() && state.tables.ready().next().is_some();
                drop(state);
                if more {
                    self.work.notify_one();
                }
                Next::Job(job)
            }
            Choice::Later(until) => match std::mem::replace(&mut state.watched, true) {
                false => Next::Wait(Wait::Watch(until)),
                true => Next::Wait(Wait::Work),
            },
            Choice::Nothing if state.closed && state.bytes == 0 => Next::Closed,
            Choice::Nothing => Next::Wait(Wait::Work),
        }
    }

    /// Waits for it.
    pub async fn idle(&self, wait: Wait) {
        match wait {
            Wait::Work => self.work.notified().await,
            Wait::Until(until) => tokio::time::sleep_until(until).await,
            Wait::Watch(until) => {
                let _ = tokio::time::timeout_at(until, self.work.notified()).await;
                self.state.lock().watched = false;
            }
        }
    }

    /// The job is over. Of its segments, what has no answer yet goes to the front of its table
    /// again. Returns what belongs to another instance by now.
    pub fn finish(&self, job: Job) -> Moved {
        let mut moved = Moved::new();
        let now = Instant::now();
        let job_is_small = job.is_small();
        let mut segments = job.segments.into_iter();
        // What is dropped here is dropped outside the lock.
        let back: Vec<(u32, Vec<Segment>)> = (job.tables.into_iter())
            .map(|table| {
                let of_table = segments.by_ref().take(table.segments);
                let rest = of_table.filter_map(|segment| segment.rest(now));
                (table.number, rest.collect())
            })
            .collect();
        let mut state = self.state.lock();
        state.bytes -= job.bytes;
        state.rows -= job.rows;
        state.job_rows -= job.rows;
        state.small_jobs -= usize::from(job_is_small);
        for (number, segments) in back {
            let returned: u64 = segments.iter().map(Segment::bytes).sum();
            state.bytes += returned;
            state.rows += segments.iter().map(Segment::len).sum::<usize>();
            if !segments.is_empty() {
                state.tables.push_front(number, segments.into_iter());
            }
            let queue = state.tables.get(number);
            queue.busy = false;
            if let Some(instance) = queue.away
                && queue.rows() > 0
            {
                let gone = queue.drain();
                let table = queue.table.clone();
                state.let_go(&gone);
                moved.push((table, instance, gone));
            }
        }
        self.measure(&mut state);
        let all_done = state.closed && state.bytes == 0;
        drop(state);
        // Who finishes looks for work itself next. Another writer that is woken here would find
        // none, but would put the task that has the answer off to another thread.
        if all_done {
            self.work.notify_one();
        }
        self.space.notify_waiters();
        moved
    }

    /// The instance answered: whatever was wrong is over.
    pub fn succeeded(&self) {
        if self.state.lock().health.succeeded() {
            self.metrics.writable.set(1.0);
        }
    }

    /// A writer sends something, and waits for its answer.
    pub fn started(&self) {
        self.state.lock().health.started(Instant::now());
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
        let (mut freed, mut rows) = (0, 0);
        for table in state.tables.all() {
            let before = table.rows();
            freed += table.sweep(now);
            rows += before - table.rows();
        }
        state.bytes -= freed;
        state.rows -= rows;
        self.measure(&mut state);
        self.metrics.queue_rows.set(state.rows as f64);
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
        (state.rows as u64, state.bytes)
    }

    /// Applies who owns the tables that have a queue here. Returns the rows that leave.
    pub fn assign(&self, owner: impl Fn(&TableRef) -> Assigned) -> Moved {
        let mut state = self.state.lock();
        let mut left = Moved::new();
        for queue in state.tables.all() {
            match owner(&queue.table) {
                assigned @ (Assigned::Here | Assigned::Held) => {
                    queue.away = None;
                    queue.held = assigned == Assigned::Held;
                }
                Assigned::Nobody => {
                    queue.held = true;
                    queue.away = None;
                }
                Assigned::To(owner) => {
                    queue.held = false;
                    queue.away = Some(owner);
                    if !queue.busy && queue.rows() > 0 {
                        left.push((queue.table.clone(), owner, queue.drain()));
                    }
                }
            }
        }
        for (_, _, gone) in &left {
            state.let_go(gone);
        }
        self.measure(&mut state);
        drop(state);
        self.work.notify_one();
        left
    }

    /// No further rows come: writers end when all is written.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.measure(&mut state);
        drop(state);
        self.work.notify_waiters();
        self.work.notify_one();
    }
}
