//! What a mover tells while it works.

use std::time::Duration;

use pgbraid_instance::MoveRecord;

use crate::{Pause, Step};

/// Something that happened to a move.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The move.
    pub record: MoveRecord,
    /// What happened.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// The move is being carried out.
    Started,
    /// A step was done.
    Did(Step),
    /// The copy is under way: what is there so far.
    Copying {
        /// Rows, once PostgreSQL says so.
        rows: Option<u64>,
        /// Bytes.
        bytes: u64,
    },
    /// The copy is done, changes are being applied. Lag in bytes; `None` while it is not known.
    Following {
        /// Bytes of WAL.
        lag: Option<u64>,
    },
    /// Somebody has paused moves.
    Paused,
    /// A cut-over did not go through within its bounds and was undone.
    NotYet {
        /// Why.
        why: String,
        /// When it is tried again.
        again: Duration,
    },
    /// An instance can't be reached, or something else that may pass.
    Trouble {
        /// What.
        why: String,
    },
    /// The copy does not get on, or fails: PostgreSQL goes on trying.
    Failing {
        /// What is amiss, and what to do.
        why: String,
    },
    /// The target owns the table. Writers waited for so long.
    CutOver {
        /// From the fence to the new owner.
        pause: Pause,
    },
    /// The move is over.
    Done,
    /// The move is undone.
    Aborted,
    /// The move stays as it is.
    GaveUp {
        /// Why.
        why: String,
    },
}

/// Hears of events, and of every step that was done, by name: tests stop a mover there.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event);
    /// A point was reached.
    fn point(&self, _name: &'static str) {}
}
