//! `pgbraid map plan`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pgbraid_moves::{Level, Plan, Sites, Survey, draw, survey};
use pgbraid_server::fleet::Fleet;

use super::{open, refused, show};
use crate::failure::{Failure, OrFail, Result};
use crate::output;
use crate::settings::ConfigArg;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Save the plan, for `pgbraid map apply FILE`
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Exit with 2 if there is something to do
    #[arg(long)]
    detailed_exitcode: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let (fleet, sites) = open(&args.config).await?;
    let (plan, _) = make(&fleet, &sites).await?;
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&plan)?;
        std::fs::write(path, text + "\n").or_fail(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        output::json(&plan)?;
    } else {
        for line in text(&plan) {
            output::line(&line)?;
        }
        if let (Some(path), true) = (&args.out, plan.is_possible()) {
            let path = path.display();
            output::line(&format!("carry it out with `pgbraid map apply {path}`"))?;
        } else if !plan.moves.is_empty() && plan.is_possible() {
            output::line("carry it out with `pgbraid map apply`")?;
        }
    }
    if !plan.is_possible() {
        return Err(Failure::Printed);
    }
    match args.detailed_exitcode && !plan.moves.is_empty() {
        true => Err(Failure::Code(2)),
        false => Ok(()),
    }
}

/// The plan as of now, and what it was made from.
pub async fn make(fleet: &Fleet, sites: &Sites) -> Result<(Plan, Survey)> {
    let seen = survey(sites, &fleet.tables()).await.map_err(|error| {
        let missing = matches!(&error, pgbraid_moves::MoveError::Instance { source, .. }
            if matches!(source.sqlstate.as_deref(), Some("42P01" | "42703")));
        let failure = refused(error);
        match missing {
            true => failure.hint("bring the instances up to date with `pgbraid migrate`"),
            false => failure,
        }
    })?;
    let plan = draw(&fleet.wish(), &seen, &fleet.move_settings());
    Ok((plan, seen))
}

/// Lines of at most 80 columns, but for long messages.
pub fn text(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    let count = plan.moves.len();
    if count == 0 && !plan.is_possible() {
        lines.push(format!(
            "nothing to move is found, but map {} can't be compared",
            plan.map
        ));
    } else if count == 0 {
        lines.push(format!("every table is where map {} wants it", plan.map));
    } else {
        let rate = plan.measured_rate;
        let rate = rate.map(|rate| format!("{}/s", output::bytes(rate)));
        let each = plan.measured_each_ms;
        let each = each.map(|ms| format!("{:.1} s a table", ms as f64 / 1000.0));
        let measured: Vec<String> = rate.into_iter().chain(each).collect();
        let rate = match measured.is_empty() {
            true => "nothing measured yet".to_owned(),
            false => format!("measured: {}", measured.join(", ")),
        };
        let text = format!(
            "map {}: {count} {} to move, {}, about {} ({rate})",
            plan.map,
            if count == 1 { "table" } else { "tables" },
            output::bytes(plan.bytes()),
            time(plan.seconds),
        );
        lines.extend(fold(&text, 80));
        lines.push(String::new());
        lines.extend(groups(plan));
        lines.push(String::new());
        let mut table = crate::table::Table::new(&[
            "  instance",
            ">tables",
            "",
            ">then",
            ">disk needed",
            ">freed by clean",
        ]);
        let size = |bytes| match bytes {
            0 => String::new(),
            bytes => output::bytes(bytes),
        };
        for (name, change) in &plan.instances {
            let (before, after) = change.tables;
            table.row([
                format!("  {name}"),
                before.to_string(),
                (if before == after { "" } else { "→" }).to_owned(),
                after.to_string(),
                size(change.bytes_in),
                size(change.bytes_out),
            ]);
        }
        lines.extend(table.lines());
    }
    if !plan.findings.is_empty() {
        lines.push(String::new());
    }
    for finding in &plan.findings {
        let level = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        };
        let instance = finding.instance.as_ref();
        let instance = instance.map(|name| format!("{name}: ")).unwrap_or_default();
        lines.extend(fold(&format!("{level}: {instance}{}", finding.message), 80));
    }
    lines
}

/// Moves from one instance to another as one entry.
fn groups(plan: &Plan) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str, &str), Vec<&pgbraid_moves::PlannedMove>> =
        BTreeMap::new();
    for one in &plan.moves {
        let key = (one.feed.as_str(), one.from.as_str(), one.to.as_str());
        groups.entry(key).or_default().push(one);
    }
    let mut lines = Vec::new();
    for ((feed, from, to), mut moves) in groups {
        moves.sort_by_key(|one| one.table);
        let numbers: Vec<u32> = moves.iter().map(|one| one.table).collect();
        let rows: u64 = moves.iter().map(|one| one.rows).sum();
        let bytes: u64 = moves.iter().map(|one| one.bytes).sum();
        lines.push(format!(
            "  {feed}: {from} → {to}, {} {}, about {} rows, {}",
            moves.len(),
            if moves.len() == 1 { "table" } else { "tables" },
            output::grouped(rows),
            output::bytes(bytes)
        ));
        for part in show::wrap(&show::ranges(&numbers), 72) {
            lines.push(format!("      tbl {part}"));
        }
        for one in moves {
            if let Some(phase) = &one.begun {
                lines.push(format!("      tbl{} was begun: {phase}", one.table));
            }
        }
    }
    lines
}

/// Breaks a text at blanks; what follows is set in.
pub fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let full = lines
            .last()
            .is_some_and(|line| line.chars().count() + 1 + word.chars().count() > width);
        if full {
            lines.push(format!("  {word}"));
        } else if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_folded() {
        assert_eq!(fold("a bb ccc dddd", 6), ["a bb", "  ccc", "  dddd"]);
        assert_eq!(time(119), "119 s");
        assert_eq!(time(121), "3 min");
    }
}
