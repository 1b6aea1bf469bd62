//! An instance in memory that has PostgreSQL's transactions: xids given at the first write, seq
//! given before commit, commits out of order, rollbacks, snapshots as PostgreSQL takes them.

#![allow(dead_code)] // Each test file uses a part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pgbraid_alerts::{
    Alert, Cursor, Dropped, Identity, Listener, Page, PageMark, Snapshot, Source, SourceError, Wake,
};
use pgbraid_shardmap::InstanceName;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

pub mod collect;

/// What can go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The part of reads that fail.
    pub read: f64,
    /// The part of wake-ups that are lost.
    pub lost_wake: f64,
    /// The part of commits after which all listening connections break.
    pub broken_listen: f64,
}

struct Db {
    rng: StdRng,
    identity: Identity,
    next_xid: u64,
    latest_completed: u64,
    running: BTreeSet<u64>,
    committed: BTreeSet<u64>,
    seq: i64,
    written: BTreeMap<i64, Arc<Alert>>,
    listeners: Vec<UnboundedSender<Wake>>,
    faults: Faults,
    down: bool,
    hang: bool,
    reads: u64,
    /// For each part that was dropped: its alerts.
    dropped: Vec<Vec<Arc<Alert>>>,
}

/// One instance; clones share it.
#[derive(Clone)]
pub struct Fake {
    name: InstanceName,
    db: Arc<Mutex<Db>>,
}

impl Fake {
    pub fn new(index: u8, seed: u64, faults: Faults) -> Self {
        let name = InstanceName::new(index);
        let identity = Identity {
            system_id: 7_000_000 + u64::from(index),
            timeline: 1,
        };
        let db = Arc::new(Mutex::new(Db {
            rng: StdRng::seed_from_u64(seed ^ (u64::from(index) << 32)),
            identity,
            next_xid: 700,
            latest_completed: 699,
            running: BTreeSet::new(),
            committed: BTreeSet::new(),
            seq: 0,
            written: BTreeMap::new(),
            listeners: Vec::new(),
            faults,
            down: false,
            hang: false,
            reads: 0,
            dropped: Vec::new(),
        }));
        Self { name, db }
    }

    pub fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.clone())
    }

    pub fn begin(&self) -> u64 {
        let mut db = self.db.lock();
        let xid = db.next_xid;
        db.next_xid += 1;
        db.running.insert(xid);
        xid
    }

    pub fn write(&self, xid: u64, channel: &str) -> i64 {
        let mut db = self.db.lock();
        assert!(db.running.contains(&xid));
        db.seq += 1;
        let alert = Alert {
            instance: self.name,
            seq: db.seq,
            xid,
            feed: "orders".into(),
            rule: channel.into(),
            rule_version: 1,
            channel: channel.into(),
            reason: "because".into(),
            key: db.seq.to_string(),
            row: "{}".into(),
            raised_at_us: db.seq * 10,
            resolved: false,
        };
        let seq = db.seq;
        db.written.insert(seq, Arc::new(alert));
        seq
    }

    pub fn commit(&self, xid: u64) {
        self.end(xid, true);
        let mut db = self.db.lock();
        let (lost, broken) = (db.faults.lost_wake, db.faults.broken_listen);
        if db.rng.random_bool(broken) {
            db.listeners.clear();
        }
        if !db.rng.random_bool(lost) {
            notify(&mut db, Wake::Alerts);
        }
    }

    pub fn rollback(&self, xid: u64) {
        self.end(xid, false);
    }

    fn end(&self, xid: u64, commit: bool) {
        let mut db = self.db.lock();
        assert!(db.running.remove(&xid));
        db.latest_completed = db.latest_completed.max(xid);
        if commit {
            db.committed.insert(xid);
        }
    }

    /// One committed transaction with one alert.
    pub fn raise(&self, channel: &str) -> i64 {
        let xid = self.begin();
        let seq = self.write(xid, channel);
        self.commit(xid);
        seq
    }

    pub fn notify(&self, wake: Wake) {
        notify(&mut self.db.lock(), wake);
    }

    /// All ids of committed alerts above this seq.
    pub fn committed_after(&self, seq: i64) -> BTreeSet<(InstanceName, i64)> {
        let db = self.db.lock();
        let later = db.written.range(seq + 1..);
        let committed = later.filter(|(_, alert)| db.committed.contains(&alert.xid));
        committed.map(|(seq, _)| (self.name, *seq)).collect()
    }

    pub fn set_faults(&self, faults: Faults) {
        self.db.lock().faults = faults;
    }

    /// Refuses everything, and breaks what is open; or works again.
    pub fn set_down(&self, down: bool) {
        let mut db = self.db.lock();
        db.down = down;
        if down {
            db.listeners.clear();
        }
    }

    /// Takes calls and does not answer, as when stopped.
    pub fn set_hang(&self, hang: bool) {
        self.db.lock().hang = hang;
    }

    pub fn break_connections(&self) {
        self.db.lock().listeners.clear();
    }

    /// Becomes another history; connections break.
    pub fn become_identity(&self, change: impl FnOnce(&mut Identity)) {
        let mut db = self.db.lock();
        change(&mut db.identity);
        db.listeners.clear();
    }

    /// Gives the last transaction ids anew, as after a crash.
    pub fn lose_xids(&self, count: u64) {
        let mut db = self.db.lock();
        assert!(db.running.is_empty());
        db.next_xid -= count;
        db.latest_completed -= count;
        let first = db.next_xid;
        let lost = db.committed.split_off(&first);
        db.written.retain(|_, alert| !lost.contains(&alert.xid));
        db.listeners.clear();
    }

    /// Drops all alerts up to this seq, as one part.
    pub fn drop_through(&self, seq: i64) {
        let mut db = self.db.lock();
        let kept = db.written.split_off(&(seq + 1));
        let dropped = std::mem::replace(&mut db.written, kept);
        db.dropped.push(dropped.into_values().collect());
    }

    pub fn reads(&self) -> u64 {
        self.db.lock().reads
    }

    async fn delay(&self) -> Result<(), SourceError> {
        let pause = self.db.lock().rng.random_range(0..4);
        sleep(Duration::from_millis(pause)).await;
        if self.db.lock().hang {
            std::future::pending::<()>().await;
        }
        if self.db.lock().down {
            return Err(SourceError::new("connection refused"));
        }
        Ok(())
    }

    /// Transactions that begin, write, commit and roll back in random order; in the end none runs.
    pub async fn churn(&self, steps: u32, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut open: Vec<u64> = Vec::new();
        for _ in 0..steps {
            match rng.random_range(0..10) {
                0..3 => open.push(self.begin()),
                3..7 if !open.is_empty() => {
                    let xid = open[rng.random_range(0..open.len())];
                    for _ in 0..rng.random_range(1..4) {
                        self.write(xid, ["late", "refund"][rng.random_range(0..2)]);
                    }
                }
                7..9 if !open.is_empty() => {
                    self.commit(open.swap_remove(rng.random_range(0..open.len())));
                }
                9 if !open.is_empty() => {
                    self.rollback(open.swap_remove(rng.random_range(0..open.len())));
                }
                _ => sleep(Duration::from_millis(rng.random_range(0..30))).await,
            }
        }
        for xid in open {
            self.commit(xid);
        }
    }
}

fn notify(db: &mut Db, wake: Wake) {
    db.listeners
        .retain(|listener| listener.send(wake.clone()).is_ok());
}

impl Db {
    fn lost(&self, cursor: &Cursor) -> Option<Dropped> {
        if *cursor == Cursor::earliest() {
            return None;
        }
        let needed = |part: &&Vec<Arc<Alert>>| {
            let xids = || part.iter().map(|alert| alert.xid);
            let (Some(first), Some(last)) = (xids().min(), xids().max()) else {
                return false;
            };
            cursor.may_need(first, last, part.last().map_or(0, |alert| alert.seq))
        };
        let lost: Vec<_> = self.dropped.iter().filter(needed).collect();
        let last = lost.last()?.last()?;
        Some(Dropped {
            through_part: self.dropped.len() as i32,
            alerts: lost.iter().map(|part| part.len() as u64).sum(),
            raised_until_us: last.raised_at_us,
            reason: "too old".into(),
        })
    }

    fn snapshot(&self) -> Snapshot {
        let xmax = self.latest_completed + 1;
        let xip: Vec<u64> = self.running.range(..xmax).copied().collect();
        let xmin = xip.first().copied().unwrap_or(xmax);
        Snapshot::new(xmin, xmax, xip).unwrap()
    }
}

#[async_trait]
impl Source for Fake {
    fn instance(&self) -> InstanceName {
        self.name
    }

    async fn identity(&self) -> Result<Identity, SourceError> {
        self.delay().await?;
        Ok(self.db.lock().identity)
    }

    async fn now(&self) -> Result<Cursor, SourceError> {
        self.delay().await?;
        Ok(Cursor::at(self.db.lock().snapshot()))
    }

    async fn cursor_at_time(&self, raised_at_us: i64) -> Result<Cursor, SourceError> {
        self.delay().await?;
        let db = self.db.lock();
        let wanted = |alert: &&Arc<Alert>| {
            db.committed.contains(&alert.xid) && alert.raised_at_us >= raised_at_us
        };
        let first = db
            .written
            .values()
            .filter(wanted)
            .map(|alert| alert.xid)
            .min();
        let now = db.snapshot();
        Ok(Cursor::at(match first {
            Some(first) => now.capped(first),
            None => now,
        }))
    }

    async fn read(&self, cursor: &Cursor, limit: u32) -> Result<Page, SourceError> {
        self.delay().await?;
        let page = {
            let mut db = self.db.lock();
            db.reads += 1;
            let failing = db.faults.read;
            if db.rng.random_bool(failing) {
                return Err(SourceError::new("connection reset"));
            }
            let mark = cursor.page.as_ref();
            let upper = mark.map_or_else(|| db.snapshot(), |mark| mark.upper.clone());
            let new = |alert: &&Arc<Alert>| {
                let seen = db.committed.contains(&alert.xid) && upper.sees(alert.xid);
                seen && cursor.is_new(alert.xid, alert.seq)
            };
            let found = db.written.values().filter(new).take(limit as usize + 1);
            let mut alerts: Vec<_> = found.cloned().collect();
            let more = alerts.len() > limit as usize;
            alerts.truncate(limit as usize);
            let next = match alerts.last() {
                Some(last) if more => Cursor {
                    base: cursor.base.clone(),
                    page: Some(PageMark {
                        upper,
                        after_seq: last.seq,
                    }),
                },
                _ => Cursor::at(upper),
            };
            let dropped = db.lost(cursor);
            Page {
                alerts,
                next,
                more,
                dropped,
            }
        };
        // The answer is on its way while others commit.
        self.delay().await?;
        Ok(page)
    }

    async fn listen(&self, _: &[String]) -> Result<Box<dyn Listener>, SourceError> {
        self.delay().await?;
        let (sender, receiver) = unbounded_channel();
        self.db.lock().listeners.push(sender);
        Ok(Box::new(FakeListener(receiver)))
    }
}

struct FakeListener(UnboundedReceiver<Wake>);

#[async_trait]
impl Listener for FakeListener {
    async fn next(&mut self, idle: Duration) -> Result<Wake, SourceError> {
        match timeout(idle, self.0.recv()).await {
            Ok(Some(wake)) => Ok(wake),
            Ok(None) => Err(SourceError::new("connection closed")),
            Err(_) => Ok(Wake::Idle),
        }
    }
}
