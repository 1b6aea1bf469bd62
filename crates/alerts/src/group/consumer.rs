//! One member of a group.
//!
//! It claims from each instance that may have something, one claim an instance at a time and never
//! more in all than the member may hold. Claims and settlements run as tasks, so that an instance
//! that does not answer keeps nobody from the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pgbraid_shardmap::InstanceName;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::lane::{GroupLane, Reason};
use super::pending::{Held, ToSettle};
use super::{Claim, Delivery, DeliveryId, Settle, Settled};
use crate::hub::{Admission, Shared};
use crate::metrics::GroupMetrics;
use crate::reader::ask;
use crate::slot::{Slot, now_us};
use crate::{SourceError, SubscribeError};

/// The most alerts of one claim: an instance's claims of one group wait for each other.
const CLAIM_ALERTS: u32 = 500;
/// The most bytes of one claim.
const CLAIM_BYTES: u64 = 2 << 20;
/// The most settlements of one transaction.
const SETTLE_TOGETHER: usize = 2000;

/// What a member asks for.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The group.
    pub group: String,
    /// A name for people.
    pub member: String,
    /// The most deliveries it may hold unsettled.
    pub max_in_flight: u32,
    /// Only from these instances; empty is all.
    pub instances: Vec<InstanceName>,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerEvent {
    /// Alerts for it.
    Deliveries(Vec<Delivery>),
    /// What became of its settlements.
    Settled(Vec<(DeliveryId, Settled)>),
    /// An instance cannot be claimed from.
    InstanceDown(InstanceName, Arc<str>),
    /// It can again.
    InstanceUp(InstanceName),
}

enum Done {
    /// None: another member of this router has just taken what there was.
    Claimed(Option<Result<Claim, SourceError>>),
    Settled(Vec<(DeliveryId, Settle)>, Result<Vec<bool>, SourceError>),
}

/// See the module; made by [`Hub::consume`](crate::Hub::consume).
pub struct Consumer {
    shared: Arc<Shared>,
    options: ConsumerOptions,
    wake: watch::Receiver<u64>,
    topology: u64,
    lanes: BTreeMap<InstanceName, GroupLane>,
    /// The last instance claimed from: the next one after it has the first turn.
    turn: Option<InstanceName>,
    held: Held,
    settling: ToSettle,
    tasks: JoinSet<(InstanceName, Done)>,
    events: VecDeque<ConsumerEvent>,
    metrics: GroupMetrics,
    _admission: Admission,
}

impl Consumer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: ConsumerOptions,
    ) -> Result<Self, SubscribeError> {
        let mut consumer = Self {
            _admission: shared.admit()?,
            metrics: GroupMetrics::new(&options.group),
            wake: shared.watch_groups(),
            // Not the present one: the first look finds the instances.
            topology: shared.topology().wrapping_sub(1),
            shared,
            options,
            lanes: BTreeMap::new(),
            turn: None,
            held: Held::default(),
            settling: ToSettle::default(),
            tasks: JoinSet::new(),
            events: VecDeque::new(),
        };
        consumer.follow_topology();
        Ok(consumer)
    }

    /// Settlements that are not answered yet. Do not give it more than can be kept.
    pub fn unsettled(&self) -> usize {
        self.settling.len()
    }

    /// Deliveries that the member holds.
    pub fn in_flight(&self) -> usize {
        self.held.len()
    }

    /// Takes what the member says of a delivery. The answer is an event.
    pub fn settle(&mut self, id: DeliveryId, settle: Settle) {
        if self.lanes.contains_key(&id.instance) {
            self.settling.push(id, settle);
        } else {
            let why = "the instance is not in the shard map".into();
            let event = ConsumerEvent::Settled(vec![(id, Settled::Unavailable(why))]);
            self.events.push_back(event);
        }
    }

    /// The next event. Cancel safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> ConsumerEvent {
        loop {
            if let Some(event) = self.step() {
                return event;
            }
            self.rest().await;
        }
    }

    /// The next deliveries, or none: when there are none anywhere, or after `wait` if that is
    /// longer.
    pub async fn pull(&mut self, wait: Duration) -> Vec<Delivery> {
        let until = Instant::now() + wait;
        loop {
            match self.step() {
                Some(ConsumerEvent::Deliveries(first)) => return self.collect(first).await,
                Some(_) => continue,
                None => {}
            }
            let now = Instant::now();
            let idle = self.lanes.values().all(|lane| lane.is_idle(now));
            if now >= until && idle {
                return Vec::new();
            }
            // A claim that is under way may hold alerts: it is waited for, within its own limit.
            let end = until.max(now + self.shared.config.call_timeout);
            if timeout(end - now, self.rest()).await.is_err() {
                return Vec::new();
            }
        }
    }

    /// With the deliveries of the claims that are under way: nobody would settle them.
    async fn collect(&mut self, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if let ConsumerEvent::Deliveries(more) = event {
                    deliveries.extend(more);
                }
            }
            if self.lanes.values().all(|lane| lane.asked.is_none()) {
                return deliveries;
            }
            match self.tasks.join_next_with_id().await {
                Some(done) => self.ended(done),
                None => return deliveries,
            }
        }
    }

    /// Gives up what it holds, for other members at once. Waits for claims that are under way, as
    /// long as `limit`; what it can't give back comes back when its time is over. What a member that
    /// was `lost` held counts as delivered: it may be what the member died of.
    pub async fn leave(mut self, limit: Duration, reason: &str, lost: bool) {
        let giving_back = async {
            while self.lanes.values().any(|lane| lane.asked.is_some()) {
                let Some(done) = self.tasks.join_next_with_id().await else {
                    break;
                };
                self.ended(done);
            }
            for id in self.held.take() {
                let reason = reason.to_owned();
                let delay = Duration::ZERO;
                let settle = if lost {
                    Settle::Nack { delay, reason }
                } else {
                    Settle::Release { reason }
                };
                self.settling.push(id, settle);
            }
            while self.settling.len() > 0 {
                self.start_settling();
                match self.tasks.join_next_with_id().await {
                    Some(done) => self.ended(done),
                    None => break,
                }
            }
        };
        if timeout(limit, giving_back).await.is_err() {
            tracing::debug!("deliveries of a member that left come back when their time is over");
        }
    }

    /// Forgets what was delivered, which others than this router will settle.
    pub fn detach(mut self) {
        self.held.take();
    }

    /// Goes on without waiting.
    fn step(&mut self) -> Option<ConsumerEvent> {
        self.wake.borrow_and_update();
        self.follow_topology();
        while let Some(done) = self.tasks.try_join_next_with_id() {
            self.ended(done);
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.held.expire(Instant::now());
        self.start_settling();
        self.start_claims();
        None
    }

    async fn rest(&mut self) {
        let now = Instant::now();
        let room = self.room() > 0;
        let lanes = self.lanes.values().filter_map(GroupLane::look_at);
        let looks = lanes.filter(|_| room).min();
        let until = [looks, self.held.next_deadline()]
            .into_iter()
            .flatten()
            .min();
        let until = until.unwrap_or(now + Duration::from_secs(3600));
        let mut ended = None;
        tokio::select! {
            // The sender lives as long as `shared`, so this cannot end for good.
            _ = self.wake.changed() => {}
            Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                ended = Some(done);
            }
            () = sleep_until(until) => {}
        }
        if let Some(done) = ended {
            self.ended(done);
        }
    }

    /// How many more alerts it may claim.
    fn room(&self) -> u32 {
        let asked: u32 = self.lanes.values().filter_map(|lane| lane.asked).sum();
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        self.options
            .max_in_flight
            .saturating_sub(asked.saturating_add(held))
    }

    fn start_claims(&mut self) {
        // Round from the one after the last, so that a busy instance leaves room for the others.
        let after = self.turn;
        let mut order: Vec<InstanceName> = self.lanes.keys().copied().collect();
        let first = order.partition_point(|name| Some(*name) <= after);
        order.rotate_left(first);
        let now = Instant::now();
        let ready: Vec<(InstanceName, Reason)> = order
            .into_iter()
            .filter_map(|name| Some((name, self.lanes[&name].reason(now)?)))
            .collect();
        let mut left = u32::try_from(ready.len()).unwrap_or(u32::MAX);
        for (instance, reason) in ready {
            let room = self.room();
            if room == 0 {
                return;
            }
            // A fair share of the room, and one that does not answer never holds all of it.
            let share = room.div_ceil(left).min(CLAIM_ALERTS);
            let most = (self.options.max_in_flight / 2).max(1);
            left -= 1;
            self.turn = Some(instance);
            self.claim(instance, reason, share.min(most));
        }
    }

    fn claim(&mut self, instance: InstanceName, reason: Reason, limit: u32) {
        let Some(lane) = self.lanes.get_mut(&instance) else {
            return;
        };
        let (slot, gate) = (lane.slot.clone(), lane.gate.clone());
        lane.started(limit, slot.generation());
        let (shared, options) = (self.shared.clone(), self.options.clone());
        self.tasks.spawn(async move {
            let claimed = async {
                let _turn = gate.turn.lock().await;
                let generation = slot.generation();
                if reason == Reason::News && gate.is_dry(generation) {
                    return None;
                }
                let claim = claim(&shared, &slot, &options, limit).await;
                if claim.as_ref().is_ok_and(|claim| !claim.more) {
                    gate.found_end(generation);
                }
                Some(claim)
            };
            (instance, Done::Claimed(claimed.await))
        });
    }

    fn start_settling(&mut self) {
        while let Some(settlements) = self.settling.start(SETTLE_TOGETHER) {
            let Some((first, _)) = settlements.first() else {
                return;
            };
            let instance = first.instance;
            let slot = self.lanes.get(&instance).map(|lane| lane.slot.clone());
            let (shared, group) = (self.shared.clone(), self.options.group.clone());
            self.tasks.spawn(async move {
                let answer = match slot {
                    Some(slot) => settle(&shared, &slot, &group, &settlements).await,
                    None => Err(SourceError::new("the instance is not in the shard map")),
                };
                (instance, Done::Settled(settlements, answer))
            });
        }
    }

    fn ended(&mut self, done: Result<(Id, (InstanceName, Done)), tokio::task::JoinError>) {
        match done {
            Ok((_, (instance, Done::Claimed(claim)))) => self.claimed(instance, claim),
            Ok((_, (instance, Done::Settled(settlements, answer)))) => {
                self.settling.ended(instance);
                self.settled(settlements, answer);
            }
            // A task that panicked: what it claimed comes back when its time is over.
            Err(error) => tracing::error!("a group's task failed: {error}"),
        }
    }

    fn claimed(&mut self, instance: InstanceName, claim: Option<Result<Claim, SourceError>>) {
        let Some(lane) = self.lanes.get_mut(&instance) else {
            return;
        };
        let claim = match claim {
            None => return lane.claimed(false, None),
            Some(Ok(claim)) => claim,
            Some(Err(error)) => {
                lane.failed(&error, &self.shared.config);
                if !std::mem::replace(&mut lane.told_down, true) {
                    let reason = error.chain().into();
                    self.events
                        .push_back(ConsumerEvent::InstanceDown(instance, reason));
                }
                return;
            }
        };
        lane.claimed(claim.more, claim.next_in);
        if std::mem::replace(&mut lane.told_down, false) {
            self.events.push_back(ConsumerEvent::InstanceUp(instance));
        }
        if claim.deliveries.is_empty() {
            return;
        }
        self.metrics.delivered(&claim.deliveries);
        let (now, wall) = (Instant::now(), now_us());
        for delivery in &claim.deliveries {
            let left = u64::try_from(delivery.deadline_us - wall).unwrap_or(0);
            self.held
                .add(delivery.id, now + Duration::from_micros(left));
        }
        self.events
            .push_back(ConsumerEvent::Deliveries(claim.deliveries));
    }

    fn settled(
        &mut self,
        settlements: Vec<(DeliveryId, Settle)>,
        answer: Result<Vec<bool>, SourceError>,
    ) {
        let open = match answer {
            Ok(open) => open,
            Err(error) => {
                let why: Arc<str> = error.chain().into();
                let failed = settlements
                    .into_iter()
                    .map(|(id, _)| (id, Settled::Unavailable(why.clone())))
                    .collect();
                return self.events.push_back(ConsumerEvent::Settled(failed));
            }
        };
        let now = Instant::now();
        let mut results = Vec::with_capacity(settlements.len());
        for ((id, settle), open) in settlements.into_iter().zip(open) {
            match &settle {
                Settle::Extend { by } if open => self.held.extend(&id, now + *by),
                _ => self.held.remove(&id),
            }
            self.metrics.settled(&settle, open);
            results.push((id, if open { Settled::Done } else { Settled::Stale }));
        }
        self.events.push_back(ConsumerEvent::Settled(results));
    }

    fn follow_topology(&mut self) {
        let topology = self.shared.topology();
        if topology == self.topology {
            return;
        }
        self.topology = topology;
        let slots = self.shared.slots();
        let wanted = |slot: &Arc<Slot>| {
            let only = &self.options.instances;
            only.is_empty() || only.contains(&slot.instance)
        };
        let here = |lane: &GroupLane| slots.iter().any(|slot| Arc::ptr_eq(slot, &lane.slot));
        self.lanes.retain(|_, lane| here(lane));
        for slot in slots.iter().filter(|slot| wanted(slot)) {
            let gates = &self.shared.gates;
            self.lanes.entry(slot.instance).or_insert_with(|| {
                let gate = gates.of(&self.options.group, slot.instance);
                GroupLane::new(slot.clone(), gate)
            });
        }
    }
}

fn store_missing(slot: &Slot) -> SourceError {
    SourceError::new(format!("{} keeps no groups", slot.instance))
}

async fn claim(
    shared: &Shared,
    slot: &Slot,
    options: &ConsumerOptions,
    limit: u32,
) -> Result<Claim, SourceError> {
    let source = slot.source();
    let store = source.groups().ok_or_else(|| store_missing(slot))?;
    let claim = store.claim(&options.group, &options.member, limit, CLAIM_BYTES);
    ask(shared.config.call_timeout, "claiming alerts", claim).await
}

pub(crate) async fn settle(
    shared: &Shared,
    slot: &Slot,
    group: &str,
    settlements: &[(DeliveryId, Settle)],
) -> Result<Vec<bool>, SourceError> {
    let source = slot.source();
    let store = source.groups().ok_or_else(|| store_missing(slot))?;
    let settling = store.settle(group, settlements);
    ask(shared.config.call_timeout, "settling alerts", settling).await
}
