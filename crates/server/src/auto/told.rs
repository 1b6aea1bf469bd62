//! What automatic moves tell: to the log, as metrics, and to `pgbraid status`.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use metrics::{counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use pgbraid_instance::Agreed;
use pgbraid_moves::{Event, Happening, Progress};
use tracing::{info, warn};
use uuid::Uuid;

/// Longest text that is told.
const LONGEST: usize = 500;

/// Why automatic moves fail: the label of their counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The plan can't be carried out as things are.
    Refused,
    /// Some moves were left as they are.
    Left,
    /// The home, or what moves need, can't be reached.
    Unreachable,
    /// Another mover took over.
    LeaseLost,
}

impl Failure {
    const ALL: [Self; 4] = [
        Self::Refused,
        Self::Left,
        Self::Unreachable,
        Self::LeaseLost,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Left => "left",
            Self::Unreachable => "unreachable",
            Self::LeaseLost => "lease_lost",
        }
    }
}

/// What the status says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AutoState {
    /// What routers agree on.
    pub agreed: Option<Agreed>,
    /// Who carries out moves now.
    pub mover: Option<String>,
    /// Why nothing moves though it should.
    pub waiting: Option<String>,
}

/// Tells, each thing once.
#[derive(Default)]
pub(crate) struct Told {
    state: Mutex<AutoState>,
    under_way: AtomicUsize,
}

impl Told {
    pub fn state(&self) -> AutoState {
        self.state.lock().clone()
    }

    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    pub fn agreed(&self, agreed: Option<Agreed>, mover: Option<String>) {
        let mut state = self.state.lock();
        state.agreed = agreed;
        state.mover = mover;
    }

    /// Nothing is in the way, or something is.
    pub fn waits(&self, why: Option<String>) {
        gauge!("pgbraid_auto_moves_waiting").set(f64::from(u8::from(why.is_some())));
        let why = why.map(|why| bounded(&why));
        let mut state = self.state.lock();
        if state.waiting == why {
            return;
        }
        match &why {
            Some(why) => warn!("tables are not moved by this router: {why}"),
            None => info!("nothing keeps this router from moving tables any more"),
        }
        state.waiting = why;
    }

    pub fn failed(&self, failure: Failure) {
        counter!("pgbraid_auto_move_failures_total", "reason" => failure.label()).increment(1);
    }
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text.to_owned(),
    }
}

pub(crate) fn describe() {
    describe_gauge!(
        "pgbraid_moves_under_way",
        "Moves of tables that this router carries out"
    );
    describe_counter!(
        "pgbraid_moves_total",
        "Moves of tables that this router has carried out, by outcome: done, aborted, left"
    );
    describe_counter!(
        "pgbraid_auto_move_failures_total",
        "Times that this router could not carry out the shard map, by reason"
    );
    describe_gauge!(
        "pgbraid_auto_moves_waiting",
        "1 while tables should move and this router is kept from it; pgbraid status says why"
    );
    gauge!("pgbraid_moves_under_way").set(0.0);
    gauge!("pgbraid_auto_moves_waiting").set(0.0);
    for outcome in ["done", "aborted", "left"] {
        counter!("pgbraid_moves_total", "outcome" => outcome).increment(0);
    }
    for failure in Failure::ALL {
        counter!("pgbraid_auto_move_failures_total", "reason" => failure.label()).increment(0);
    }
}

/// Hears of the moves of one run.
pub(crate) struct Run {
    told: Arc<Told>,
    moves: Mutex<HashSet<Uuid>>,
}

impl Run {
    pub fn new(told: Arc<Told>) -> Self {
        Self {
            told,
            moves: Mutex::default(),
        }
    }

    fn count(&self, moves: usize) {
        self.told.under_way.store(moves, Ordering::Relaxed);
        gauge!("pgbraid_moves_under_way").set(moves as f64);
    }

    fn ended(&self, id: Uuid, outcome: &'static str) {
        let mut moves = self.moves.lock();
        if moves.remove(&id) {
            counter!("pgbraid_moves_total", "outcome" => outcome).increment(1);
        }
        self.count(moves.len());
    }
}

impl Progress for Run {
    fn event(&self, event: Event) {
        let record = &event.record;
        let (feed, table) = (&record.feed, record.table);
        match event.what {
            Happening::Started => {
                let (from, to) = (record.source, record.target);
                info!(%feed, %table, %from, %to, "is being moved");
                let mut moves = self.moves.lock();
                moves.insert(record.id);
                self.count(moves.len());
            }
            Happening::CutOver { pause } => {
                let owner = record.target;
                let pause = pause.total();
                info!(%feed, %table, %owner, ?pause, "has a new owner");
            }
            Happening::Done => {
                info!(%feed, %table, "the move is done");
                self.ended(record.id, "done");
            }
            Happening::Aborted => {
                info!(%feed, %table, "the move is undone");
                self.ended(record.id, "aborted");
            }
            Happening::GaveUp { why } => {
                warn!(%feed, %table, "the move is left as it is: {why}");
                self.ended(record.id, "left");
            }
            Happening::Trouble { why } | Happening::Failing { why } => {
                warn!(%feed, %table, "{why}");
            }
            Happening::NotYet { why, .. } => info!(%feed, %table, "cut-over put off: {why}"),
            Happening::Did(_)
            | Happening::Copying { .. }
            | Happening::Following { .. }
            | Happening::Paused => {}
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.count(0);
    }
}
