//! `./run bench`: pgbraid beside the published workloads, on one instance, in turns, in one run.
//!
//! Machines are noisy: what counts are the ratios of medians, with the absolute figures beside
//! them. PostgreSQL, the router and the load share the machine.

mod pgbench;
mod report;
mod router;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use pgbraid_devcluster::TempCluster;

use crate::{
    pgbench::Workload,
    report::{Measure, Report},
    router::{Load, Router},
};

/// Measures pgbraid against the published pgbench workloads.
#[derive(Parser)]
#[command(name = "pgbraid-bench", version)]
struct Arguments {
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Times that all measurements are taken, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// About two minutes: 6 seconds, 2 rounds.
    #[arg(long)]
    quick: bool,
    /// Tables of the feed.
    #[arg(long, default_value_t = 64)]
    tables: u32,
    /// One JSON object on standard output instead of the table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (seconds, rounds) = match arguments.quick {
        true => (6, 2),
        false => (arguments.seconds, arguments.rounds.max(1)),
    };
    let time = Duration::from_secs(seconds);
    eprintln!("starting one PostgreSQL instance with default durability");
    let cluster = TempCluster::start(
        1,
        true,
        &[("shared_buffers", "1GB"), ("max_wal_size", "8GB")],
    )
    .await
    .context("starting PostgreSQL")?;
    let single = Workload::prepare(&cluster, "single").await?;
    let batch = Workload::prepare(&cluster, "batch").await?;
    let router = Router::start(&cluster, arguments.tables).await?;
    let mut report = Report::new(
        cluster.binaries().version(),
        arguments.tables,
        seconds,
        rounds,
    );
    for round in 1..=rounds {
        let mut take = |name: &'static str, measure: Measure| {
            eprintln!(
                "round {round} of {rounds}: {name}: {:.0} rows/s",
                measure.rows_per_second
            );
            report.add(name, measure);
        };
        take("single.sql, 32 clients", single.run(&cluster, 32, 1, time)?);
        take(
            "pgbraid, one row a message, 32 streams",
            router.load(&Load::single(), time)?,
        );
        take("batch.sql, 8 clients", batch.run(&cluster, 8, 1001, time)?);
        take(
            "pgbraid, columnar, runs of keys",
            router.load(&Load::runs(), time)?,
        );
        take(
            "pgbraid, columnar, random keys",
            router.load(&Load::random(), time)?,
        );
        take(
            "pgbraid, row form, random keys",
            router.load(&Load::rows(), time)?,
        );
        take(
            "pgbraid, unary single rows, one client",
            router.load(&Load::unary(), time)?,
        );
    }
    drop(router);
    if arguments.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}
