//! `pgbraid map status`, `pause` and `resume`.

use pgbraid_instance::{MoveOutcome, MoveRecord, MoverState};
use serde_json::{Value, json};

use super::plan::fold;
use super::{moves, old_schema, open, table_name};
use crate::failure::Result;
use crate::output;
use crate::settings::ConfigArg;
use crate::table::Table;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// How many of the moves that have ended are shown
    #[arg(long, value_name = "MOVES", default_value_t = 10)]
    ended: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct PauseArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub async fn pause(args: PauseArgs, paused: bool) -> Result<()> {
    let (_, sites) = open(&args.config).await?;
    let home = &sites.by_name[&sites.home].instance;
    home.pause_moves(paused).await.map_err(old_schema)?;
    output::line(match paused {
        true => "moves are paused: nothing new is copied or cut over until `pgbraid map resume`",
        false => "moves go on",
    })
}

pub async fn run(args: Args) -> Result<()> {
    let (_, sites) = open(&args.config).await?;
    let all = moves(&sites, args.ended.into()).await?;
    let home = &sites.by_name[&sites.home].instance;
    let mover = home.mover().await.map_err(old_schema)?;
    if args.json {
        return output::json(&as_json(&all, &mover));
    }
    output::line(&match &mover.holder {
        Some(holder) => format!("{holder} carries out moves"),
        None => "nobody carries out moves now".to_owned(),
    })?;
    if mover.paused {
        output::line("moves are paused")?;
    }
    if let Some(agreed) = &mover.agreed {
        let text = format!(
            "routers with moves.auto keep to places {}, put into force by {} at {}",
            agreed.placement, agreed.by, agreed.since
        );
        fold(&text, 80)
            .iter()
            .try_for_each(|line| output::line(line))?;
    }
    if all.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["table", "from", "to", "state", ">size", ">copy", ">pause"]);
    for record in &all {
        let state = match record.outcome {
            None if record.abort_requested => format!("{}, to be undone", record.phase),
            _ => record.phase.clone(),
        };
        let pause = record.pause_us.map(|us| us as f64 / 1000.0);
        table.row([
            table_name(record),
            record.source.to_string(),
            record.target.to_string(),
            state,
            output::bytes(record.bytes),
            format!("{:.1} s", record.copy_ms as f64 / 1000.0),
            pause.map_or(String::new(), |ms| format!("{} ms", output::short_ms(ms))),
        ]);
    }
    output::line("")?;
    table
        .lines()
        .iter()
        .try_for_each(|line| output::line(line))?;
    for record in &all {
        if let Some(trouble) = &record.trouble {
            let text = format!("{}: {trouble}", table_name(record));
            output::line("")?;
            fold(&text, 80)
                .iter()
                .try_for_each(|line| output::line(line))?;
        }
    }
    Ok(())
}

fn as_json(all: &[MoveRecord], mover: &MoverState) -> Value {
    let moves: Vec<Value> = all
        .iter()
        .map(|record| {
            json!({
                "id": record.id.to_string(), "table": table_name(record),
                "from": record.source.to_string(), "to": record.target.to_string(),
                "epoch": record.epoch.0, "phase": record.phase,
                "outcome": record.outcome.map(|outcome| match outcome {
                    MoveOutcome::Done => "done",
                    MoveOutcome::Aborted => "aborted",
                }),
                "abort_requested": record.abort_requested, "bytes": record.bytes,
                "copy_ms": record.copy_ms, "pause_us": record.pause_us,
                "took_ms": record.took.map(|took| took.as_millis() as u64),
                "trouble": record.trouble,
            })
        })
        .collect();
    let agreed = mover.agreed.as_ref();
    let agreed = agreed
        .map(|agreed| json!({"places": agreed.placement, "by": agreed.by, "since": agreed.since}));
    json!({"mover": mover.holder, "paused": mover.paused, "agreed": agreed, "moves": moves})
}
