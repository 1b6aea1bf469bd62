//! The front: takes requests, hands their rows to the instances' queues, and waits for answers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::RwLock;
use pgbraid_feed::{Block, FeedSchema};
use pgbraid_shardmap::{FeedName, InstanceName, TableId};
use thiserror::Error;
use tokio::{sync::Notify, time::Instant};

use crate::{
    Ack, Code, IngestConfig, Routing, RowRefusal, Signal, Sink,
    admission::HealthState,
    budget::{Budget, Reservation},
    flush::writer,
    plan::{Destination, Plan},
    queue::{InstanceQueue, Moved},
    ticket::Ticket,
};

/// Bytes that a request costs beyond its rows' values, and for each table that it has rows of.
const REQUEST_BYTES: u64 = 1024;
const SEGMENT_BYTES: u64 = 96;

/// Bytes that a row costs beyond its values.
const ROW_BYTES: u64 = 32;

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
///
/// No lock is taken for all rows: the plan is read without one, the bound in bytes is one atomic
/// number, and each instance's queue has a lock of its own, held for moments.
pub struct Ingest {
    pub(crate) config: IngestConfig,
    budget: Arc<Budget>,
    plan: ArcSwap<Plan>,
    /// Held while the plan is made anew as well.
    instances: RwLock<HashMap<InstanceName, Arc<InstanceQueue>>>,
    draining: AtomicBool,
    stale: Arc<Notify>,
    pub(crate) ack_seconds: Histogram,
    pub(crate) expired: Counter,
    /// Rows refused at the edge: they reach no instance.
    invalid: Counter,
}

impl Ingest {
    /// An ingest without instances; needs a tokio runtime later on.
    pub fn new(config: IngestConfig) -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::new(config.queue_bytes),
            config,
            plan: ArcSwap::default(),
            instances: RwLock::default(),
            draining: AtomicBool::new(false),
            stale: Arc::new(Notify::new()),
            ack_seconds: histogram!("pgbraid_ack_seconds"),
            expired: counter!("pgbraid_rows_expired_total"),
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
        let mut instances = self.instances.write();
        instances.insert(queue.name, queue.clone());
        self.plan_again(&instances, self.routing());
        drop(instances);
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
        let mut instances = self.instances.write();
        if let Some(queue) = instances.remove(&instance) {
            self.plan_again(&instances, self.routing());
            queue.close();
        }
    }

    /// The routing in force.
    pub fn routing(&self) -> Arc<Routing> {
        self.plan.load().routing.clone()
    }

    fn plan_again(
        &self,
        instances: &HashMap<InstanceName, Arc<InstanceQueue>>,
        routing: Arc<Routing>,
    ) -> Arc<Plan> {
        let plan = Arc::new(Plan::new(routing, instances));
        self.plan.store(plan.clone());
        plan
    }

    /// Puts a new routing in force: queued rows of tables that moved go to the new owner.
    pub fn set_routing(&self, routing: Routing) {
        let instances = self.instances.write();
        let plan = self.plan_again(&instances, Arc::new(routing));
        let queues: Vec<_> = instances.values().cloned().collect();
        let moved: Vec<Moved> = queues
            .iter()
            .map(|queue| queue.assign(|table| plan.assigned(queue.name, table)))
            .collect();
        drop(instances);
        for moved in moved {
            self.deliver_moved(moved);
        }
    }

    fn deliver_moved(&self, moved: Moved) {
        for (table, instance, segments) in moved {
            match self.queue(instance) {
                Some(queue) => queue.push_moved(&table, segments),
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

    /// Takes a request. Returns when its rows are queued; [`Ack::wait`] tells what became of them,
    /// or `signal` says when to look at [`Ack::is_done`] and [`Ack::news`].
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
        signal: Signal,
    ) -> Result<Ack, SubmitError> {
        let started = Instant::now();
        let rows = u64::from(block.rows());
        let size = block.size() as u64
            + rows * ROW_BYTES
            + rows.min(block.schema.tables.into()) * SEGMENT_BYTES;
        let memory = (self.reserve(size + REQUEST_BYTES, deadline, when_full)).await?;
        let plan = self.plan.load_full();
        let schema: Arc<FeedSchema> = block.schema.clone();
        let feed = plan
            .feed(&schema.feed, schema.tables)
            .ok_or_else(|| SubmitError::UnknownFeed(schema.feed.clone()))?;
        if !block.refused().is_empty() {
            self.invalid.increment(block.refused().len() as u64);
        }
        let mut arranged = block.arrange(&feed.places);
        let segments = std::mem::take(&mut arranged.segments);
        let ticket = Arc::new(Ticket::new(
            arranged,
            size.div_ceil(rows.max(1)),
            deadline,
            signal,
            memory,
        ));
        let slot = |table: TableId| feed.slots[table.index() as usize];
        for segments in segments.chunk_by(|a, b| slot(a.0).0 == slot(b.0).0) {
            let to = &feed.destinations[slot(segments[0].0).0 as usize];
            match to {
                Destination::Queue(queue) => {
                    let room = (self.admit(queue, ticket.deadline, when_full)).await;
                    if let Err((code, reason, message)) = room {
                        queue
                            .metrics
                            .refused(code, self.refuse(&ticket, segments, code, reason, &message));
                        continue;
                    }
                    let rows = segments
                        .iter()
                        .map(|(table, start, end)| (slot(*table).1, *start, *end));
                    let moved = queue.push(&ticket, started, rows);
                    if !moved.is_empty() {
                        self.deliver_moved(moved);
                    }
                }
                to => {
                    let (reason, message) = nowhere(to, &schema.feed, segments[0].0);
                    self.refuse(&ticket, segments, Code::Unavailable, reason, &message);
                }
            }
        }
        Ok(Ack::new(ticket, self.clone(), started))
    }

    async fn reserve(
        &self,
        bytes: u64,
        deadline: Instant,
        when_full: WhenFull,
    ) -> Result<Reservation, SubmitError> {
        if self.draining.load(Ordering::Acquire) {
            return Err(SubmitError::Draining);
        }
        let limit = self.budget.limit();
        let full = SubmitError::Full { queued: limit };
        if bytes > limit {
            return Err(SubmitError::TooLarge { bytes, limit });
        }
        if let Some(taken) = self.budget.try_take(bytes) {
            return Ok(taken);
        }
        match when_full {
            WhenFull::Refuse => Err(full),
            WhenFull::Wait => tokio::time::timeout_at(deadline, self.budget.take(bytes))
                .await
                .map_err(|_| full),
        }
    }

    /// Waits until an instance takes rows, or says why it does not.
    async fn admit(
        &self,
        queue: &InstanceQueue,
        deadline: Instant,
        when_full: WhenFull,
    ) -> Result<(), (Code, &'static str, String)> {
        let instance = queue.name;
        loop {
            match queue.health() {
                HealthState::Open => return Ok(()),
                HealthState::Down(why) => {
                    return Err((
                        Code::Unavailable,
                        "INSTANCE_UNAVAILABLE",
                        format!("{instance} can't be written to now: {why}"),
                    ));
                }
                HealthState::Full if when_full == WhenFull::Wait && Instant::now() < deadline => {
                    queue.space().await;
                }
                HealthState::Full => {
                    return Err((
                        Code::Exhausted,
                        "QUEUE_FULL",
                        format!(
                            "{} bytes are queued for {instance}, which is the limit \
                             (ingest.queue_bytes_per_instance)",
                            self.config.queue_bytes_per_instance
                        ),
                    ));
                }
            }
        }
    }

    /// Refuses the rows of some segments; returns how many they are.
    fn refuse(
        &self,
        ticket: &Ticket,
        segments: &[(TableId, u32, u32)],
        code: Code,
        reason: &'static str,
        message: &str,
    ) -> u64 {
        let rows = segments.iter().flat_map(|(_, start, end)| *start..*end);
        rows.map(|row| {
            let after = self.config.retry_max;
            ticket.refuse(
                row,
                RowRefusal::again(code, reason, message.to_owned(), after),
            );
        })
        .count() as u64
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

    pub(crate) fn reasons(&self) -> String {
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

/// Why rows of a table have no queue to go to.
fn nowhere(to: &Destination, feed: &FeedName, table: TableId) -> (&'static str, String) {
    match to {
        Destination::Queue(_) | Destination::Nobody => (
            "TABLE_UNOWNED",
            format!(
                "no reachable instance owns {table} of feed {feed}: \
                 see `pgbraid status` and `pgbraid check --online`"
            ),
        ),
        Destination::Unknown(instance) => (
            "INSTANCE_UNKNOWN",
            format!("{instance} owns the table but is not in this router's shard map: add it"),
        ),
        Destination::Conflict(instances) => {
            let names: Vec<String> = instances.iter().map(ToString::to_string).collect();
            (
                "TABLE_OWNED_TWICE",
                format!(
                    "{table} of feed {feed} is owned by {} at once, so it is written nowhere: \
                     see `pgbraid status`",
                    names.join(" and ")
                ),
            )
        }
    }
}
