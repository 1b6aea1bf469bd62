//! Memory at the bound of the queues, and after they were emptied.
//!
//! The sinks answer nothing until requests are refused. All runs on one thread, whose allocations
//! are counted: what is resident and not held was given back to the allocator, which keeps it.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::Args;
use pgbraid_ingest::{IngestConfig, Signal, SubmitError, WhenFull};
use pgbraid_micro::{
    alloc::Allocations,
    feed,
    message::{self, Form},
    path::{Path, Shape},
    sink::Commit,
};
use pgbraid_server::hot;
use tokio::{runtime::Builder, sync::watch};

use crate::usage;

const MIB: f64 = (1 << 20) as f64;

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// How rows are laid out; `single` is a request a row, nothing queued together
    #[arg(long, value_enum, default_value_t = Form::Columnar)]
    form: Form,
    /// Rows a request
    #[arg(long, default_value_t = 1000)]
    rows: usize,
    /// Instances; tables are sixteen times as many
    #[arg(long, default_value_t = 4)]
    instances: u16,
    /// The bound: ingest.queue_bytes
    #[arg(long, default_value_t = 512)]
    queue_mib: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!((1..=256).contains(&options.instances), "1 to 256 instances");
    let upkeep = hot::record_metrics();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let shape = Shape {
        instances: options.instances,
        tables: u32::from(options.instances) * 16,
        writers: 2,
    };
    let limits = feed::limits();
    let config = IngestConfig {
        batch_rows: limits.batch_rows,
        queue_bytes: options.queue_mib << 20,
        queue_bytes_per_instance: options.queue_mib << 20,
        stall_after: Duration::from_secs(3600),
        ..IngestConfig::default()
    };
    let messages = message::requests(options.form, 1000, options.rows);
    runtime.block_on(async {
        let (open, opened) = watch::channel(false);
        let path = Arc::new(Path::with_config(shape, &Commit::When(opened), config));
        let before = Memory::now()?;
        before.print("before");
        let mut acks = Vec::new();
        let mut rows = 0;
        for message in messages.iter().cycle() {
            // A message of its own, as from the network.
            let block = path.decode(Bytes::copy_from_slice(message))?;
            let here = u64::from(block.rows());
            match path.submit(block, WhenFull::Refuse, Signal::new()).await {
                Ok(ack) => acks.push(ack),
                Err(SubmitError::Full { .. }) => break,
                Err(error) => return Err(error.into()),
            }
            rows += here;
        }
        let full = Memory::now()?;
        full.print("queues full");
        let bound = (options.queue_mib << 20) as f64;
        let grown = full.resident - before.resident;
        println!(
            "{:>14}  {rows} rows in {} requests; {:.2} times the bound of {} MiB",
            "",
            acks.len(),
            grown / bound,
            options.queue_mib
        );
        open.send(true)?;
        let mut committed = 0;
        for ack in acks {
            committed += ack.wait().await.committed;
        }
        ensure!(
            committed == rows,
            "{committed} of {rows} rows were committed"
        );
        upkeep();
        // What writers and the sweep still hold goes within moments.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = Memory::now()?;
        after.print("all written");
        println!(
            "{:>14}  given back: {:.0} % of what was held, {:.0} % of what was resident",
            "",
            (full.held - after.held) / (full.held - before.held).max(1.0) * 100.0,
            (full.resident - after.resident) / grown.max(1.0) * 100.0,
        );
        Ok(())
    })
}

/// Memory at one moment, in bytes.
struct Memory {
    resident: f64,
    /// Allocated and not freed.
    held: f64,
}

impl Memory {
    fn now() -> Result<Self> {
        let allocated = Allocations::so_far();
        Ok(Self {
            resident: usage::resident()? as f64,
            held: allocated.bytes as f64 - allocated.freed as f64,
        })
    }

    fn print(&self, when: &str) {
        println!(
            "{when:>14}  {:>6.0} MiB resident, {:>6.0} MiB held",
            self.resident / MIB,
            self.held / MIB
        );
    }
}
