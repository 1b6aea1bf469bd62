//! The router's hot path in one piece: bytes, message, block, queues, batch, arrays.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use pgbraid_feed::{Block, FeedSchema};
use pgbraid_ingest::{
    Ack, FeedRoute, Ingest, IngestConfig, Owner, Routing, Signal, SubmitError, WhenFull,
};
use pgbraid_proto::v1;
use pgbraid_server::hot;
use pgbraid_shardmap::InstanceName;
use prost::Message;
use tokio::time::Instant;

use crate::{
    feed,
    sink::{Commit, NullSink},
};

/// Longer than any run: what happens must not depend on how fast it does.
const NEVER: Duration = Duration::from_secs(3600);

/// Instances and tables.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Instances.
    pub instances: u16,
    /// Tables, over all of them, in turns.
    pub tables: u32,
    /// Batches that an instance writes at a time.
    pub writers: usize,
}

/// A router's hot path.
pub struct Path {
    /// The feed.
    pub schema: Arc<FeedSchema>,
    /// Its queues.
    pub ingest: Arc<Ingest>,
    sinks: Vec<Arc<NullSink>>,
    limits: pgbraid_config::IngestConfig,
}

impl Path {
    /// A hot path with the router's default settings, but that nothing is done because time has
    /// passed. Needs a tokio runtime.
    pub fn new(shape: Shape, commit: &Commit) -> Self {
        let limits = feed::limits();
        let config = IngestConfig {
            batch_rows: limits.batch_rows,
            queue_bytes: limits.queue_bytes,
            queue_bytes_per_instance: limits.queue_bytes_per_instance,
            linger: NEVER,
            stall_after: NEVER,
            ..IngestConfig::default()
        };
        Self::with_config(shape, commit, config)
    }

    /// A hot path with these settings.
    pub fn with_config(shape: Shape, commit: &Commit, config: IngestConfig) -> Self {
        let schema = feed::schema(shape.tables);
        let ingest = Ingest::new(config);
        let instance = |number: u32| InstanceName::new((number % u32::from(shape.instances)) as u8);
        let sinks: Vec<Arc<NullSink>> = (0..shape.instances)
            .map(|number| Arc::new(NullSink::new(instance(number.into()), commit.clone())))
            .collect();
        for sink in &sinks {
            ingest.add_instance(sink.clone(), shape.writers);
        }
        let route = FeedRoute {
            schema: schema.clone(),
            owners: (0..shape.tables)
                .map(|table| Owner::One(instance(table)))
                .collect(),
        };
        ingest.set_routing(Routing {
            feeds: [(schema.feed.clone(), route)].into(),
        });
        Self {
            schema,
            ingest,
            sinks,
            limits: feed::limits(),
        }
    }

    /// Statements and rows that the sinks were given so far.
    pub fn written(&self) -> (u64, u64) {
        let each = self.sinks.iter().map(|sink| sink.written());
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The rows of an encoded request.
    pub fn decode(&self, message: Bytes) -> Result<Block> {
        if let Some(block) = hot::wire_block(&message, &self.schema, &self.limits) {
            return Ok(block?);
        }
        let request = v1::WriteRequest::decode(message)?;
        let form = request.form.as_ref().context("a request without rows")?;
        Ok(hot::block(form, &self.schema, &self.limits)?)
    }

    /// Queues a block.
    pub async fn submit(
        &self,
        block: Block,
        when_full: WhenFull,
        signal: Signal,
    ) -> Result<Ack, SubmitError> {
        let deadline = Instant::now() + NEVER;
        self.ingest.submit(block, deadline, when_full, signal).await
    }
}
