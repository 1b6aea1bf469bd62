//! One follower of changes: a place in each instance's log, and no queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ::metrics::Counter;
use pgbraid_shardmap::InstanceName;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::log::{Cause, Entry, Feeds};
use super::{Change, metrics};
use crate::SubscribeError;
use crate::hub::Shared;
use crate::slot::{Moment, Slot};

/// The most keys of one event: what a follower holds in memory.
const MAX_KEYS: usize = 4096;
/// Heartbeats at a shorter interval than this would only be load.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);

/// What a follower asks for.
#[derive(Debug, Clone)]
pub struct ChangeOptions {
    /// The feeds; an instance is live once it tells the changes of all of them.
    pub feeds: BTreeSet<String>,
    /// The interval of heartbeats, at least 100 ms.
    pub heartbeat: Duration,
}

/// One event of a change stream.
#[derive(Debug, Clone)]
pub enum ChangeEvent {
    /// Rows changed: in the order of the commits on this instance.
    Changes {
        /// The instance.
        instance: InstanceName,
        /// At least one.
        changes: Vec<Arc<Change>>,
    },
    /// Changes of this instance are missing: forget what you know of its rows. It is not live
    /// before the next [`ChangeEvent::Live`].
    Reset {
        /// The instance.
        instance: InstanceName,
        /// Only this feed's are missing.
        feed: Option<Arc<str>>,
        /// Why.
        reason: Arc<str>,
    },
    /// From here on no change of this instance is missing: what is read from it after this event,
    /// and was not changed since by an event, is current.
    Live {
        /// The instance.
        instance: InstanceName,
    },
    /// How far each instance has been heard.
    Heartbeat {
        /// One entry per instance, in their order.
        progress: Vec<ChangeProgress>,
    },
}

/// How far one instance has been heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeProgress {
    /// The instance.
    pub instance: InstanceName,
    /// Whether nothing is missing.
    pub live: bool,
    /// All that was committed before this time was told: µs since the Unix epoch, by the router's
    /// clock. None if it is not live, or that is not known yet.
    pub complete_until_us: Option<i64>,
    /// How long ago that was.
    pub lag: Option<Duration>,
}

struct Lane {
    slot: Arc<Slot>,
    next: u64,
    live: bool,
    /// The log's generation when there was nothing to do.
    seen: Option<u64>,
}

/// A stream of changes; made by [`Hub::follow_changes`](crate::Hub::follow_changes).
pub struct ChangeFollower {
    shared: Arc<Shared>,
    feeds: BTreeSet<String>,
    heartbeat: Duration,
    heartbeat_at: Instant,
    wake: watch::Receiver<u64>,
    topology: u64,
    /// In the order of the instances.
    lanes: Vec<Lane>,
    turn: usize,
    /// Events to tell first; bounded by the number of instances.
    pending: VecDeque<ChangeEvent>,
    delivered: Counter,
}

impl Drop for ChangeFollower {
    fn drop(&mut self) {
        self.shared.changes.leave();
    }
}

impl ChangeFollower {
    pub(crate) fn new(shared: Arc<Shared>, options: ChangeOptions) -> Result<Self, SubscribeError> {
        let limit = shared.config.max_subscribers;
        if !shared.changes.admit(limit) {
            return Err(SubscribeError::TooMany { limit });
        }
        let heartbeat = options.heartbeat.max(MIN_HEARTBEAT);
        let mut follower = Self {
            feeds: options.feeds,
            heartbeat,
            // The first one comes behind what each instance has to say, and so names them all.
            heartbeat_at: Instant::now(),
            wake: shared.changes.watch(),
            // Before the slots, so that a change after this is seen as one.
            topology: shared.topology(),
            lanes: Vec::new(),
            turn: 0,
            pending: VecDeque::new(),
            delivered: metrics::delivered(),
            shared,
        };
        follower.follow_slots();
        Ok(follower)
    }

    /// The next event. Cancel safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> ChangeEvent {
        loop {
            // Seen before looking, so that a change while looking wakes us again.
            self.wake.borrow_and_update();
            let topology = self.shared.topology();
            if topology != self.topology {
                self.topology = topology;
                self.follow_slots();
            }
            if let Some(event) = self.pending.pop_front() {
                return event;
            }
            // A busy stream has heartbeats too, each saying only what went out before it.
            if self.heartbeat_at <= Instant::now() {
                return self.beat();
            }
            let lanes = self.lanes.len();
            for offset in 0..lanes {
                let index = (self.turn + offset) % lanes;
                if let Some(event) = self.step(index) {
                    self.turn = (index + 1) % lanes;
                    return event;
                }
            }
            tokio::select! {
                // The sender lives as long as `shared`, so this cannot end for good.
                _ = self.wake.changed() => {}
                () = sleep_until(self.heartbeat_at) => {}
            }
        }
    }

    /// Takes over the set of instances.
    fn follow_slots(&mut self) {
        let slots = self.shared.slots();
        let mut kept: BTreeMap<InstanceName, Lane> = BTreeMap::new();
        for lane in std::mem::take(&mut self.lanes) {
            let instance = lane.slot.instance;
            if slots.iter().any(|slot| Arc::ptr_eq(slot, &lane.slot)) {
                kept.insert(instance, lane);
            } else {
                let reason = "it was removed from the shard map".into();
                self.reset(instance, Cause::Map, None, reason);
            }
        }
        for slot in slots.iter() {
            let instance = slot.instance;
            if kept.contains_key(&instance) {
                continue;
            }
            let (next, live) = {
                let log = slot.changes.lock();
                (log.end(), self.is_live(&log.live))
            };
            let lane = Lane {
                slot: slot.clone(),
                next,
                live: live.is_ok(),
                seen: None,
            };
            self.pending.push_back(match live {
                Ok(()) => ChangeEvent::Live { instance },
                Err(reason) => ChangeEvent::Reset {
                    instance,
                    feed: None,
                    reason,
                },
            });
            kept.insert(instance, lane);
        }
        self.lanes = kept.into_values().collect();
        self.turn = 0;
    }

    fn reset(
        &mut self,
        instance: InstanceName,
        cause: Cause,
        feed: Option<Arc<str>>,
        reason: Arc<str>,
    ) {
        metrics::resets(cause).increment(1);
        self.pending.push_back(ChangeEvent::Reset {
            instance,
            feed,
            reason,
        });
    }

    /// Whether all the wanted feeds are live; why not, otherwise.
    fn is_live(&self, live: &Result<Arc<Feeds>, Arc<str>>) -> Result<(), Arc<str>> {
        let feeds = live.as_ref().map_err(Arc::clone)?;
        match self
            .feeds
            .iter()
            .find(|feed| !feeds.contains(feed.as_str()))
        {
            None => Ok(()),
            Some(feed) => Err(format!("it does not tell the changes of feed {feed}").into()),
        }
    }

    /// Goes on in one log: to a reset, to LIVE, or to as many changes as go into one event.
    fn step(&mut self, index: usize) -> Option<ChangeEvent> {
        let slot = self.lanes[index].slot.clone();
        if self.lanes[index].seen == Some(slot.changes.generation()) {
            return None;
        }
        let instance = slot.instance;
        let mut changes = Vec::new();
        let mut keys = 0;
        let log = slot.changes.lock();
        let generation = slot.changes.generation();
        let mut next = self.lanes[index].next;
        while keys < MAX_KEYS && self.pending.is_empty() {
            let before = next;
            match log.take(&mut next) {
                None => {
                    self.lanes[index].seen = Some(generation);
                    break;
                }
                // What was gathered goes out first; this comes again with the next step.
                Some(Err(()) | Ok(Entry::Lost { .. } | Entry::Live(_))) if !changes.is_empty() => {
                    next = before;
                    break;
                }
                Some(Ok(Entry::Change(change))) => {
                    if self.feeds.contains(&*change.feed) {
                        keys += change.keys.len();
                        changes.push(change);
                    }
                }
                Some(Ok(Entry::Live(feeds))) => {
                    if !self.lanes[index].live && self.is_live(&Ok(feeds)).is_ok() {
                        self.lanes[index].live = true;
                        self.pending.push_back(ChangeEvent::Live { instance });
                    }
                }
                Some(Ok(Entry::Lost {
                    cause,
                    feed,
                    reason,
                })) => {
                    if feed.as_deref().is_none_or(|feed| self.feeds.contains(feed)) {
                        self.lanes[index].live = false;
                        self.reset(instance, cause, feed, reason);
                    }
                }
                Some(Err(())) => {
                    let live = self.is_live(&log.live).is_ok();
                    self.lanes[index].live = live;
                    let reason = "changes came faster than they were taken".into();
                    self.reset(instance, Cause::Slow, None, reason);
                    if live {
                        self.pending.push_back(ChangeEvent::Live { instance });
                    }
                }
            }
        }
        drop(log);
        self.lanes[index].next = next;
        if changes.is_empty() {
            return self.pending.pop_front();
        }
        self.delivered.increment(keys as u64);
        Some(ChangeEvent::Changes { instance, changes })
    }

    fn beat(&mut self) -> ChangeEvent {
        self.heartbeat_at = Instant::now() + self.heartbeat;
        let progress = self.lanes.iter().map(|lane| {
            let log = lane.slot.changes.lock();
            let told = |(moment, before): (Moment, u64)| (lane.next >= before).then_some(moment);
            let complete = log.complete.filter(|_| lane.live).and_then(told);
            ChangeProgress {
                instance: lane.slot.instance,
                live: lane.live,
                complete_until_us: complete.map(|moment| moment.wall_us),
                lag: complete.map(|moment| moment.elapsed()),
            }
        });
        ChangeEvent::Heartbeat {
            progress: progress.collect(),
        }
    }
}
