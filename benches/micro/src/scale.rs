//! Processor time a row with few instances and tables, and with many.
//!
//! The sinks encode and then wait as long as a commit takes, so that rows pile up into batches.
//! Both sizes get the same requests, as many in flight; they are measured in turns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use clap::Args;
use pgbraid_micro::{
    message::Form,
    path::{Path, Shape},
    sink::Commit,
    stream::{Load, Stream},
};
use pgbraid_server::hot;
use tokio::{runtime::Builder, time::Instant};

use crate::usage;

/// Longer than it takes to fill the queues.
const WARM_UP: Duration = Duration::from_secs(60);

/// Cost of the large size over that of the small one.
const TARGET: f64 = 1.2;

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Worker threads, one measurement each
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// Times that each is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How rows are laid out
    #[arg(long, value_enum, default_value_t = Form::Columnar)]
    form: Form,
    /// Rows a request
    #[arg(long, default_value_t = 1000)]
    rows: usize,
    /// Requests in flight, over all streams; of `single`, groups of 256
    #[arg(long, default_value_t = 2048)]
    in_flight: usize,
    /// Streams
    #[arg(long, default_value_t = 32)]
    streams: usize,
    /// Rows offered a second; without, a request is sent for each answer
    #[arg(long)]
    rate: Option<u64>,
    /// Milliseconds that a commit takes
    #[arg(long, default_value_t = 20)]
    commit_ms: u64,
    /// Batches that an instance writes at a time
    #[arg(long, default_value_t = 8)]
    writers: usize,
}

/// What a measurement found.
struct Cost {
    cpu_ns_per_row: f64,
    rows_per_second: f64,
    rows_per_statement: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let upkeep = hot::record_metrics();
    ensure!(
        options.streams > 0 && options.rounds > 0 && options.rows > 0,
        "needs at least one stream, round and row"
    );
    let in_flight = (options.in_flight / options.streams).max(1);
    let mut load = Load::closed(options.form, options.streams, in_flight, options.rows);
    load.pace = options.rate.map(|rate| {
        Duration::from_secs_f64((load.rows() * options.streams) as f64 / rate.max(1) as f64)
    });
    let sizes = [(4, 64), (256, 4096)];
    println!("workers  instances  tables  CPU ns/row    rows/s  rows/statement");
    for workers in &options.workers {
        let mut best = [f64::INFINITY; 2];
        for _ in 0..options.rounds {
            for ((instances, tables), best) in sizes.into_iter().zip(&mut best) {
                let shape = Shape {
                    instances,
                    tables,
                    writers: options.writers,
                };
                let cost = measure(shape, *workers, &load, options)?;
                upkeep();
                println!(
                    "{workers:>7}  {instances:>9}  {tables:>6}  {:>10.0}  {:>8.0}  {:>14.0}",
                    cost.cpu_ns_per_row, cost.rows_per_second, cost.rows_per_statement
                );
                *best = best.min(cost.cpu_ns_per_row);
            }
        }
        let ratio = best[1] / best[0];
        let verdict = if ratio <= TARGET { "met" } else { "missed" };
        println!("{workers} workers, best of each: {ratio:.2} times (target {TARGET}: {verdict})");
    }
    Ok(())
}

fn measure(shape: Shape, workers: usize, load: &Load, options: &Options) -> Result<Cost> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers.max(1))
        .enable_all()
        .build()?;
    let commit = Commit::After(Duration::from_millis(options.commit_ms));
    let stop = Arc::new(AtomicBool::new(false));
    let result = runtime.block_on(async {
        let path = Arc::new(Path::new(shape, &commit));
        let mut counters = Vec::new();
        let mut running = Vec::new();
        for number in 0..options.streams {
            let mut stream = Stream::new(path.clone(), load, number, options.streams);
            stream.stop_when(stop.clone());
            counters.push(stream.committed());
            running.push(tokio::spawn(stream.run(u64::MAX)));
        }
        let committed = || -> u64 {
            let each = counters.iter().map(|count| count.load(Ordering::Relaxed));
            each.sum()
        };
        // Until everything that was in flight at first has been committed, and as much again.
        let warm = match load.pace {
            None => (load.rows() * load.in_flight * options.streams * 2) as u64,
            Some(_) => 0,
        };
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1) || committed() < warm {
            ensure!(started.elapsed() < WARM_UP, "not warm within {WARM_UP:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Rows as they are written: whole requests come in bursts where each has rows everywhere.
        let (cpu, before) = (usage::cpu()?, path.written());
        let started = Instant::now();
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        let took = started.elapsed();
        let (cpu, after) = (usage::cpu()? - cpu, path.written());
        stop.store(true, Ordering::Relaxed);
        for stream in running {
            stream.await.map_err(|error| anyhow!("{error}"))??;
        }
        let statements = (after.0 - before.0) as f64;
        let rows = (after.1 - before.1) as f64;
        ensure!(rows > 0.0, "nothing was written within the time");
        Ok(Cost {
            cpu_ns_per_row: cpu.as_secs_f64() * 1e9 / rows,
            rows_per_second: rows / took.as_secs_f64(),
            rows_per_statement: rows / statements,
        })
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}
