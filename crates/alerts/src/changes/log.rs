//! The last changes of one instance, numbered from 0.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::Counter;
use parking_lot::{Mutex, MutexGuard};
use pgbraid_shardmap::InstanceName;

use super::{Change, KeyList, metrics};
use crate::slot::Moment;

/// What an entry costs beside its text.
const ENTRY_BYTES: usize = 96;

/// Why followers are told to forget what they know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The instance was not heard for a while.
    Connection,
    /// The follower was slower than the changes.
    Slow,
    /// A statement changed more than is told.
    Large,
    /// A table may have moved.
    Ownership,
    /// The set of instances changed.
    Map,
}

impl Cause {
    pub(crate) const ALL: [Self; 5] = [
        Self::Connection,
        Self::Slow,
        Self::Large,
        Self::Ownership,
        Self::Map,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Slow => "slow",
            Self::Large => "large",
            Self::Ownership => "ownership",
            Self::Map => "map",
        }
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Change(Arc<Change>),
    /// Changes are missing here: of one feed, or of all.
    Lost {
        cause: Cause,
        feed: Option<Arc<str>>,
        reason: Arc<str>,
    },
    /// From here on nothing of these feeds is missing.
    Live(Arc<Feeds>),
}

/// Feeds by name.
pub(crate) type Feeds = BTreeSet<Arc<str>>;

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Change(change) => {
                    change.keys.bytes() + change.columns.as_ref().map_or(0, KeyList::bytes)
                }
                Self::Lost { reason, .. } => reason.len(),
                Self::Live(_) => 0,
            }
    }
}

/// The log of one instance. Written by its reader, read by every follower.
pub(crate) struct ChangeLog {
    /// Grows with every change; a follower compares it with what it last saw, without a lock.
    generation: AtomicU64,
    read: Counter,
    kept: Mutex<Kept>,
}

/// What changes.
pub(crate) struct Kept {
    entries: VecDeque<Entry>,
    first: u64,
    bytes: usize,
    max_bytes: usize,
    /// Which reader may write here.
    term: u64,
    /// The feeds of which nothing is missing at the end of the log; why none, otherwise.
    pub(crate) live: Result<Arc<Feeds>, Arc<str>>,
    /// Everything committed before this moment is in the log before the entry of this number.
    pub(crate) complete: Option<(Moment, u64)>,
}

impl ChangeLog {
    pub(crate) fn new(instance: InstanceName, max_bytes: usize) -> Self {
        Self {
            generation: AtomicU64::new(0),
            read: metrics::read(instance),
            kept: Mutex::new(Kept {
                entries: VecDeque::new(),
                first: 0,
                bytes: 0,
                max_bytes,
                term: 0,
                live: Err("it is being connected".into()),
                complete: None,
            }),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    /// Makes way for a new reader.
    pub(crate) fn new_term(&self, term: u64) {
        let mut kept = self.kept.lock();
        kept.term = term;
        // What the old one would have heard from now on is missing.
        kept.fall(Cause::Map, "it is being connected anew".into());
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Rows changed.
    pub(crate) fn push(&self, term: u64, change: Change) {
        self.read.increment(change.keys.len() as u64);
        self.update(term, |kept| kept.push(Entry::Change(Arc::new(change))));
    }

    /// Some changes are missing here, but none from here on.
    pub(crate) fn lost(&self, term: u64, feed: Option<Arc<str>>, reason: Arc<str>) {
        self.update(term, |kept| {
            let cause = Cause::Large;
            kept.push(Entry::Lost {
                cause,
                feed,
                reason,
            });
            if let Ok(feeds) = kept.live.clone() {
                kept.push(Entry::Live(feeds));
            }
        });
    }

    /// From here on changes may be missing.
    pub(crate) fn down(&self, term: u64, cause: Cause, reason: Arc<str>) {
        self.update(term, |kept| kept.fall(cause, reason));
    }

    /// From here on every change of these feeds is heard.
    pub(crate) fn live(&self, term: u64, feeds: Feeds) {
        let feeds = Arc::new(feeds);
        self.update(term, |kept| {
            kept.live = Ok(feeds.clone());
            kept.push(Entry::Live(feeds));
            kept.complete = Some((Moment::now(), kept.end()));
        });
    }

    /// Everything committed before this moment was pushed.
    pub(crate) fn complete(&self, term: u64, started: std::time::Instant) {
        // No news for whoever waits: it goes out with the next heartbeat.
        let mut kept = self.kept.lock();
        if kept.term == term {
            kept.complete = Some((Moment::of(started), kept.end()));
        }
    }

    fn update(&self, term: u64, change: impl FnOnce(&mut Kept)) {
        let mut kept = self.kept.lock();
        if kept.term == term {
            change(&mut kept);
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}

impl Kept {
    /// The number of the next entry to come.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The entry with number `next`, which is then counted on. `Err` if it is gone: `next` is then
    /// the end.
    pub(crate) fn take(&self, next: &mut u64) -> Option<Result<Entry, ()>> {
        if *next < self.first {
            *next = self.end();
            return Some(Err(()));
        }
        let entry = self.entries.get((*next - self.first) as usize)?;
        *next += 1;
        Some(Ok(entry.clone()))
    }

    fn fall(&mut self, cause: Cause, reason: Arc<str>) {
        // Once an outage is enough; it may take a thousand attempts.
        if self.live.is_ok() {
            let feed = None;
            let reason = reason.clone();
            self.push(Entry::Lost {
                cause,
                feed,
                reason,
            });
        }
        self.live = Err(reason);
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::ChangeOp;

    fn change(key: &str) -> Change {
        Change {
            feed: "orders".into(),
            op: ChangeOp::Update,
            columns: None,
            keys: [key].into_iter().collect(),
        }
    }

    fn taken(log: &ChangeLog, next: &mut u64) -> Vec<String> {
        let kept = log.lock();
        std::iter::from_fn(|| kept.take(next))
            .map(|entry| match entry {
                Err(()) => "behind".to_owned(),
                Ok(Entry::Live(_)) => "live".to_owned(),
                Ok(Entry::Lost { cause, .. }) => cause.label().to_owned(),
                Ok(Entry::Change(change)) => change.keys.iter().collect(),
            })
            .collect()
    }

    #[test]
    fn an_outage_is_told_once_and_so_is_its_end() {
        let log = ChangeLog::new(InstanceName::new(0), 10_000);
        let mut next = 0;
        log.down(0, Cause::Connection, "not yet".into());
        log.live(0, Feeds::new());
        log.push(0, change("1"));
        log.down(0, Cause::Connection, "gone".into());
        log.down(0, Cause::Connection, "still gone".into());
        log.live(0, Feeds::new());
        log.lost(0, Some("orders".into()), "many".into());
        let expected = ["live", "1", "connection", "live", "large", "live"];
        assert_eq!(taken(&log, &mut next), expected);
    }

    #[test]
    fn a_reader_that_was_replaced_says_nothing_more() {
        let log = ChangeLog::new(InstanceName::new(0), 10_000);
        log.live(0, Feeds::new());
        log.new_term(1);
        log.live(1, Feeds::new());
        log.down(0, Cause::Connection, "late".into());
        log.push(0, change("1"));
        assert_eq!(taken(&log, &mut 0), ["live", "map", "live"]);
        assert!(log.lock().live.is_ok());
    }

    #[test]
    fn its_size_is_bounded_and_who_falls_behind_is_told() {
        let log = ChangeLog::new(InstanceName::new(0), 10 * (ENTRY_BYTES + 8));
        let mut next = log.lock().end();
        for number in 0..1000 {
            log.push(0, change(&number.to_string()));
        }
        assert!(log.lock().entries.len() <= 10);
        assert_eq!(taken(&log, &mut next), ["behind"]);
        log.push(0, change("x"));
        assert_eq!(taken(&log, &mut next), ["x"]);
    }
}
