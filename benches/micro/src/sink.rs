//! A sink in place of PostgreSQL. It encodes every array as the real one does, and drops it.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use pgbraid_feed::{Batch, Statement, encode::ArrayParam};
use pgbraid_ingest::{Doubt, ErrorKind, Sink, SinkError, Target};
use pgbraid_shardmap::InstanceName;
use postgres_types::{ToSql, Type};
use tokio::sync::watch;

/// When a batch is answered.
#[derive(Clone, Debug)]
pub enum Commit {
    /// Once every other task has had its turn, as with an answer that is there at once.
    AtOnce,
    /// After this time.
    After(Duration),
    /// Once it is true.
    When(watch::Receiver<bool>),
}

/// An instance that stores nothing.
pub struct NullSink {
    instance: InstanceName,
    commit: Commit,
    /// A connection has one and keeps it.
    buffers: Mutex<Vec<BytesMut>>,
    statements: AtomicU64,
    rows: AtomicU64,
}

impl NullSink {
    /// An instance that stores nothing.
    pub fn new(instance: InstanceName, commit: Commit) -> Self {
        Self {
            instance,
            commit,
            buffers: Mutex::default(),
            statements: AtomicU64::new(0),
            rows: AtomicU64::new(0),
        }
    }

    /// Statements and rows so far.
    pub fn written(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.statements), read(&self.rows))
    }
}

#[async_trait]
impl Sink for NullSink {
    fn instance(&self) -> InstanceName {
        self.instance
    }

    async fn write(
        &self,
        batch: &Batch<'_>,
        statements: &[Statement],
        _: Target,
    ) -> Vec<Result<(), SinkError>> {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let results = statements
            .iter()
            .map(|statement| {
                buffer.clear();
                encode(batch, statement, &mut buffer)
            })
            .collect();
        black_box(&buffer);
        let rows: usize = statements.iter().map(|one| one.rows.len()).sum();
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.statements
            .fetch_add(statements.len() as u64, Ordering::Relaxed);
        self.buffers.lock().push(buffer);
        match &self.commit {
            Commit::AtOnce => tokio::task::yield_now().await,
            Commit::After(time) => tokio::time::sleep(*time).await,
            Commit::When(open) => {
                // An error is the end of the program.
                let _ = open.clone().wait_for(|open| *open).await;
            }
        }
        results
    }

    async fn settle(&self, _: &Doubt) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Encodes a statement's arrays, as tokio-postgres has them done for a Bind message.
pub fn encode(
    batch: &Batch<'_>,
    statement: &Statement,
    buffer: &mut BytesMut,
) -> Result<(), SinkError> {
    let keys = ArrayParam::keys(batch, &statement.rows);
    let columns: Vec<ArrayParam<'_>> = statement
        .mask
        .iter()
        .map(|column| ArrayParam::column(batch, &statement.rows, column))
        .collect();
    for array in std::iter::once(&keys).chain(&columns) {
        let length = buffer.len();
        buffer.put_i32(0);
        array
            .to_sql(&Type::ANYARRAY, buffer)
            .map_err(|error| SinkError {
                kind: ErrorKind::Refused,
                message: error.to_string(),
                sqlstate: None,
                constraint: None,
                column: None,
            })?;
        let encoded = (buffer.len() - length - 4) as i32;
        buffer[length..length + 4].copy_from_slice(&encoded.to_be_bytes());
    }
    Ok(())
}
