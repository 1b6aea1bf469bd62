//! The front: takes requests, hands their rows to the instances' queues, and waits for answers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::RwLock;
use pgbraid_feed::{Block, FeedSchema};
use pgbraid_shardmap::{FeedName, InstanceName, TableId};
use thiserror::Error;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{
    Code, IngestConfig, Outcome, Owner, Routing, RowRefusal, Sink,
    admission::HealthState,
    flush::writer,
    queue::{InstanceQueue, Moved},
    table::{Rows, Segment, TableRef},
    ticket::Ticket,
};

/// Memory permits are counted in this many bytes.
const PERMIT_BYTES: u64 = 1024;

/// What to do when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Wait until there is room or the request's time is over: for streams, which then read no
    /// further.
    Wait,
    /// Refuse the rows with RESOURCE_EXHAUSTED: for unary calls.
    Refuse,
}

/// Why a whole request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The router is shutting down.
    #[error("the router is draining before it stops: send the request again, to another router")]
    Draining,
    /// The bound in bytes over all instances is reached.
    #[error(
        "{queued} bytes are queued, which is the limit (ingest.queue_bytes): send the request again later"
    )]
    Full {
        /// The bound.
        queued: u64,
    },
    /// The request alone is larger than what may be queued.
    #[error(
        "the request holds {bytes} bytes, more than may be queued at all ({limit}, ingest.queue_bytes): send smaller requests"
    )]
    TooLarge {
        /// Of the request.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// The feed is not in the routing.
    #[error("feed {0} is not known to this router")]
    UnknownFeed(FeedName),
}

/// What is queued for an instance, and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStats {
    /// The instance.
    pub instance: InstanceName,
    /// Rows queued and in flight.
    pub rows: u64,
    /// Bytes queued and in flight.
    pub bytes: u64,
    /// Why it can't be written to, if so.
    pub error: Option<String>,
}

/// Takes rows and writes them. Cheap to share.
pub struct Ingest {
    config: IngestConfig,
    memory: Arc<Semaphore>,
    routing: RwLock<Arc<Routing>>,
    instances: RwLock<HashMap<InstanceName, Arc<InstanceQueue>>>,
    draining: AtomicBool,
    stale: Arc<Notify>,
    ack_seconds: Histogram,
    /// Rows refused at the edge: they reach no instance.
    invalid: Counter,
}

/// A request on its way.
pub struct Ack {
    ticket: Arc<Ticket>,
    ingest: Arc<Ingest>,
    started: Instant,
}

impl Ingest {
    /// An ingest without instances; needs a tokio runtime later on.
    pub fn new(config: IngestConfig) -> Arc<Self> {
        let permits = (config.queue_bytes / PERMIT_BYTES).max(1) as usize;
        Arc::new(Self {
            memory: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            config,
            routing: RwLock::default(),
            instances: RwLock::default(),
            draining: AtomicBool::new(false),
            stale: Arc::new(Notify::new()),
            ack_seconds: histogram!("pgbraid_ack_seconds"),
            invalid: counter!("pgbraid_rows_total", "instance" => "", "outcome" => "invalid"),
        })
    }

    /// Woken when an instance says that a table is not its own any more: read ownership again.
    pub fn stale_routing(&self) -> Arc<Notify> {
        self.stale.clone()
    }

    /// Adds an instance with a number of writers, each of which has one batch in flight.
    pub fn add_instance(self: &Arc<Self>, sink: Arc<dyn Sink>, writers: usize) {
        let queue = Arc::new(InstanceQueue::new(sink, self.config.clone()));
        self.instances.write().insert(queue.name, queue.clone());
        for _ in 0..writers.max(1) {
            let ingest = self.clone();
            let moved = move |moved: Moved| ingest.deliver_moved(moved);
            tokio::spawn(writer(queue.clone(), moved, self.stale.clone()));
        }
        let weak = Arc::downgrade(&queue);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                match weak.upgrade() {
                    Some(queue) => queue.sweep(Instant::now()),
                    None => return,
                }
            }
        });
    }

    /// Takes an instance out: what is queued for it is still written, new rows are refused.
    pub fn remove_instance(&self, instance: InstanceName) {
        if let Some(queue) = self.instances.write().remove(&instance) {
            queue.close();
        }
    }

    /// The routing in force.
    pub fn routing(&self) -> Arc<Routing> {
        self.routing.read().clone()
    }

    /// Puts a new routing in force: queued rows of tables that moved go to the new owner.
    pub fn set_routing(&self, routing: Routing) {
        let routing = Arc::new(routing);
        *self.routing.write() = routing.clone();
        let queues: Vec<_> = self.instances.read().values().cloned().collect();
        for queue in queues {
            for table in queue.tables() {
                let owner = routing
                    .feeds
                    .get(&table.feed)
                    .and_then(|feed| feed.owners.get(table.table.index() as usize));
                let (owner, held) = match owner {
                    Some(Owner::One(instance)) => (Some(*instance), false),
                    Some(Owner::Held(instance)) => (Some(*instance), true),
                    _ => (None, true),
                };
                self.deliver_moved(queue.assign(&table, owner, held));
            }
        }
    }

    fn deliver_moved(&self, moved: Moved) {
        for (table, instance, segments) in moved {
            match self.queue(instance) {
                Some(queue) => {
                    queue.push(segments.into_iter().map(|segment| (table.clone(), segment)));
                }
                None => {
                    for segment in segments {
                        segment.ticket.expire(
                            "INSTANCE_UNAVAILABLE",
                            &format!(
                                "{table:?} moved to {instance}, which this router does not know yet"
                            ),
                            self.config.retry_max,
                        );
                    }
                }
            }
        }
    }

    fn queue(&self, instance: InstanceName) -> Option<Arc<InstanceQueue>> {
        self.instances.read().get(&instance).cloned()
    }

    /// Takes a request. Returns when its rows are queued; [`Ack::wait`] tells what became of them.
    ///
    /// Rows of one key that are submitted one after the other are written in that order.
    ///
    /// # Errors
    /// Where no row is taken.
    pub async fn submit(
        self: &Arc<Self>,
        block: Block,
        deadline: Instant,
        when_full: WhenFull,
    ) -> Result<Ack, SubmitError> {
        let started = Instant::now();
        let bytes = block.size() as u64 + u64::from(block.rows()) * 32;
        let memory = self.reserve(bytes, deadline, when_full).await?;
        let routing = self.routing();
        let feed: &FeedSchema = &block.schema;
        let route = routing
            .feeds
            .get(&feed.feed)
            .filter(|route| route.owners.len() == feed.tables as usize)
            .ok_or_else(|| SubmitError::UnknownFeed(feed.feed.clone()))?;
        let routed = block.route();
        let feed = feed.feed.clone();
        self.invalid.increment(block.refused().len() as u64);
        let ticket = Arc::new(Ticket::new(
            Arc::new(block),
            routed.order,
            deadline,
            Some(memory),
        ));
        let mut by_instance: HashMap<InstanceName, Vec<(TableId, u32, u32)>> = HashMap::new();
        for (table, start, end) in routed.segments {
            match &route.owners[table.index() as usize] {
                Owner::One(instance) | Owner::Held(instance) => by_instance
                    .entry(*instance)
                    .or_default()
                    .push((table, start, end)),
                Owner::Nobody => self.refuse(
                    &ticket,
                    None,
                    (start, end),
                    Code::Unavailable,
                    "TABLE_UNOWNED",
                    &format!(
                        "no reachable instance owns {table} of feed {feed}: \
                         see `pgbraid status` and `pgbraid check --online`"
                    ),
                ),
                Owner::Conflict(instances) => self.refuse(
                    &ticket,
                    None,
                    (start, end),
                    Code::Unavailable,
                    "TABLE_OWNED_TWICE",
                    &format!(
                        "{table} of feed {feed} is owned by {} at once, so it is written nowhere: \
                         see `pgbraid status`",
                        instances
                            .iter()
                            .map(ToString::to_string)
                            .collect::<Vec<_>>()
                            .join(" and ")
                    ),
                ),
            }
        }
        for (instance, segments) in by_instance {
            self.enqueue(&ticket, &feed, instance, segments, when_full, started)
                .await;
        }
        Ok(Ack {
            ticket,
            ingest: self.clone(),
            started,
        })
    }

    async fn reserve(
        &self,
        bytes: u64,
        deadline: Instant,
        when_full: WhenFull,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, SubmitError> {
        if self.draining.load(Ordering::Acquire) {
            return Err(SubmitError::Draining);
        }
        let full = SubmitError::Full {
            queued: self.config.queue_bytes,
        };
        if bytes > self.config.queue_bytes {
            return Err(SubmitError::TooLarge {
                bytes,
                limit: self.config.queue_bytes,
            });
        }
        let limit = (self.config.queue_bytes / PERMIT_BYTES).max(1);
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, limit) as u32;
        let memory = self.memory.clone();
        match when_full {
            WhenFull::Refuse => memory.try_acquire_many_owned(permits).map_err(|_| full),
            WhenFull::Wait => tokio::time::timeout_at(deadline, memory.acquire_many_owned(permits))
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or(full),
        }
    }

    async fn enqueue(
        &self,
        ticket: &Arc<Ticket>,
        feed: &FeedName,
        instance: InstanceName,
        segments: Vec<(TableId, u32, u32)>,
        when_full: WhenFull,
        queued: Instant,
    ) {
        let refuse = |code, reason, message: String| {
            for (_, start, end) in &segments {
                self.refuse(
                    ticket,
                    Some(instance),
                    (*start, *end),
                    code,
                    reason,
                    &message,
                );
            }
        };
        let Some(queue) = self.queue(instance) else {
            refuse(
                Code::Unavailable,
                "INSTANCE_UNKNOWN",
                format!("{instance} owns the table but is not in this router's shard map: add it"),
            );
            return;
        };
        loop {
            match queue.health() {
                HealthState::Open => break,
                HealthState::Down(why) => {
                    refuse(
                        Code::Unavailable,
                        "INSTANCE_UNAVAILABLE",
                        format!("{instance} can't be written to now: {why}"),
                    );
                    return;
                }
                HealthState::Full
                    if when_full == WhenFull::Wait && Instant::now() < ticket.deadline =>
                {
                    queue.space().await;
                }
                HealthState::Full => {
                    refuse(
                        Code::Exhausted,
                        "QUEUE_FULL",
                        format!(
                            "{} bytes are queued for {instance}, which is the limit \
                             (ingest.queue_bytes_per_instance)",
                            self.config.queue_bytes_per_instance
                        ),
                    );
                    return;
                }
            }
        }
        queue.push(segments.into_iter().map(|(table, start, end)| {
            let table = TableRef {
                feed: feed.clone(),
                table,
            };
            let segment = Segment {
                ticket: ticket.clone(),
                rows: Rows::Range(start, end),
                queued,
            };
            (table, segment)
        }));
    }

    fn refuse(
        &self,
        ticket: &Ticket,
        instance: Option<InstanceName>,
        (start, end): (u32, u32),
        code: Code,
        reason: &'static str,
        message: &str,
    ) {
        for row in &ticket.order[start as usize..end as usize] {
            ticket.refuse(RowRefusal::again(
                code,
                *row,
                reason,
                message.to_owned(),
                self.config.retry_max,
            ));
        }
        if let Some(queue) = instance.and_then(|instance| self.queue(instance)) {
            queue.metrics.refused(code, u64::from(end - start));
        }
    }

    /// What is queued, by instance.
    pub fn stats(&self) -> Vec<InstanceStats> {
        let mut stats: Vec<InstanceStats> = self
            .instances
            .read()
            .values()
            .map(|queue| {
                let (rows, bytes) = queue.queued();
                InstanceStats {
                    instance: queue.name,
                    rows,
                    bytes,
                    error: queue.reason(),
                }
            })
            .collect();
        stats.sort_by_key(|stats| stats.instance);
        stats
    }

    /// Takes no further requests and waits until all rows taken have their answer, or the
    /// deadline. Returns the rows left over.
    pub async fn drain(&self, deadline: Instant) -> u64 {
        self.draining.store(true, Ordering::Release);
        let left = || self.stats().iter().map(|stats| stats.rows).sum::<u64>();
        while left() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let over = left();
        for queue in self.instances.read().values() {
            queue.close();
        }
        over
    }

    fn reasons(&self) -> String {
        let down: Vec<String> = self
            .stats()
            .into_iter()
            .filter_map(|stats| Some(format!("{}: {}", stats.instance, stats.error?)))
            .take(4)
            .collect();
        if down.is_empty() {
            String::new()
        } else {
            format!(" ({})", down.join("; "))
        }
    }
}

impl Ack {
    /// Waits until every row is committed or refused. Past the request's deadline the rows without
    /// an answer are refused as UNAVAILABLE; one that was just being written may still be committed.
    pub async fn wait(self) -> Outcome {
        let waited = tokio::time::timeout_at(self.ticket.deadline, self.ticket.wait()).await;
        if waited.is_err() {
            let message = format!(
                "not known to be committed within the request's time{}",
                self.ingest.reasons()
            );
            let expired = self
                .ticket
                .expire("DEADLINE", &message, self.ingest.config.retry_max);
            counter!("pgbraid_rows_expired_total").increment(expired);
        }
        self.ingest
            .ack_seconds
            .record(self.started.elapsed().as_secs_f64());
        self.ticket.outcome()
    }
}
