//! `pgbraid-hotpath`: the router's hot path without PostgreSQL, to be counted and measured.

mod allocations;
mod count;
mod memory;
mod plain;
mod scale;
mod usage;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pgbraid_micro::{alloc::Counting, message::Form};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs the hot path without PostgreSQL.
#[derive(Parser)]
#[command(name = "pgbraid-hotpath", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Columns of fixed-width bytes, on one thread, for a profiler
    Columnar(plain::Options),
    /// Row messages, many in a request, on one thread, for a profiler
    Rows(plain::Options),
    /// One row message a request, on one thread, for a profiler
    Single(plain::Options),
    /// Counts instructions a row with valgrind and compares them with the committed figures
    Count(count::Options),
    /// Counts allocations a request and a row
    Allocations(allocations::Options),
    /// Compares the cost of a row with 4 instances and 64 tables to that with 256 and 4096
    Scale(scale::Options),
    /// Shows resident memory with full queues, and with empty ones again
    Memory(memory::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgbraid-hotpath: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Columnar(options) => plain::run(Form::Columnar, &options),
        Command::Rows(options) => plain::run(Form::Rows, &options),
        Command::Single(options) => plain::run(Form::Single, &options),
        Command::Count(options) => count::run(&options),
        Command::Allocations(options) => allocations::run(&options),
        Command::Scale(options) => scale::run(&options),
        Command::Memory(options) => memory::run(&options),
    }
}
