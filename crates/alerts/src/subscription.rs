//! One subscriber: a lane per instance, and no queue.
//!
//! `next` goes round the lanes, one alert or event a turn, so that no instance waits for another.
//! With nothing to do it sleeps until a reader has news, a read has ended, or it is time for a
//! heartbeat. Which instance has news, each lane sees by one atomic load.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pgbraid_shardmap::InstanceName;
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::hub::{Admission, Shared};
use crate::lane::{Answer, Backlog, Lane, LaneStart, Scope, Step, Wanted};
use crate::metrics::DeliveryMetrics;
use crate::reader::ask;
use crate::slot::{Slot, now_us};
use crate::{Event, Filter, Position, SourceError, Token, TokenError};

/// Pages of a subscription in memory, and reads under way. Two, so that an instance that does not
/// answer leaves one for the others.
const MAX_PAGES: usize = 2;

/// Heartbeats at a shorter interval than this would only be load.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);

/// Where a subscription starts.
#[derive(Debug, Clone)]
pub enum Start {
    /// With what is committed from now on.
    Now,
    /// With the oldest alert that is kept.
    Earliest,
    /// With the alerts raised from this time on (µs since the Unix epoch, by each instance's clock),
    /// as far as they are kept. Some that were raised shortly before may come as well.
    Time(i64),
    /// After what was delivered when this token was given out. Use the same filter again: the
    /// token knows nothing about instances that the filter left out, so they start at their oldest
    /// alert.
    Token(Token),
}

/// What a subscriber asks for.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// Which alerts.
    pub filter: Filter,
    /// From where.
    pub start: Start,
    /// The interval of heartbeats, at least 100 ms.
    pub heartbeat: Duration,
}

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The router has as many subscribers as its settings allow.
    #[error("this router has {limit} subscribers, as many as it may; try another one, or later")]
    TooMany {
        /// The setting.
        limit: usize,
    },
    /// The token cannot be used here.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The filter names an instance that the shard map does not.
    #[error("there is no instance {0} in the shard map")]
    UnknownInstance(InstanceName),
}

/// One subscriber's stream of events; made by [`Hub::subscribe`](crate::Hub::subscribe).
pub struct Subscription {
    shared: Arc<Shared>,
    scope: Scope,
    heartbeat: Duration,
    heartbeat_at: Instant,
    /// Whether the heartbeat after the first catch-up was sent.
    caught_up: bool,
    wake: watch::Receiver<u64>,
    topology: u64,
    /// In the order of the instances.
    lanes: Vec<Lane>,
    /// Whose turn it is.
    turn: usize,
    /// Positions of instances that are not in the shard map, kept for when they come back.
    parked: BTreeMap<InstanceName, Position>,
    backlog: Backlog,
    reads: JoinSet<Result<Answer, SourceError>>,
    /// Events to tell first; bounded by the number of instances.
    pending: VecDeque<Event>,
    metrics: DeliveryMetrics,
    _admission: Admission,
}

impl Subscription {
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: SubscribeOptions,
    ) -> Result<Self, SubscribeError> {
        let SubscribeOptions {
            filter,
            start,
            heartbeat,
        } = options;
        let heartbeat = heartbeat.max(MIN_HEARTBEAT);
        // Before the slots, so that a change after this is seen as one.
        let topology = shared.topology();
        let slots = shared.slots();
        let known = |name: &InstanceName| slots.iter().any(|slot| slot.instance == *name);
        if let Some(unknown) = filter.instances.iter().find(|name| !known(name)) {
            return Err(SubscribeError::UnknownInstance(*unknown));
        }
        if let Start::Token(token) = &start {
            token.check_cluster(&shared.cluster)?;
        }
        let channels = &shared.config.channels;
        let plain = channels.iter().any(|channel| filter.admits_plain(channel));
        let mut subscription = Self {
            _admission: shared.admit()?,
            scope: Scope { filter, plain },
            heartbeat,
            heartbeat_at: Instant::now() + heartbeat,
            caught_up: false,
            wake: shared.watch(),
            topology,
            lanes: Vec::with_capacity(slots.len()),
            turn: 0,
            parked: BTreeMap::new(),
            backlog: Backlog::default(),
            reads: JoinSet::new(),
            pending: VecDeque::new(),
            metrics: DeliveryMetrics::new(),
            shared,
        };
        subscription.start(&slots, start);
        Ok(subscription)
    }

    fn start(&mut self, slots: &[Arc<Slot>], start: Start) {
        let filter = &self.scope.filter;
        let wanted = slots
            .iter()
            .filter(|slot| filter.admits_instance(slot.instance));
        let resumed = matches!(start, Start::Token(_));
        let unknown = match start {
            Start::Now => LaneStart::Now,
            Start::Time(at_us) => LaneStart::Time(at_us),
            Start::Earliest | Start::Token(_) => LaneStart::Earliest,
        };
        if let Start::Token(token) = start {
            self.parked = token.positions;
        }
        for slot in wanted {
            let position = self.parked.remove(&slot.instance);
            let start = match position {
                Some(position) => LaneStart::At(position),
                None => unknown.clone(),
            };
            self.lanes.push(Lane::new(slot.clone(), start, false));
            if resumed && self.scope.plain {
                let instance = slot.instance;
                let reason = "messages on plain channels are not kept between subscriptions".into();
                self.pending.push_back(Event::Gap { instance, reason });
            }
        }
        for instance in self.parked.keys() {
            let gone = !slots.iter().any(|slot| slot.instance == *instance);
            if gone && filter.admits_instance(*instance) {
                let instance = *instance;
                let reason = "it is in the token but not in the shard map; its position is kept, and nothing is read from it".into();
                let event = Event::InstanceDown { instance, reason };
                self.pending.push_back(event);
            }
        }
    }

    /// The next event. Cancel safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Event {
        let mut rested = false;
        loop {
            // Seen before looking, so that a change while looking wakes us again.
            self.wake.borrow_and_update();
            self.follow_topology();
            while let Some(ended) = self.reads.try_join_next_with_id() {
                self.read_ended(ended);
            }
            if let Some(event) = self.pending.pop_front() {
                return event;
            }
            // A busy stream has heartbeats too; an idle one first sees how far it got.
            if !rested && self.heartbeat_at <= Instant::now() {
                return self.beat();
            }
            match self.step() {
                Step::Event(event) => return event,
                Step::Alert(alert, live) => {
                    let live_at_us = live.then(now_us);
                    self.metrics
                        .delivered(&self.shared.channels, &alert, live_at_us);
                    return Event::Alert(alert);
                }
                Step::Busy => {
                    rested = false;
                    task::coop::consume_budget().await;
                    continue;
                }
                Step::Idle => {}
            }
            if self.heartbeat_is_due() {
                return self.beat();
            }
            self.rest().await;
            rested = true;
        }
    }

    /// The exact position after the last event that `next` returned.
    pub fn token(&self) -> Token {
        let mut positions = self.parked.clone();
        for lane in &self.lanes {
            if let Some(position) = lane.position() {
                positions.insert(lane.instance(), position);
            }
        }
        Token {
            cluster: self.shared.cluster,
            positions,
        }
    }

    /// Goes round the lanes until one has something to hand on.
    fn step(&mut self) -> Step {
        let lanes = self.lanes.len();
        let mut busy = false;
        let mut found = Step::Idle;
        for offset in 0..lanes {
            let index = (self.turn + offset) % lanes;
            match self.lanes[index].step(&self.scope, &mut self.backlog) {
                Step::Idle => {}
                Step::Busy => busy = true,
                step => {
                    self.turn = (index + 1) % lanes;
                    found = step;
                    break;
                }
            }
        }
        self.start_reads();
        match found {
            Step::Idle if busy => Step::Busy,
            found => found,
        }
    }

    /// Starts the reads that lanes want, as many as may be.
    ///
    /// They run as tasks: a subscriber that does not come back for a while does not keep the
    /// permits that others wait for.
    fn start_reads(&mut self) {
        while self.reads.len() + self.backlog.held < MAX_PAGES {
            let Some(instance) = self.backlog.wanted.pop_front() else {
                return;
            };
            let Some(lane) = find(&mut self.lanes, instance) else {
                continue;
            };
            let Some(wanted) = lane.wanted_read() else {
                continue;
            };
            let shared = self.shared.clone();
            let slot = lane.slot.clone();
            let read = self.reads.spawn(async move {
                // The instance's first, so that nobody holds one of all while waiting for a slow one.
                let _own = slot.catch_up.acquire().await;
                let _all = shared.catch_up.acquire().await;
                // It may have gone down while this one waited for its turn.
                if let Some(reason) = slot.down_reason() {
                    return Err(SourceError::new(&*reason));
                }
                slot.metrics.catchup_reads.increment(1);
                let source = slot.source();
                let config = &shared.config;
                let limit = config.call_timeout;
                match wanted {
                    Wanted::Page(cursor) => {
                        let reading = source.read(&cursor, config.read_batch);
                        let page = ask(limit, "reading the outbox", reading).await;
                        page.map(Answer::Page)
                    }
                    Wanted::Time(at_us) => {
                        let asking = source.cursor_at_time(at_us);
                        let cursor = ask(limit, "looking for a time in the outbox", asking).await;
                        cursor.map(Answer::Time)
                    }
                }
            });
            lane.read_started(read.id());
        }
    }

    fn read_ended(&mut self, ended: Result<(task::Id, Result<Answer, SourceError>), JoinError>) {
        let (id, answer) = match ended {
            Ok(answered) => answered,
            Err(error) => {
                let id = error.id();
                (id, Err(SourceError::caused("reading the outbox", error)))
            }
        };
        // None if the lane was taken back or removed meanwhile: the answer is to an old question.
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.is_reading(id)) else {
            return;
        };
        let event = lane.read_ended(answer, &self.shared.config, &mut self.backlog);
        self.pending.extend(event);
    }

    /// Takes over a change of the set of instances.
    fn follow_topology(&mut self) {
        let topology = self.shared.topology();
        if topology == self.topology {
            return;
        }
        self.topology = topology;
        let slots = self.shared.slots();
        let mut kept: BTreeMap<InstanceName, Lane> = BTreeMap::new();
        for mut lane in std::mem::take(&mut self.lanes) {
            let instance = lane.instance();
            if slots.iter().any(|slot| Arc::ptr_eq(slot, &lane.slot)) {
                kept.insert(instance, lane);
                continue;
            }
            self.parked
                .extend(lane.position().map(|position| (instance, position)));
            lane.drop_current(&mut self.backlog);
            let reason = "it was removed from the shard map; its position is kept".into();
            self.pending
                .push_back(Event::InstanceDown { instance, reason });
        }
        let filter = &self.scope.filter;
        for slot in slots
            .iter()
            .filter(|slot| filter.admits_instance(slot.instance))
        {
            let parked = &mut self.parked;
            kept.entry(slot.instance).or_insert_with(|| {
                // Parked ones were told to be down; new ones begin at the beginning, lest what they
                // raised before we knew of them be lost.
                let position = parked.remove(&slot.instance);
                let told_down = position.is_some();
                let start = position.map_or(LaneStart::Earliest, LaneStart::At);
                Lane::new(slot.clone(), start, told_down)
            });
        }
        self.lanes = kept.into_values().collect();
        self.turn = 0;
    }

    fn heartbeat_is_due(&self) -> bool {
        let first = !self.caught_up && self.lanes.iter().all(Lane::settled);
        first || self.heartbeat_at <= Instant::now()
    }

    fn beat(&mut self) -> Event {
        self.caught_up = self.caught_up || self.lanes.iter().all(Lane::settled);
        self.heartbeat_at = Instant::now() + self.heartbeat;
        Event::Heartbeat {
            token: self.token().encode(),
            progress: self.lanes.iter().map(Lane::progress).collect(),
        }
    }

    /// Sleeps until there may be something to do.
    async fn rest(&mut self) {
        let retries = self.lanes.iter().filter_map(Lane::retry_at);
        let until = retries.fold(self.heartbeat_at, Instant::min);
        let mut ended = None;
        tokio::select! {
            // The sender lives as long as `shared`, so this cannot end for good.
            _ = self.wake.changed() => {}
            Some(read) = self.reads.join_next_with_id(), if !self.reads.is_empty() => {
                ended = Some(read);
            }
            () = sleep_until(until) => {}
        }
        if let Some(read) = ended {
            self.read_ended(read);
        }
    }
}

fn find(lanes: &mut [Lane], instance: InstanceName) -> Option<&mut Lane> {
    let index = lanes.binary_search_by_key(&instance, Lane::instance);
    index.ok().map(|index| &mut lanes[index])
}
