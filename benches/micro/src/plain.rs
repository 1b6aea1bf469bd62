//! The whole path on one thread: what a profiler looks at.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use pgbraid_micro::{
    message::Form,
    steady::{Arrival, Steady},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Requests to send; of `single` they go in groups of 256
    #[arg(long, default_value_t = 1000)]
    requests: u64,
    #[command(flatten)]
    arrival: Arrival,
}

pub(crate) fn run(form: Form, options: &Options) -> Result<()> {
    let steady = Steady::new(form, &options.arrival)?;
    let (statements_before, rows_before) = steady.written();
    let started = Instant::now();
    let rows = counted(&steady, options.requests)?;
    let took = started.elapsed();
    let (statements, written) = steady.written();
    println!(
        "{rows} rows in {:.1} ms: {:.0} ns a row, {:.0} rows a statement",
        took.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e9 / rows as f64,
        (written - rows_before) as f64 / (statements - statements_before) as f64
    );
    Ok(())
}

/// A function of its own, so that a profiler can be told to look at nothing else.
#[inline(never)]
fn counted(steady: &Steady, requests: u64) -> Result<u64> {
    steady.run(requests)
}
