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
use pgbraid_shardmap::{FeedName, InstanceName};
use thiserror::Error;
use tokio::{sync::Notify, time::Instant};

use crate::{
    Ack, Code, IngestConfig, Routing, RowRefusal, Signal, Sink,
    budget::{Budget, Reservation},
    depth::Depth,
    flush::writer,
    gather::{Gather, Waiting},
    lot::Lot,
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
    pub(crate) plan: ArcSwap<Plan>,
    pub(crate) depth: Arc<Depth>,
    pub(crate) gather: Gather,
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
            depth: Arc::default(),
            gather: Gather::new(config.linger),
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
        let queue = Arc::new(InstanceQueue::new(
            sink,
            self.config.clone(),
            self.depth.clone(),
        ));
        let mut instances = self.instances.write();
        instances.insert(queue.name, queue.clone());
        self.plan_again(&instances, self.routing());
        drop(instances);
        for _ in 0..writers.max(1) {
            let ingest = self.clone();
            let moved = move |moved: Moved| {
                ingest.deliver_moved(moved);
                ingest.queue_all_due();
            };
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
        self.depth.set_instances(instances.len());
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

    pub(crate) fn deliver_moved(&self, moved: Moved) {
        for (table, instance, segments) in moved {
            match self.queue(instance) {
                Some(queue) => queue.push_moved(&table, segments),
                None => {
                    for segment in segments {
                        segment.refuse(|| {
                            RowRefusal::again(
                                Code::Unavailable,
                                "INSTANCE_UNAVAILABLE",
                                format!(
                                    "{table:?} moved to {instance}, which this router does not \
                                     know yet"
                                ),
                                self.config.retry_max,
                            )
                        });
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
        if when_full == WhenFull::Wait && self.is_to_wait(&block, started) {
            let invalid = block.refused().to_vec();
            let ticket =
                Ticket::unarranged(block.rows(), invalid, deadline, signal.clone(), memory);
            let ticket = Arc::new(ticket);
            let waiting = Waiting {
                ticket: ticket.clone(),
                block,
                bytes: size,
                since: Instant::now(),
            };
            self.put(&signal, waiting);
            return Ok(Ack::new(ticket, self.clone(), started));
        }
        self.queue_earlier(&signal).await;
        let arranged = block.arrange(&feed.places);
        let invalid = arranged.block.refused().to_vec();
        let ticket = Ticket::arranged(arranged.origin, invalid, deadline, signal, memory);
        let ticket = Arc::new(ticket);
        let row_bytes = size.div_ceil(rows.max(1));
        let lot = Arc::new(Lot::one(arranged.block, ticket.clone(), row_bytes));
        for (to, segments) in feed.by_destination(&arranged.segments) {
            if let Destination::Queue(queue) = to {
                let room = self.admit(queue, deadline, when_full).await;
                self.queue_or_refuse(&lot, feed, queue, segments, started, room);
            } else {
                self.refuse_nowhere(&lot, to, segments);
            }
        }
        Ok(Ack::new(ticket, self.clone(), started))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    async fn reserve(
        &self,
        bytes: u64,
        deadline: Instant,
        when_full: WhenFull,
    ) -> Result<Reservation, SubmitError> {
        if self.is_draining() {
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
        self.draining.store(true, Ordering::SeqCst);
        let left = || {
            self.queue_all_due();
            self.stats().iter().map(|stats| stats.rows).sum::<u64>()
        };
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
