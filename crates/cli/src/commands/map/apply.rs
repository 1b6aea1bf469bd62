//! `pgbraid map apply`.

use std::path::PathBuf;
use std::sync::Arc;

use pgbraid_instance::MoveRecord;
use pgbraid_moves::{Applied, Job, MoveError, Plan};
use serde_json::{Value, json};

use super::{
    holder, open, plan,
    progress::{Halt, Screen},
    refused, stop_on_signals, table_name,
};
use crate::failure::{Failure, OrFail, Result};
use crate::output;
use crate::settings::ConfigArg;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// A plan that `map plan --out` saved; without it, what `map plan` would show now
    plan: Option<PathBuf>,
    /// The most moves at a time
    #[arg(long, value_name = "MOVES")]
    at_once: Option<usize>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// Die after a step, in builds for tests
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "STEP", hide = true)]
    stop_after: Option<String>,
    /// Stand still after a step, until SIGCONT, in builds for tests
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "STEP", hide = true, conflicts_with = "stop_after")]
    freeze_after: Option<String>,
}

pub async fn run(args: Args) -> Result<()> {
    let (fleet, sites) = open(&args.config).await?;
    let (now, seen) = plan::make(&fleet, &sites).await?;
    let wanted = match &args.plan {
        None => now,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .or_fail(|| format!("cannot read {}", path.display()))?;
            let saved = Plan::parse(&text)
                .map_err(|error| refused(error).context(path.display().to_string()))?;
            saved.check_against(&now, &seen).map_err(refused)?;
            // Those that are done already are left out.
            Plan {
                moves: now.moves.clone(),
                findings: now.findings.clone(),
                ..saved
            }
        }
    };
    for line in plan::text(&wanted) {
        output::note(line);
    }
    if !wanted.is_possible() {
        return Err(Failure::new("the plan can't be carried out")
            .hint("see the errors above; `pgbraid map plan` shows them again"));
    }
    let mut settings = fleet.move_settings();
    if let Some(at_once) = args.at_once {
        settings.at_once = at_once.max(1);
    }
    #[cfg(debug_assertions)]
    let halt = Halt::of(args.stop_after, args.freeze_after);
    #[cfg(not(debug_assertions))]
    let halt = Halt::of(None, None);
    let screen = Arc::new(Screen::new(wanted.moves.len(), wanted.bytes(), halt));
    let job = Job {
        sites,
        settings,
        progress: screen.clone(),
        stop: stop_on_signals()?,
    };
    let applied = job.apply(&wanted, &fleet.wish().places(), &holder()).await;
    screen.end();
    let applied = applied.map_err(busy)?;
    if args.json {
        output::json(&as_json(&applied))?;
    } else {
        output::line(&text(&applied))?;
    }
    match applied.left.is_empty() {
        true => Ok(()),
        false => Err(
            Failure::new(format!("{} moves are not finished", applied.left.len()))
                .hint("`pgbraid map apply` goes on with them, `pgbraid map abort` undoes them"),
        ),
    }
}

pub fn busy(error: MoveError) -> Failure {
    refused(error)
}

fn text(applied: &Applied) -> String {
    let mut text = format!("{} tables moved", applied.done.len());
    if !applied.aborted.is_empty() {
        text.push_str(&format!(", {} moves undone", applied.aborted.len()));
    }
    if !applied.left.is_empty() {
        text.push_str(&format!(", {} left", applied.left.len()));
    }
    text
}

fn as_json(applied: &Applied) -> Value {
    let names = |records: &[MoveRecord]| records.iter().map(table_name).collect::<Vec<_>>();
    let left: Vec<Value> = (applied.left.iter())
        .map(|(record, why)| json!({"table": table_name(record), "why": why}))
        .collect();
    json!({
        "moved": names(&applied.done), "aborted": names(&applied.aborted), "left": left,
    })
}
