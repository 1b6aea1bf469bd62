//! `pgbraid map abort`.

use std::sync::Arc;

use pgbraid_instance::MoveRecord;
use pgbraid_moves::Job;
use serde_json::json;

use super::{
    chosen, holder, moves, open,
    progress::{Halt, Screen},
    refused, stop_on_signals, table_name,
};
use crate::failure::{Failure, Result};
use crate::output;
use crate::settings::ConfigArg;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Only the move of this table, such as orders/tbl3; may be given several times
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Die after a step, in builds for tests
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "STEP", hide = true)]
    stop_after: Option<String>,
}

pub async fn run(args: Args) -> Result<()> {
    let (fleet, sites) = open(&args.config).await?;
    let chosen = chosen(moves(&sites, 0).await?, &args.table)?;
    #[cfg(debug_assertions)]
    let halt = Halt::of(args.stop_after, None);
    #[cfg(not(debug_assertions))]
    let halt = Halt::of(None, None);
    let screen = Arc::new(Screen::new(chosen.len(), 0, halt));
    let job = Job {
        sites,
        settings: fleet.move_settings(),
        progress: screen.clone(),
        stop: stop_on_signals()?,
    };
    let done = job.abort(&chosen, &holder()).await;
    screen.end();
    let done = done.map_err(refused)?;
    if args.json {
        let names = |records: &[MoveRecord]| records.iter().map(table_name).collect::<Vec<_>>();
        output::json(&json!({
            "aborted": names(&done.aborted), "finished": names(&done.finished),
            "left": done.left.iter().map(|(record, why)| {
                json!({"table": table_name(record), "why": why})
            }).collect::<Vec<_>>(),
        }))?;
    } else {
        output::line(&format!("{} moves undone", done.aborted.len()))?;
    }
    if !done.finished.is_empty() {
        let names: Vec<String> = done.finished.iter().map(table_name).collect();
        return Err(Failure::new(format!(
            "decided before they could be undone, and finished: {}",
            names.join(", ")
        ))
        .hint("to move them back, pin them in the shard map and apply that"));
    }
    match done.left.is_empty() {
        true => Ok(()),
        false => Err(
            Failure::new(format!("{} moves could not be undone", done.left.len()))
                .hint("run it again once all their instances answer"),
        ),
    }
}
