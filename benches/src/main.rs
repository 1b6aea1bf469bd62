//! `./run bench`: pgbraid beside the published workloads, the limit, and what a user would write.
//!
//! Without a subcommand it is the main comparison ([`comparison`]): one PostgreSQL instance with
//! default durability and millions of stored rows, on which each of these is measured in turns,
//! every time just behind a checkpoint:
//!
//! - the published pgbench workloads ([`pgbench`]; their tables start empty, as published),
//! - the limit: a bare loop of binary statements on the feed's own tables ([`limit`]),
//! - asyncpg with unnest, if Python has it ([`asyncpg`]),
//! - pgbraid: the real binary and its load generator ([`router`]).
//!
//! Machines are noisy: what counts are ratios of measurements of the same round, with the absolute
//! figures beside them. PostgreSQL, the router and the load share the machine, so the report also
//! shows where its CPU went. A full run adds sweeps over batch sizes and loads ([`sweeps`]).
//!
//! `scenario NAME` asks one question each ([`scenarios`]).

mod asyncpg;
mod call;
mod case;
mod comparison;
mod limit;
mod pgbench;
mod plot;
mod procs;
mod report;
mod router;
mod scenarios;
mod stage;
mod sweeps;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Measures pgbraid against the published pgbench workloads and the limit of PostgreSQL.
#[derive(Parser)]
#[command(
    name = "pgbraid-bench",
    version,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    comparison: comparison::Options,
}

#[derive(Subcommand)]
enum Command {
    /// One question about speed, with its targets.
    Scenario(scenarios::Arguments),
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let work = async {
        match arguments.command {
            Some(Command::Scenario(arguments)) => scenarios::run(arguments).await,
            None => comparison::run(arguments.comparison).await,
        }
    };
    // What is dropped ends its processes and removes its folders: to be killed would leave them.
    tokio::select! {
        done = work => done,
        asked = asked_to_end() => {
            asked?;
            bail!("interrupted")
        }
    }
}

/// Until SIGINT or SIGTERM.
async fn asked_to_end() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}
