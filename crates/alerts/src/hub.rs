//! Fan-in for one router: a reader and a slot per instance.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pgbraid_shardmap::InstanceName;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::changes::{ChangeFollower, ChangeHub, ChangeOptions};
use crate::group::{self, Gates};
use crate::metrics::{self, ChannelLabels};
use crate::reader::Reader;
use crate::slot::{Health, Slot};
use crate::{
    Consumer, ConsumerOptions, DeliveryId, HubConfig, Identity, Settle, Settled, Source,
    SubscribeError, SubscribeOptions, Subscription,
};

/// How often the lag of the cursors is exported.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

type OwnershipCallback = Arc<dyn Fn(InstanceName) + Send + Sync>;

/// What readers and subscriptions share.
pub(crate) struct Shared {
    pub(crate) config: HubConfig,
    pub(crate) cluster: [u8; 16],
    pub(crate) channels: ChannelLabels,
    pub(crate) catch_up: Semaphore,
    slots: RwLock<Arc<[Arc<Slot>]>>,
    topology: AtomicU64,
    wake: watch::Sender<u64>,
    /// For the members of groups: also when an instance was read that had nothing new, since
    /// what they wait for may not be new.
    group_wake: watch::Sender<u64>,
    pub(crate) gates: Gates,
    pub(crate) changes: ChangeHub,
    subscribers: AtomicUsize,
    ownership: RwLock<Option<OwnershipCallback>>,
}

impl Shared {
    /// Wakes the subscriptions that wait. Call it after the change.
    pub(crate) fn wake(&self) {
        self.wake.send_modify(|generation| *generation += 1);
        self.wake_groups();
    }

    /// Wakes the members of groups.
    pub(crate) fn wake_groups(&self) {
        self.group_wake.send_modify(|generation| *generation += 1);
    }

    pub(crate) fn watch_groups(&self) -> watch::Receiver<u64> {
        self.group_wake.subscribe()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// Grows with every change of the set of instances, after it.
    pub(crate) fn topology(&self) -> u64 {
        self.topology.load(Ordering::Acquire)
    }

    /// All instances, in their order.
    pub(crate) fn slots(&self) -> Arc<[Arc<Slot>]> {
        self.slots.read().clone()
    }

    pub(crate) fn ownership_may_have_changed(&self, instance: InstanceName) {
        let callback = self.ownership.read().clone();
        if let Some(callback) = callback {
            callback(instance);
        }
    }

    /// Counts one subscriber more, unless there are too many.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Admission, SubscribeError> {
        let limit = self.config.max_subscribers;
        let more = |count: usize| (count < limit).then_some(count + 1);
        let admitted = self
            .subscribers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        let before = admitted.map_err(|_| SubscribeError::TooMany { limit })?;
        metrics::set_subscribers(before + 1);
        Ok(Admission(self.clone()))
    }
}

/// One of the subscribers, until it is dropped.
pub(crate) struct Admission(Arc<Shared>);

impl Drop for Admission {
    fn drop(&mut self) {
        let before = self.0.subscribers.fetch_sub(1, Ordering::AcqRel);
        metrics::set_subscribers(before - 1);
    }
}

/// The reader of each instance, with the source it reads.
type Readers = BTreeMap<InstanceName, (Arc<dyn Source>, AbortHandle)>;

/// The tasks of a hub; they end with its last clone.
#[derive(Default)]
struct Tasks {
    readers: Mutex<Readers>,
    lag: Mutex<Option<AbortHandle>>,
}

impl Tasks {
    fn stop(&self) {
        for (_, reader) in std::mem::take(&mut *self.readers.lock()).into_values() {
            reader.abort();
        }
        if let Some(lag) = self.lag.lock().take() {
            lag.abort();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How one instance is being read.
#[derive(Debug, Clone)]
pub struct InstanceStatus {
    /// The instance.
    pub instance: InstanceName,
    /// Whether its outbox is followed.
    pub readable: bool,
    /// Why it cannot be read, if so.
    pub reason: Option<Arc<str>>,
    /// The PostgreSQL that answered last.
    pub identity: Option<Identity>,
    /// Time since its outbox was last read to the end.
    pub lag: Duration,
}

/// Fan-in for one router. Clones share it; with the last one its tasks end.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

impl Hub {
    /// Starts to follow these instances, a task each. Must be called in a Tokio runtime.
    pub fn new(config: HubConfig, cluster: [u8; 16], sources: Vec<Arc<dyn Source>>) -> Self {
        let config = config.checked();
        let shared = Arc::new(Shared {
            catch_up: Semaphore::new(config.catchup_reads),
            config,
            cluster,
            channels: ChannelLabels::default(),
            slots: RwLock::new(Arc::new([])),
            topology: AtomicU64::new(0),
            wake: watch::Sender::new(0),
            group_wake: watch::Sender::new(0),
            gates: Gates::default(),
            changes: ChangeHub::default(),
            subscribers: AtomicUsize::new(0),
            ownership: RwLock::new(None),
        });
        let tasks = Arc::new(Tasks::default());
        let lag = tokio::spawn(export_lag(shared.clone())).abort_handle();
        *tasks.lag.lock() = Some(lag);
        let hub = Self { shared, tasks };
        hub.set_sources(sources);
        hub
    }

    /// Waits for `shutdown`, then stops following.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.close();
    }

    /// Stops following. Subscriptions stay, and get nothing new but heartbeats.
    pub fn close(&self) {
        self.tasks.stop();
    }

    /// Follows exactly these instances from now on.
    ///
    /// A source that is the same `Arc` as before is not disturbed; another one of the same
    /// instance goes on from the same cursor. Subscriptions get new instances from their beginning.
    /// Must be called in a Tokio runtime.
    pub fn set_sources(&self, sources: Vec<Arc<dyn Source>>) {
        // Held throughout, so that two calls at once do not mix.
        let mut readers = self.tasks.readers.lock();
        let before = self.shared.slots();
        let mut wanted: BTreeMap<InstanceName, Arc<dyn Source>> = BTreeMap::new();
        for source in sources {
            wanted.insert(source.instance(), source);
        }
        readers.retain(|instance, (_, reader)| {
            let keep = wanted.contains_key(instance);
            if !keep {
                reader.abort();
            }
            keep
        });
        for slot in before
            .iter()
            .filter(|slot| !wanted.contains_key(&slot.instance))
        {
            // Its reader may be running for a moment still; it finds that its term is over.
            slot.new_term(slot.source());
        }
        let mut slots = Vec::with_capacity(wanted.len());
        for (instance, source) in wanted {
            let kept = before.iter().find(|slot| slot.instance == instance);
            let slot = kept.cloned();
            let slot =
                slot.unwrap_or_else(|| Arc::new(Slot::new(source.clone(), &self.shared.config)));
            slots.push(slot.clone());
            match readers.get(&instance) {
                Some((same, _)) if Arc::ptr_eq(same, &source) => continue,
                Some((_, reader)) => reader.abort(),
                None => {}
            }
            let term = slot.new_term(source.clone());
            let shared = self.shared.clone();
            let reader = Reader {
                shared,
                slot,
                source: source.clone(),
                term,
            };
            let task = tokio::spawn(reader.run()).abort_handle();
            readers.insert(instance, (source, task));
        }
        let slots: Arc<[Arc<Slot>]> = slots.into();
        *self.shared.slots.write() = slots.clone();
        self.shared.topology.fetch_add(1, Ordering::AcqRel);
        self.shared.wake();
        self.shared.changes.wake();
        let gone = |slot: &&Arc<Slot>| !slots.iter().any(|kept| Arc::ptr_eq(kept, slot));
        before
            .iter()
            .filter(gone)
            .for_each(|slot| slot.metrics.retire());
    }

    /// Calls this whenever the ownership of tables on an instance may have changed: on its
    /// notification, and after each (re)connect, when one may have been missed. It must not block.
    pub fn on_ownership(&self, callback: impl Fn(InstanceName) + Send + Sync + 'static) {
        *self.shared.ownership.write() = Some(Arc::new(callback));
    }

    /// A new subscription.
    pub fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, SubscribeError> {
        Subscription::new(self.shared.clone(), options)
    }

    /// A new member of a group.
    pub fn consume(&self, options: ConsumerOptions) -> Result<Consumer, SubscribeError> {
        Consumer::new(self.shared.clone(), options)
    }

    /// Settles deliveries of a group, whoever they were delivered through. In the order of the
    /// settlements.
    pub async fn settle(
        &self,
        group: &str,
        settlements: Vec<(DeliveryId, Settle)>,
    ) -> Vec<(DeliveryId, Settled)> {
        group::settle_all(&self.shared, group, settlements).await
    }

    /// A new follower of changes.
    pub fn follow_changes(&self, options: ChangeOptions) -> Result<ChangeFollower, SubscribeError> {
        ChangeFollower::new(self.shared.clone(), options)
    }

    /// The feeds whose changes some instance tells; `None` unless all instances are heard.
    pub fn tracked_feeds(&self) -> Option<BTreeSet<Arc<str>>> {
        let mut tracked = BTreeSet::new();
        for slot in self.shared.slots().iter() {
            let live = slot.changes.lock().live.clone();
            tracked.extend(live.ok()?.iter().cloned());
        }
        Some(tracked)
    }

    /// How each instance is being read, in their order.
    pub fn status(&self) -> Vec<InstanceStatus> {
        let slots = self.shared.slots();
        slots.iter().map(|slot| status(slot)).collect()
    }
}

fn status(slot: &Slot) -> InstanceStatus {
    let lag = slot.lag();
    let reason = slot.down_reason();
    let state = slot.lock();
    InstanceStatus {
        instance: slot.instance,
        readable: matches!(state.health, Health::Up),
        reason,
        identity: state.identity,
        lag,
    }
}

async fn export_lag(shared: Arc<Shared>) {
    let mut ticks = interval(LAG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for slot in shared.slots().iter() {
            slot.metrics.cursor_lag.set(slot.lag().as_secs_f64());
            let bytes = slot.lock().ring.bytes();
            slot.metrics.buffered.set(bytes as f64);
        }
    }
}
