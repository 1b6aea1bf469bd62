//! `pgbraid map`: where tables should live, where they do, and how they get there.

mod abort;
mod apply;
mod clean;
mod plan;
mod progress;
mod show;
mod status;
mod verify;

use std::process;

use clap::Subcommand;
use pgbraid_instance::MoveRecord;
use pgbraid_moves::{MoveError, Sites, Stop};
use pgbraid_server::fleet::Fleet;

pub use self::plan::fold;
use crate::failure::{Failure, Result};
use crate::output;
use crate::stop::StopSignals;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show which tables the shard map gives to which instance
    Show(show::Show),
    /// Show where a key's row lives now
    Locate(show::Locate),
    /// Show what has to move for the instances to be as the map wants them
    Plan(plan::Args),
    /// Carry out a plan, and go on with moves that were interrupted
    Apply(apply::Args),
    /// Show the moves under way and the last that ended
    Status(status::Args),
    /// Stop copying and cutting over, until `resume`
    Pause(status::PauseArgs),
    /// Let moves go on
    Resume(status::PauseArgs),
    /// Undo moves that are under way
    Abort(abort::Args),
    /// Compare both sides of moves
    Verify(verify::Args),
    /// Drop what tables that moved away have left behind
    Clean(clean::Args),
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Show(args) => show::show(args).await,
        Command::Locate(args) => show::locate(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Apply(args) => apply::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Pause(args) => status::pause(args, true).await,
        Command::Resume(args) => status::pause(args, false).await,
        Command::Abort(args) => abort::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Clean(args) => clean::run(args).await,
    }
}

/// `orders/tbl3`
fn table_name(record: &MoveRecord) -> String {
    format!("{}/{}", record.feed, record.table)
}

/// Of some moves those that were named; all, if none was.
fn chosen(moves: Vec<MoveRecord>, named: &[String]) -> Result<Vec<MoveRecord>> {
    if named.is_empty() {
        return Ok(moves);
    }
    named
        .iter()
        .map(|name| {
            let found = moves.iter().find(|record| table_name(record) == *name);
            found.cloned().ok_or_else(|| {
                Failure::new(format!("{name} is not being moved")).hint(
                    "tables are named like orders/tbl3; `pgbraid map status` shows what is under way",
                )
            })
        })
        .collect()
}

/// Moves under way, and the last so many that have ended.
async fn moves(sites: &Sites, ended: i64) -> Result<Vec<MoveRecord>> {
    let home = &sites.by_name[&sites.home].instance;
    home.verify_cluster(None).await.map_err(old_schema)?;
    home.moves(ended).await.map_err(old_schema)
}

/// An instance that has no tables for moves yet.
fn old_schema(error: pgbraid_instance::DbError) -> Failure {
    let missing = matches!(error.sqlstate.as_deref(), Some("42P01" | "42703"));
    let failure = Failure::from(error);
    match missing {
        true => failure.hint("bring the instances up to date with `pgbraid migrate`"),
        false => failure,
    }
}

fn refused(error: MoveError) -> Failure {
    Failure::from(error)
}

/// Who this is, for whoever meets our lease.
fn holder() -> String {
    pgbraid_moves::holder("pgbraid map")
}

/// Stops moves at the first SIGINT or SIGTERM, so that the lease is given back; at the second the
/// process ends.
fn stop_on_signals() -> Result<Stop> {
    let mut signals = StopSignals::listen()?;
    let stop = Stop::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        output::note("stopping after the steps that are under way; once more stops at once");
        asked.cancel();
        signals.next().await;
        process::exit(1)
    });
    Ok(stop)
}

/// Both files, and the instances that they name.
async fn open(config: &crate::settings::ConfigArg) -> Result<(Fleet, Sites)> {
    let fleet = config.fleet()?;
    let sites = fleet.sites().await?;
    Ok((fleet, sites))
}
