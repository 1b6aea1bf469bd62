//! `pgbraid map verify`.

use pgbraid_instance::MoveOutcome;
use pgbraid_moves::verify;
use serde_json::json;

use super::{chosen, moves, open, refused, table_name};
use crate::failure::{Failure, Result};
use crate::output;
use crate::settings::ConfigArg;

/// Moves that have ended, among which a named table is looked for.
const ENDED: i64 = 1000;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Only this table, such as orders/tbl3; may be given several times. A move that has ended is
    /// compared with what it left behind
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let (fleet, sites) = open(&args.config).await?;
    let ended = if args.table.is_empty() { 0 } else { ENDED };
    let mut all = moves(&sites, ended).await?;
    all.retain(|record| record.outcome != Some(MoveOutcome::Aborted));
    let chosen = chosen(all, &args.table)?;
    if chosen.is_empty() {
        output::note("no moves are under way: nothing is compared; --table names ended ones");
    }
    let settings = fleet.move_settings();
    let mut results = Vec::new();
    let mut different = 0;
    for record in &chosen {
        let found = verify(&sites, &settings, record).await.map_err(refused)?;
        different += usize::from(!found.equal() && !found.after);
        let name = table_name(record);
        if args.json {
            results.push(json!({
                "table": name, "equal": found.equal(), "after_cut_over": found.after,
                "from": {"instance": record.source.to_string(), "rows": found.source.rows,
                         "checksum": found.source.checksum},
                "to": {"instance": record.target.to_string(), "rows": found.target.rows,
                       "checksum": found.target.checksum},
                "pause_ms": found.pause.map(|pause| pause.as_secs_f64() * 1000.0),
            }));
            continue;
        }
        let verdict = match (found.equal(), found.after) {
            (true, _) => "equal",
            (false, false) => "DIFFERENT",
            (false, true) => "different; the target was written to since, unless this is all",
        };
        output::line(&format!(
            "{name}: {} has {} rows, {} has {} rows, checksums {verdict}",
            record.source,
            output::grouped(found.source.rows),
            record.target,
            output::grouped(found.target.rows),
        ))?;
    }
    if args.json {
        output::json(&json!({"tables": results}))?;
    }
    match different {
        0 => Ok(()),
        more => Err(
            Failure::new(format!("{more} tables differ between source and target"))
                .hint("undo their moves with `pgbraid map abort`, and say so to the maintainers"),
        ),
    }
}
