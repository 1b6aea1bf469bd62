//! The whole path on one thread, warmed up, on a fixed input.
//!
//! Nothing depends on time, and the order of things is the same in every run, so that what is
//! counted is too.

use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::Args;
use pgbraid_server::hot;
use tokio::runtime::{Builder, Runtime};

use crate::{
    alloc::Allocations,
    message::Form,
    path::{Path, Shape},
    sink::Commit,
    stream::{self, Load},
};

/// How requests come.
#[derive(Args, Clone, Debug)]
pub struct Arrival {
    /// Rows a request, except of `single`
    #[arg(long, default_value_t = 1000)]
    pub rows: usize,
    /// Streams at once
    #[arg(long, default_value_t = 8)]
    pub streams: usize,
    /// Requests that a stream has in flight; of `single`, groups of 256
    #[arg(long, default_value_t = 8)]
    pub in_flight: usize,
    /// Instances
    #[arg(long, default_value_t = 1)]
    pub instances: u16,
    /// Tables, over all instances
    #[arg(long, default_value_t = 64)]
    pub tables: u32,
}

impl Default for Arrival {
    fn default() -> Self {
        Self {
            rows: 1000,
            streams: 8,
            in_flight: 8,
            instances: 1,
            tables: 64,
        }
    }
}

/// A hot path that has been used already.
pub struct Steady {
    runtime: Runtime,
    path: Arc<Path>,
    load: Load,
    streams: usize,
}

impl Steady {
    /// A hot path that has taken as many requests as there are different ones, so that what
    /// happens once (the calibration of a clock, buffers that grow) has happened.
    pub fn new(form: Form, arrival: &Arrival) -> Result<Self> {
        let _upkeep = hot::record_metrics();
        ensure!(
            arrival.streams > 0 && arrival.in_flight > 0,
            "needs at least one stream with one request"
        );
        let load = Load::closed(form, arrival.streams, arrival.in_flight, arrival.rows);
        let shape = Shape {
            instances: arrival.instances,
            tables: arrival.tables,
            writers: 2,
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let path = {
            let _inside = runtime.enter();
            Arc::new(Path::new(shape, &Commit::AtOnce))
        };
        let steady = Self {
            runtime,
            path,
            load,
            streams: arrival.streams,
        };
        steady.run(steady.load.messages.len() as u64)?;
        Ok(steady)
    }

    /// Sends so many requests, of [`Form::Single`] in whole groups. Returns the rows.
    pub fn run(&self, requests: u64) -> Result<u64> {
        let run = stream::run(&self.path, &self.load, self.streams, requests);
        self.runtime.block_on(run)
    }

    /// What so many requests allocate; returns the rows as well. Zero unless the program counts:
    /// see [`crate::alloc`].
    pub fn allocations(&self, requests: u64) -> Result<(Allocations, u64)> {
        let before = Allocations::so_far();
        let rows = self.run(requests)?;
        Ok((Allocations::since(before), rows))
    }

    /// Statements and rows that were written so far, the warm-up's among them.
    pub fn written(&self) -> (u64, u64) {
        self.path.written()
    }
}
