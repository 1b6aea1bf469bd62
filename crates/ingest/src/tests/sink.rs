//! A sink in memory that stores rows, and fails when it is told to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use pgbraid_feed::{
    Batch, Block, Column, FeedSchema, KeyColumn, MergePolicy, Operation, Statement,
    input::{ColumnInput, ColumnarRequest, NamedInput},
    types::ColumnType,
};
use pgbraid_shardmap::{FeedName, InstanceName, KeyType};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    Ack, Doubt, ErrorKind, FeedRoute, Ingest, IngestConfig, Owner, Routing, Signal, Sink,
    SinkError, Target, WhenFull,
};

/// What the sink is to do with a write instead of storing it.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Outage,
    Conflict,
    Moved,
    /// The answer is lost, and the write takes place only when it is settled.
    Lost,
}

#[derive(Default)]
pub(super) struct Stored {
    /// Every value written of (key, column), in order.
    pub history: BTreeMap<(i64, usize), Vec<i32>>,
    pub batches: Vec<usize>,
    pub faults: VecDeque<Fault>,
    /// Writes whose answer was lost.
    in_doubt: Vec<(i64, usize, i32)>,
    pub settled: usize,
}

pub(super) struct MemorySink {
    name: InstanceName,
    pub stored: Mutex<Stored>,
    /// A write takes one.
    pub permits: Semaphore,
    /// Writes that have begun.
    started: AtomicUsize,
    /// Values of the first column that PostgreSQL would refuse.
    pub poison: i32,
}

impl MemorySink {
    pub fn new(name: u8) -> Arc<Self> {
        Arc::new(Self {
            name: InstanceName::new(name),
            stored: Mutex::default(),
            permits: Semaphore::new(Semaphore::MAX_PERMITS >> 4),
            started: AtomicUsize::new(0),
            poison: -1,
        })
    }

    /// No write ends until [`Self::open`].
    pub fn closed(name: u8) -> Arc<Self> {
        let sink = Self::new(name);
        sink.close();
        sink
    }

    pub fn open(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS >> 4);
    }

    pub fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    /// Waits until so many writes have begun.
    pub async fn begun(&self, writes: usize) {
        while self.started() < writes {
            tokio::task::yield_now().await;
        }
    }

    /// No further write ends until [`Self::open`].
    pub fn close(&self) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn statement(&self, batch: &Batch<'_>, statement: &Statement) -> Result<(), SinkError> {
        let mut stored = self.stored.lock();
        let error = |kind, message: &str| {
            Err(SinkError {
                kind,
                message: message.into(),
                sqlstate: None,
                constraint: None,
                column: None,
            })
        };
        let mut rows = Vec::new();
        for row in &statement.rows {
            let key = i64::from_le_bytes(batch.key(*row).try_into().unwrap());
            for column in statement.mask.iter() {
                let value = batch.value(*row, column).unwrap();
                rows.push((key, column, i32::from_le_bytes(value.try_into().unwrap())));
            }
        }
        match stored.faults.pop_front() {
            Some(Fault::Outage) => return error(ErrorKind::Outage(None), "it is down"),
            Some(Fault::Conflict) => return error(ErrorKind::Conflict, "deadlock"),
            Some(Fault::Moved) => return error(ErrorKind::Moved, "not here"),
            Some(Fault::Lost) => {
                stored.in_doubt = rows;
                let doubt = Doubt {
                    pid: 1,
                    backend_start: "now".into(),
                };
                return error(ErrorKind::Outage(Some(Box::new(doubt))), "connection lost");
            }
            None => {}
        }
        if rows
            .iter()
            .any(|(_, column, value)| *column == 0 && *value == self.poison)
        {
            return error(ErrorKind::Refused, "a check is violated");
        }
        stored.batches.push(statement.rows.len());
        for (key, column, value) in rows {
            stored.history.entry((key, column)).or_default().push(value);
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn instance(&self) -> InstanceName {
        self.name
    }

    async fn write(
        &self,
        batch: &Batch<'_>,
        statements: &[Statement],
        _: Target,
    ) -> Vec<Result<(), SinkError>> {
        self.started.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        statements
            .iter()
            .map(|one| self.statement(batch, one))
            .collect()
    }

    async fn settle(&self, _: &Doubt) -> Result<(), SinkError> {
        let mut stored = self.stored.lock();
        stored.settled += 1;
        // The old backend got its write done before it ended.
        for (key, column, value) in std::mem::take(&mut stored.in_doubt) {
            stored.history.entry((key, column)).or_default().push(value);
        }
        Ok(())
    }
}

pub(super) fn schema(tables: u32) -> Arc<FeedSchema> {
    let column = |name: &str| Column {
        name: name.into(),
        ty: ColumnType::Int4,
        policy: MergePolicy::Set,
        not_null: false,
        generated: false,
    };
    Arc::new(FeedSchema::new(
        FeedName::parse("orders").unwrap(),
        "public",
        "orders",
        KeyColumn {
            name: "id".into(),
            ty: KeyType::Int8,
        },
        vec![column("a"), column("b")],
        tables,
    ))
}

/// A block that writes one column of some keys.
pub(super) fn block(schema: &Arc<FeedSchema>, column: &str, rows: &[(i64, i32)]) -> Block {
    let keys: Vec<i64> = rows.iter().map(|(key, _)| *key).collect();
    let values: Vec<i64> = rows.iter().map(|(_, value)| i64::from(*value)).collect();
    ColumnarRequest {
        operation: Operation::Upsert,
        key: NamedInput {
            name: "",
            nulls: Default::default(),
            input: ColumnInput::Ints(&keys),
        },
        columns: vec![NamedInput {
            name: column,
            nulls: Default::default(),
            input: ColumnInput::Ints(&values),
        }],
    }
    .build(schema.clone())
    .unwrap()
}

pub(super) struct Setup {
    pub schema: Arc<FeedSchema>,
    pub ingest: Arc<Ingest>,
}

impl Setup {
    /// An ingest whose tables are spread over the sinks in turn.
    pub fn new(sinks: &[&Arc<MemorySink>], tables: u32, config: IngestConfig) -> Self {
        let schema = schema(tables);
        let ingest = Ingest::new(config);
        for sink in sinks {
            ingest.add_instance((*sink).clone(), 2);
        }
        let setup = Self { schema, ingest };
        setup.route(|table| Owner::One(sinks[table as usize % sinks.len()].name));
        setup
    }

    pub fn route(&self, owner: impl Fn(u32) -> Owner) {
        let route = FeedRoute {
            schema: self.schema.clone(),
            owners: (0..self.schema.tables).map(owner).collect(),
        };
        self.ingest.set_routing(Routing {
            feeds: [(self.schema.feed.clone(), route)].into(),
        });
    }

    pub async fn submit(&self, column: &str, rows: &[(i64, i32)], seconds: u64) -> Ack {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        self.ingest
            .submit(
                block(&self.schema, column, rows),
                deadline,
                WhenFull::Refuse,
                Signal::new(),
            )
            .await
            .unwrap()
    }
}
