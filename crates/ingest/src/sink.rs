//! Where batches go.

use async_trait::async_trait;
use pgbraid_feed::{Batch, Statement};
use pgbraid_shardmap::{InstanceName, TableId};
use thiserror::Error;

/// What a statement writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One table, by itself.
    Table(TableId),
    /// The feed's parent: PostgreSQL routes the rows.
    Parent,
}

/// A statement that may still be running: its connection was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Process id of the backend.
    pub pid: i32,
    /// When it was started, in PostgreSQL's text form: with the pid it names one process.
    pub backend_start: String,
}

/// What an error means for the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// PostgreSQL refuses a row of the statement (classes 22, 23, P0): find it.
    Refused,
    /// A conflict with another writer (40P01, 40001, 55P03): try again at once.
    Conflict,
    /// The instance can't be written to now. With a doubt, the statement may still be running.
    Outage(Option<Box<Doubt>>),
    /// The table is not here any more.
    Moved,
}

/// A statement that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct SinkError {
    /// What it means.
    pub kind: ErrorKind,
    /// The whole cause, in a line.
    pub message: String,
    /// PostgreSQL's error code.
    pub sqlstate: Option<String>,
    /// The constraint, where one is violated.
    pub constraint: Option<String>,
    /// The column, where PostgreSQL names one.
    pub column: Option<String>,
}

/// One instance, as something that takes batches.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// The instance.
    fn instance(&self) -> InstanceName;

    /// Writes statements on one connection, one after the other, each in its own transaction.
    /// Returns one result for each, and only after PostgreSQL answered or can't answer any more.
    async fn write(
        &self,
        batch: &Batch<'_>,
        statements: &[Statement],
        target: Target,
    ) -> Vec<Result<(), SinkError>>;

    /// Returns once the backend of a lost connection is known to be gone, so that it can't write
    /// any more.
    async fn settle(&self, doubt: &Doubt) -> Result<(), SinkError>;
}
