//! Moves of tables between instances: what is done to the source, the target and the home.
//!
//! Each statement that changes who owns a table names the state it starts from, the move, and the
//! term of its mover: a mover that is out of date changes nothing.

mod agreed;
mod clean;
mod facts;
mod fence;
mod home;
mod rescue;
mod source;
mod target;
mod verify;

use std::sync::Arc;

use pgbraid_feed::FeedSchema;
use pgbraid_shardmap::{Epoch, InstanceName, OwnershipState, TableId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    DbError, DbErrorKind,
    sql::{leaf, qualified},
};

pub use agreed::Agreed;
pub use clean::Leftover;
pub use facts::{ColumnShape, MoveFacts, TableSize};
pub use home::{MoveOutcome, MoveRecord, MoverState, TakenTerm};
pub use source::{Fenced, SourceSeen, SourceSide};
pub use target::{TargetSeen, TargetSide, Workers};
pub use verify::{Contents, FrozenTable};

/// A commit that changes nothing, and waits like every other until the WAL before it is flushed and,
/// where there is one, a synchronous standby has it.
const FLUSHED: &str = "select pg_logical_emit_message(true, 'pgbraid', '')";

/// A move, and the term of the mover that carries it out.
#[derive(Clone, Debug)]
pub struct Move {
    /// Names it everywhere.
    pub id: Uuid,
    /// The feed.
    pub schema: Arc<FeedSchema>,
    /// The table.
    pub table: TableId,
    /// Of the source.
    pub epoch: Epoch,
    /// Where the table is.
    pub source: InstanceName,
    /// Where it goes.
    pub target: InstanceName,
    /// Of the mover.
    pub term: i64,
}

impl Move {
    /// Name of its publication, slot and subscription: at most 63 bytes, all of `[a-z0-9_]`.
    pub fn name(&self) -> String {
        let id = self.id.simple().to_string();
        format!(
            "pgbraid_{}_{}_{}",
            self.schema.feed,
            self.table.index(),
            &id[..8]
        )
    }

    /// The partition, quoted and with its schema.
    pub(crate) fn leaf(&self) -> String {
        qualified(
            &self.schema.schema,
            &leaf(&self.schema.table, self.table.index()),
        )
    }

    /// Name of the partition: `orders_17`.
    pub fn partition(&self) -> String {
        leaf(&self.schema.table, self.table.index())
    }

    fn feed(&self) -> &str {
        self.schema.feed.as_str()
    }

    fn number(&self) -> i32 {
        self.table.index() as i32
    }

    fn id_text(&self) -> String {
        self.id.to_string()
    }

    /// What happened to a statement that should have changed one row and changed none.
    fn out_of_date(&self, doing: &str, instance: InstanceName) -> DbError {
        DbError::new(
            DbErrorKind::Contradiction,
            format!(
                "{doing} {} of feed {} on {instance}: it is not in the state that this move left \
                 it in; another mover has gone on with it, or it was changed by hand",
                self.table, self.schema.feed
            ),
        )
    }
}

/// What an instance says of the table of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovingRow {
    /// What the instance is to the table.
    pub state: OwnershipState,
    /// The epoch of that.
    pub epoch: Epoch,
    /// It is marked with this very move.
    pub mine: bool,
    /// Where it went or goes.
    pub moved_to: Option<String>,
    /// The term of the last mover.
    pub term: i64,
    /// Counts the fences.
    pub cut: i32,
}

/// Of columns `state, epoch, mine, moved_to, mover_term, cut` from `at` on; no row is NULLs.
fn moving_row(row: &Row, at: usize) -> Result<Option<MovingRow>, DbError> {
    let Some(state) = row.get::<_, Option<String>>(at) else {
        return Ok(None);
    };
    let state = state
        .parse()
        .map_err(|error: pgbraid_shardmap::UnknownState| {
            DbError::new(DbErrorKind::Contradiction, error.to_string())
        })?;
    Ok(Some(MovingRow {
        state,
        epoch: Epoch(row.get::<_, i64>(at + 1) as u64),
        mine: row.get::<_, Option<bool>>(at + 2).unwrap_or(false),
        moved_to: row.get(at + 3),
        term: row.get(at + 4),
        cut: row.get(at + 5),
    }))
}
