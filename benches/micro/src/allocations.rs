//! Allocations a request and a row, once warm.

use anyhow::Result;
use clap::Args;
use pgbraid_micro::{
    message::Form,
    steady::{Arrival, Steady},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Requests to count over, after as many to warm up
    #[arg(long, default_value_t = 1024)]
    requests: u64,
    /// Tables
    #[arg(long, default_value_t = 64)]
    tables: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    println!("form      rows/request  allocations/request  /statement    /row  bytes/row");
    for (form, rows) in [
        (Form::Columnar, 1000),
        (Form::Columnar, 4000),
        (Form::Columnar, 16_000),
        (Form::Rows, 1000),
        (Form::Single, 1),
    ] {
        let arrival = Arrival {
            rows,
            tables: options.tables,
            ..Arrival::default()
        };
        let requests = match form {
            Form::Single => options.requests * 256,
            Form::Columnar | Form::Rows => options.requests,
        };
        let steady = Steady::new(form, &arrival)?;
        let (before, _) = steady.written();
        let (allocated, rows_in_all) = steady.allocations(requests)?;
        let statements = steady.written().0 - before;
        let calls = allocated.calls as f64;
        println!(
            "{:<9} {rows:>12}  {:>19.1}  {:>10.1}  {:>6.4}  {:>9.0}",
            format!("{form:?}"),
            calls / requests as f64,
            calls / statements as f64,
            calls / rows_in_all as f64,
            allocated.bytes as f64 / rows_in_all as f64,
        );
    }
    Ok(())
}
