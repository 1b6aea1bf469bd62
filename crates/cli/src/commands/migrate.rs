//! `pgbraid migrate`: every instance's schema up to date, and missing tables made.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pgbraid_server::fleet::{Fleet, MigrateEvent, MigrateSummary};

use crate::failure::Result;
use crate::output;
use crate::settings::ConfigArg;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let fleet = args.config.fleet()?;
    let summary = with_progress(&fleet).await?;
    if args.json {
        output::json(&summary)
    } else {
        output::line(&output::wrap(&text(&summary), output::stdout_width()))
    }
}

/// Migrates; says on stderr how far it is.
pub async fn with_progress(fleet: &Fleet) -> Result<MigrateSummary> {
    if output::stderr_width().is_none() {
        let progress = |event| output::note(describe(&event));
        return Ok(fleet.migrate(&progress).await?);
    }
    let bar = ProgressBar::new(fleet.instances.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} instances  {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let progress = |event| {
        if matches!(event, MigrateEvent::InstanceDone { .. }) {
            bar.inc(1);
        }
        bar.set_message(describe(&event));
    };
    let done = fleet.migrate(&progress).await;
    bar.finish_and_clear();
    Ok(done?)
}

pub fn text(summary: &MigrateSummary) -> String {
    format!(
        "{} instances up to date: {} steps applied, {} tables made (cluster {})",
        summary.instances, summary.steps_applied, summary.tables_made, summary.cluster_id
    )
}

fn describe(event: &MigrateEvent) -> String {
    match event {
        MigrateEvent::InstanceDone {
            instance,
            applied,
            skipped,
        } if applied.is_empty() => format!("{instance}: nothing to do ({skipped} steps are there)"),
        MigrateEvent::InstanceDone {
            instance, applied, ..
        } => match &applied[..] {
            [first, .., last] => {
                format!(
                    "{instance}: applied {} steps, {first} to {last}",
                    applied.len()
                )
            }
            _ => format!("{instance}: applied {}", applied.join(", ")),
        },
        MigrateEvent::TablesMade {
            feed,
            instance,
            made,
        } => format!("{instance}: made {made} tables of {feed}"),
    }
}
