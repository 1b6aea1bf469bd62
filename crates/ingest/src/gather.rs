//! Where requests wait to be queued together.
//!
//! A request that has a row or two for each of thousands of tables costs several times what one
//! costs that has many rows of each (see [`pgbraid_feed::gather`]). Under load such requests wait a
//! moment for others, and their rows are put side by side by table as if they had come as one.
//! That is only while rows wait anyway: while most instances have a backlog. As soon as they have
//! not, as there are enough rows, or as a part of the linger limit is over, all that wait are queued.
//!
//! The requests of a stream stay in their order: they share a shard, and whoever queues a shard's
//! requests holds its lock until they are in their queues. There are as many shards as processors,
//! and a request is put there under a lock that is held for a moment.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use pgbraid_feed::Block;
use tokio::time::Instant;

use crate::{Ingest, Signal, ticket::Ticket};

/// Rows a table that are put together, if as many come.
const ROWS_A_TABLE: u64 = 32;

/// The most rows that are put together: that takes a thread 2 ms.
const MOST_ROWS: u64 = 128 * 1024;

/// Requests with more rows a table than this go alone, and so do those of feeds with fewer tables:
/// there a backlog is written so soon that waiting could cost more than it saves.
const THIN_ROWS_A_TABLE: u64 = 2;
const LEAST_TABLES: u32 = 256;

/// Part of the linger limit that a request waits here at most.
const PART_OF_LINGER: u32 = 4;

/// While an instance is full, each request waits for it by itself. For so long that is kept up.
const APART_FOR: Duration = Duration::from_millis(100);

/// A request that waits.
pub(crate) struct Waiting {
    pub ticket: Arc<Ticket>,
    pub block: Block,
    /// What it is counted as in the queues.
    pub bytes: u64,
    /// When it was put here, which may be long after it came: memory was short.
    pub since: Instant,
}

#[derive(Default)]
struct List {
    requests: Vec<Waiting>,
    rows: u64,
    /// There are as many rows as are worth waiting for.
    enough: bool,
    /// A task looks at the time.
    timed: bool,
}

impl List {
    /// Since when the first request waits. None: none does, and nobody looks at the time any more.
    fn first_or_untimed(&mut self) -> Option<Instant> {
        let first = self.requests.first().map(|request| request.since);
        self.timed = first.is_some();
        first
    }
}

/// Requests of some streams.
#[derive(Default)]
pub(crate) struct Shard {
    list: Mutex<List>,
    /// Held while requests are queued.
    order: Mutex<()>,
    /// Requests put here, and queued, so far.
    put: AtomicU64,
    queued: AtomicU64,
}

/// Requests that wait to be queued together.
pub(crate) struct Gather {
    shards: Box<[Shard]>,
    hasher: RandomState,
    /// The longest that a request waits.
    wait: Duration,
    waiting: AtomicUsize,
    /// In milliseconds since `started`: until then requests are queued one by one.
    apart_until: AtomicU64,
    started: Instant,
}

impl Gather {
    pub fn new(linger: Duration) -> Self {
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
            wait: linger / PART_OF_LINGER,
            waiting: AtomicUsize::new(0),
            apart_until: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// Where the requests of a stream go.
    fn number(&self, signal: &Signal) -> usize {
        self.hasher.hash_one(signal.address()) as usize % self.shards.len()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// An instance is full.
    pub fn stay_apart(&self, now: Instant) {
        let until = (now + APART_FOR).saturating_duration_since(self.started);
        self.apart_until
            .fetch_max(until.as_millis() as u64, Ordering::SeqCst);
    }

    fn is_apart(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.started).as_millis() as u64;
        since < self.apart_until.load(Ordering::SeqCst)
    }
}

/// Whether it is worth it to put such requests together.
fn is_thin(rows: u64, tables: u32) -> bool {
    tables >= LEAST_TABLES && rows <= u64::from(tables) * THIN_ROWS_A_TABLE
}

/// Rows that are worth waiting for.
fn enough(tables: u32) -> u64 {
    (u64::from(tables) * ROWS_A_TABLE).min(MOST_ROWS)
}

impl Ingest {
    /// Whether a request should wait for others.
    pub(crate) fn is_to_wait(&self, block: &Block, now: Instant) -> bool {
        is_thin(block.rows().into(), block.schema.tables)
            && block.uniform_mask().is_some()
            && self.depth.is_mostly_deep()
            && !self.gather.is_apart(now)
    }

    /// Puts a request where it waits for others; after those of its stream that wait.
    pub(crate) fn put(self: &Arc<Self>, signal: &Signal, request: Waiting) {
        let number = self.gather.number(signal);
        let shard = &self.gather.shards[number];
        let now = request.since;
        self.gather.waiting.fetch_add(1, Ordering::SeqCst);
        let mut list = shard.list.lock();
        shard.put.fetch_add(1, Ordering::SeqCst);
        list.rows += u64::from(request.block.rows());
        list.enough = list.rows >= enough(request.block.schema.tables);
        list.requests.push(request);
        let time = !std::mem::replace(&mut list.timed, true);
        drop(list);
        if time {
            let ingest = self.clone();
            tokio::spawn(async move { ingest.look_at_time(number).await });
        }
        // Looked at after it was put there: who ends the backlog looks for it after that.
        self.queue_due(shard, now);
    }

    async fn look_at_time(&self, number: usize) {
        let shard = &self.gather.shards[number];
        loop {
            let Some(first) = shard.list.lock().first_or_untimed() else {
                return;
            };
            let due = first + self.gather.wait;
            tokio::time::sleep_until(due).await;
            self.queue_due(shard, Instant::now());
        }
    }

    /// Queues what has waited for long enough, or for no reason any more.
    pub(crate) fn queue_all_due(&self) {
        if self.gather.waiting() > 0 {
            let now = Instant::now();
            for shard in &self.gather.shards {
                self.queue_due(shard, now);
            }
        }
    }

    fn queue_due(&self, shard: &Shard, now: Instant) {
        while self.is_due(shard, now) {
            // Whoever holds it looks again when it is done.
            if !self.queue_if_free(shard) {
                return;
            }
        }
    }

    /// False if somebody else is just queueing the shard's requests.
    fn queue_if_free(&self, shard: &Shard) -> bool {
        let order = shard.order.try_lock();
        if order.is_some() {
            self.queue_shard(shard);
        }
        order.is_some()
    }

    fn is_due(&self, shard: &Shard, now: Instant) -> bool {
        let list = shard.list.lock();
        list.requests.first().is_some_and(|first| {
            list.enough
                || first.since + self.gather.wait <= now
                || self.is_draining()
                || !self.depth.is_mostly_deep()
        })
    }

    /// The shard's lock `order` is held.
    fn queue_shard(&self, shard: &Shard) {
        let mut list = shard.list.lock();
        let requests = std::mem::take(&mut list.requests);
        list.rows = 0;
        list.enough = false;
        drop(list);
        let count = requests.len();
        let mut requests = requests.into_iter().peekable();
        let mut alike: Vec<Waiting> = Vec::new();
        while let Some(request) = requests.next() {
            let next_is_like =
                (requests.peek()).is_some_and(|next| next.block.is_like(&request.block));
            alike.push(request);
            if !next_is_like {
                self.queue_together(std::mem::take(&mut alike));
            }
        }
        shard.queued.fetch_add(count as u64, Ordering::SeqCst);
        self.gather.waiting.fetch_sub(count, Ordering::SeqCst);
    }

    /// Returns when the requests of a stream that wait are queued, so that one that does not wait
    /// comes after them.
    pub(crate) async fn queue_earlier(&self, signal: &Signal) {
        if self.gather.waiting() == 0 {
            return;
        }
        let shard = &self.gather.shards[self.gather.number(signal)];
        let put = shard.put.load(Ordering::SeqCst);
        while shard.queued.load(Ordering::SeqCst) < put {
            if !self.queue_if_free(shard) {
                tokio::task::yield_now().await;
            }
        }
        self.queue_due(shard, Instant::now());
    }
}
