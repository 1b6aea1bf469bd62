//! One instance's part of a subscription: its cursor, and the batch being handed on.
//!
//! A lane takes the batch that continues its cursor from the instance's ring. If the ring does not
//! reach back to it, the lane asks its subscription for a read of the source, a page at a time,
//! until the ring does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pgbraid_shardmap::InstanceName;
use tokio::task;
use tokio::time::Instant;

use crate::cursor::{rewind, rewind_to};
use crate::notes::Note;
use crate::reader::jitter;
use crate::ring::Found;
use crate::slot::{Health, Moment, Slot, State};
use crate::window::{self, Misread};
use crate::{
    Alert, Cursor, Event, Filter, HubConfig, Identity, Page, Position, Progress, ReadState,
    SourceError,
};

/// What all lanes of a subscription share.
pub(crate) struct Scope {
    pub(crate) filter: Filter,
    /// Whether any plain channel is wanted.
    pub(crate) plain: bool,
}

/// The reads of a subscription's lanes that catch up.
#[derive(Default)]
pub(crate) struct Backlog {
    /// The lanes that want to read, first come, first served.
    pub(crate) wanted: VecDeque<InstanceName>,
    /// Pages in memory that are being handed on.
    pub(crate) held: usize,
}

/// What a look at a lane came to.
pub(crate) enum Step {
    Event(Event),
    /// An alert, with whether the lane is live.
    Alert(Arc<Alert>, bool),
    /// It went on, but there was nothing for this subscriber.
    Busy,
    Idle,
}

/// Where a lane starts.
#[derive(Clone)]
pub(crate) enum LaneStart {
    Now,
    Earliest,
    /// With what was raised from this time on: µs since the Unix epoch.
    Time(i64),
    At(Position),
}

/// What a lane without a position begins with, once the instance was reached.
#[derive(Clone)]
enum Begin {
    Cursor(Cursor),
    Time(i64),
}

/// What a lane asks its source for.
pub(crate) enum Wanted {
    Page(Cursor),
    Time(i64),
}

/// The answer to it.
pub(crate) enum Answer {
    Page(Page),
    Time(Cursor),
}

enum Read {
    None,
    Wanted,
    Running(task::Id),
    /// The last one failed; another one comes at this time.
    Failed {
        retry_at: Instant,
    },
}

/// The batch being handed on.
struct Current {
    alerts: Arc<[Arc<Alert>]>,
    next: usize,
    to: Cursor,
    from_source: bool,
}

/// See the module.
pub(crate) struct Lane {
    pub(crate) slot: Arc<Slot>,
    /// The position before `current`; None until a first contact says where now is.
    position: Option<Position>,
    /// Where a lane starts whose position is not known yet.
    start: Option<Begin>,
    current: Option<Current>,
    /// The slot's generation when there was nothing to do.
    seen: Option<u64>,
    next_note: u64,
    went_back: u64,
    told_down: bool,
    live: bool,
    /// Whether the instance has shown that it knows this position: a token might be from a
    /// future that a restore has undone.
    known: bool,
    read: Read,
    /// Who was to answer the running one.
    asked: Option<Identity>,
    failures: u32,
    read_at: Option<Moment>,
    /// The last part of the outbox that it was told to be dropped.
    told_part: i32,
}

impl Lane {
    pub(crate) fn new(slot: Arc<Slot>, start: LaneStart, told_down: bool) -> Self {
        let state = slot.lock();
        let known = matches!(start, LaneStart::Now);
        let (position, start) = match start {
            LaneStart::Now => (live_position(&state), None),
            LaneStart::Earliest => (None, Some(Begin::Cursor(Cursor::earliest()))),
            LaneStart::Time(at_us) => (None, Some(Begin::Time(at_us))),
            LaneStart::At(position) => (Some(position), None),
        };
        let next_note = state.notes.end();
        let went_back = state.went_back.times;
        drop(state);
        Self {
            slot,
            position,
            start,
            current: None,
            seen: None,
            next_note,
            went_back,
            told_down,
            live: false,
            known,
            read: Read::None,
            asked: None,
            failures: 0,
            read_at: None,
            told_part: 0,
        }
    }

    pub(crate) fn instance(&self) -> InstanceName {
        self.slot.instance
    }

    /// The exact position after the last alert handed on; None before a first contact.
    pub(crate) fn position(&self) -> Option<Position> {
        let mut position = self.position.clone()?;
        if let Some(current) = &self.current
            && let Some(last) = current.next.checked_sub(1)
        {
            // Alerts passed over by the filter count as handed on. For why a mark inside the batch
            // is exact, see `Cursor::inside`: a page read from the source is what its window has
            // beyond this cursor, and a batch of the ring that continues this cursor has all of
            // that, because its own base is covered by the cursor's.
            let upper = current.to.upper();
            position.cursor = position.cursor.inside(upper, current.alerts[last].seq);
        }
        Some(position)
    }

    /// Whether it is caught up, or known not to be readable.
    pub(crate) fn settled(&self) -> bool {
        self.live || self.told_down
    }

    pub(crate) fn progress(&self) -> Progress {
        let state = match (self.told_down, self.live) {
            (true, _) => ReadState::Down,
            (false, true) => ReadState::Live,
            (false, false) => ReadState::CatchingUp,
        };
        Progress {
            instance: self.instance(),
            state,
            read_at_us: self.read_at.map(|moment| moment.wall_us),
            lag: self.read_at.map(|moment| moment.elapsed()),
        }
    }

    /// When a failed read is tried again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        match self.read {
            Read::Failed { retry_at } => Some(retry_at),
            _ => None,
        }
    }

    /// Goes on by one alert or event, or at most by one batch of which nothing is wanted.
    pub(crate) fn step(&mut self, scope: &Scope, backlog: &mut Backlog) -> Step {
        if self.current.is_some() {
            return match self.next_alert(scope, backlog) {
                Some(alert) => Step::Alert(alert, self.live),
                None => Step::Busy,
            };
        }
        if self.retry_at().is_some_and(|at| at <= Instant::now()) {
            self.read = Read::None;
            self.seen = None;
        }
        if self.seen == Some(self.slot.generation()) {
            return Step::Idle;
        }
        if let Some(event) = self.look(scope, backlog) {
            return Step::Event(event);
        }
        if self.current.is_none() {
            return Step::Idle;
        }
        match self.next_alert(scope, backlog) {
            Some(alert) => Step::Alert(alert, self.live),
            None => Step::Busy,
        }
    }

    /// The next wanted alert of the current batch, which ends here otherwise.
    fn next_alert(&mut self, scope: &Scope, backlog: &mut Backlog) -> Option<Arc<Alert>> {
        let current = self.current.as_mut()?;
        let cursor = &mut self.position.as_mut()?.cursor;
        while let Some(alert) = current.alerts.get(current.next) {
            current.next += 1;
            if cursor.is_new(alert.xid, alert.seq) && scope.filter.admits(alert) {
                return Some(alert.clone());
            }
        }
        *cursor = cursor.advanced_to(&current.to);
        self.drop_current(backlog);
        None
    }

    pub(crate) fn drop_current(&mut self, backlog: &mut Backlog) {
        if self
            .current
            .take()
            .is_some_and(|current| current.from_source)
        {
            backlog.held -= 1;
        }
        self.seen = None;
    }

    /// Looks at what changed on the instance. Comes to an event, to a batch in `current`, or to
    /// nothing, and is then not repeated before the next change.
    fn look(&mut self, scope: &Scope, backlog: &mut Backlog) -> Option<Event> {
        let slot = self.slot.clone();
        let state = slot.lock();
        // Under the lock, so that no change can fall between this and what follows.
        let generation = slot.generation();
        let event = self.next_note(&state, scope);
        let event = event.or_else(|| self.health_changed(&state));
        let event = event.or_else(|| self.history_changed(&state));
        let event = event.or_else(|| self.first_contact(&state));
        if event.is_some() {
            return event;
        }
        if self.take_batch(&state, backlog) {
            return None;
        }
        self.seen = Some(generation);
        // Having joined the ring, it needs no read of its own any more to be up.
        self.health_changed(&state)
    }

    fn next_note(&mut self, state: &State, scope: &Scope) -> Option<Event> {
        let instance = self.instance();
        if !scope.plain {
            return None;
        }
        loop {
            let (channel, payload, pid, at_us) = match state.notes.take(&mut self.next_note)? {
                Ok(Note::Message {
                    channel,
                    payload,
                    pid,
                    at_us,
                }) => (channel, payload, pid, at_us),
                Ok(Note::Gap { reason }) => return Some(Event::Gap { instance, reason }),
                Err(lost) => {
                    let reason = format!("{lost} messages came faster than they were taken");
                    let reason = reason.into();
                    return Some(Event::Gap { instance, reason });
                }
            };
            if scope.filter.admits_plain(&channel) {
                return Some(Event::Notification {
                    instance,
                    channel,
                    payload,
                    pid,
                    at_us,
                });
            }
        }
    }

    fn health_changed(&mut self, state: &State) -> Option<Event> {
        match &state.health {
            Health::Down(reason) if !self.told_down => Some(self.tell_down(reason.clone())),
            Health::Up if self.told_down && self.failures == 0 => {
                self.told_down = false;
                let instance = self.instance();
                Some(Event::InstanceUp { instance })
            }
            _ => None,
        }
    }

    fn tell_down(&mut self, reason: Arc<str>) -> Event {
        self.told_down = true;
        let instance = self.instance();
        Event::InstanceDown { instance, reason }
    }

    /// Takes the cursor back if the instance's history is not the one it was taken on.
    fn history_changed(&mut self, state: &State) -> Option<Event> {
        let identity = state.identity?;
        let times = std::mem::replace(&mut self.went_back, state.went_back.times);
        let position = self.position.as_mut()?;
        let before = std::mem::replace(&mut position.identity, identity);
        let reason = if before != identity {
            position.cursor = rewind(&position.cursor, before, identity, &state.rewinds);
            format!("{before} is now {identity}")
        } else if times != state.went_back.times {
            let xmin = position.cursor.base.xmin().min(state.went_back.xmin);
            position.cursor = rewind_to(xmin, 0);
            "the instance's transaction ids went back".to_owned()
        } else {
            return None;
        };
        Some(self.rewound(reason))
    }

    fn rewound(&mut self, reason: String) -> Event {
        self.live = false;
        self.known = false;
        // A read that is under way was asked for the old position; its answer will be ignored.
        self.read = Read::None;
        let instance = self.instance();
        let reason = reason.into();
        Event::Rewound { instance, reason }
    }

    /// Finds the position of a lane that has none, once the instance was reached.
    fn first_contact(&mut self, state: &State) -> Option<Event> {
        if self.position.is_some() {
            return None;
        }
        match self.start.clone() {
            // The source is asked for the position.
            Some(Begin::Time(_)) => return None,
            Some(Begin::Cursor(cursor)) => {
                let identity = state.identity?;
                self.position = Some(Position { identity, cursor });
                return None;
            }
            None => {}
        }
        self.position = Some(live_position(state)?);
        let instance = self.instance();
        let reason = "the instance was reached for the first time; alerts it raised before are not in this subscription".into();
        Some(Event::Gap { instance, reason })
    }

    /// Whether there is a batch to hand on now.
    fn take_batch(&mut self, state: &State, backlog: &mut Backlog) -> bool {
        let up = matches!(state.health, Health::Up);
        if matches!(self.read, Read::Running(_)) {
            return false;
        }
        let Some(position) = &mut self.position else {
            if up && self.start.is_some() {
                self.want(backlog);
            }
            return false;
        };
        loop {
            match state.ring.find(&position.cursor) {
                // Read while idle: only the position moves.
                Found::Batch(batch) if batch.alerts.is_empty() => {
                    position.cursor = position.cursor.advanced_to(&batch.to);
                }
                Found::Batch(batch) => {
                    self.joined();
                    self.current = Some(Current {
                        alerts: batch.alerts.clone(),
                        next: 0,
                        to: batch.to.clone(),
                        from_source: false,
                    });
                    return true;
                }
                Found::CaughtUp => {
                    let reached = |end: &Cursor| end.covers(&position.cursor);
                    self.known = self.known || state.ring.end().is_some_and(reached);
                    if self.known {
                        self.joined();
                        self.live = true;
                        self.read_at = state.read_at;
                        return false;
                    }
                    break;
                }
                Found::Behind => {
                    self.live = false;
                    break;
                }
                Found::Unknown => return false,
            }
        }
        if up {
            self.want(backlog);
        }
        false
    }

    fn want(&mut self, backlog: &mut Backlog) {
        if matches!(self.read, Read::None) {
            self.read = Read::Wanted;
            backlog.wanted.push_back(self.slot.instance);
        }
    }

    /// The ring has what it needs.
    fn joined(&mut self) {
        self.read = Read::None;
        self.failures = 0;
    }

    /// What to ask the source for, if it still wants to.
    pub(crate) fn wanted_read(&self) -> Option<Wanted> {
        if !matches!(self.read, Read::Wanted) {
            return None;
        }
        match (&self.position, &self.start) {
            (Some(position), _) => Some(Wanted::Page(position.cursor.clone())),
            (None, Some(Begin::Time(at_us))) => Some(Wanted::Time(*at_us)),
            (None, _) => None,
        }
    }

    pub(crate) fn read_started(&mut self, id: task::Id) {
        self.asked = self.slot.lock().identity;
        self.read = Read::Running(id);
    }

    pub(crate) fn is_reading(&self, id: task::Id) -> bool {
        matches!(self.read, Read::Running(running) if running == id)
    }

    /// Takes the answer to its read, and says what the subscriber is to be told.
    pub(crate) fn read_ended(
        &mut self,
        answer: Result<Answer, SourceError>,
        config: &HubConfig,
        backlog: &mut Backlog,
    ) -> Option<Event> {
        self.read = Read::None;
        self.seen = None;
        let page = match answer {
            Ok(Answer::Time(cursor)) => {
                self.failures = 0;
                // Should another PostgreSQL have come meanwhile, it is asked again.
                let identity = self
                    .asked
                    .filter(|asked| self.slot.lock().identity == Some(*asked));
                self.position = identity.map(|identity| Position { identity, cursor });
                return None;
            }
            Ok(Answer::Page(page)) => Ok(page),
            Err(error) => Err(error),
        };
        let Some(position) = &mut self.position else {
            return self.read_failed(&page.err()?, config);
        };
        let checked = match page {
            Ok(page) => window::check(&position.cursor, page),
            Err(error) => Err(Misread::Broken(error)),
        };
        match checked {
            Ok(page) => {
                self.failures = 0;
                self.known = true;
                backlog.held += 1;
                let lost = page.dropped;
                self.current = Some(Current {
                    alerts: page.alerts.into(),
                    next: 0,
                    to: page.next,
                    from_source: true,
                });
                let lost = lost.filter(|lost| lost.through_part > self.told_part)?;
                self.told_part = lost.through_part;
                Some(Event::Dropped {
                    instance: self.instance(),
                    alerts: lost.alerts,
                    raised_until_us: lost.raised_until_us,
                    reason: lost.reason,
                })
            }
            Err(Misread::WentBack { xmin }) => {
                let xmin = xmin.min(position.cursor.base.xmin());
                position.cursor = rewind_to(xmin, config.rewind_xids);
                let reason = "the instance's transaction ids are behind this position's";
                Some(self.rewound(reason.to_owned()))
            }
            Err(Misread::Broken(error)) => self.read_failed(&error, config),
        }
    }

    fn read_failed(&mut self, error: &SourceError, config: &HubConfig) -> Option<Event> {
        let (min, max) = (config.reconnect_min, config.reconnect_max);
        // Never at once: nothing else slows down a subscriber that asks in vain.
        let pause = jitter(min, max, self.failures).max(Duration::from_millis(1));
        let retry_at = Instant::now() + pause;
        self.failures = self.failures.saturating_add(1);
        self.read = Read::Failed { retry_at };
        let reason = error.chain().into();
        (!self.told_down).then(|| self.tell_down(reason))
    }
}

fn live_position(state: &State) -> Option<Position> {
    let identity = state.identity?;
    let cursor = state.ring.end()?.clone();
    Some(Position { identity, cursor })
}
