//! `pgbraid map clean`.

use std::collections::BTreeSet;
use std::time::Duration;

use pgbraid_moves::{Cleaned, clean, survey};
use serde_json::json;

use super::{open, refused};
use crate::failure::{Failure, Result};
use crate::output;
use crate::settings::ConfigArg;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Drop what has been left for longer than so many seconds, instead of `moves.keep`
    #[arg(long, value_name = "SECONDS")]
    older_than: Option<u64>,
    /// Drop what is left on this instance; without it, nothing is dropped. May be given several
    /// times
    #[arg(long, value_name = "INSTANCE")]
    confirm: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let (fleet, sites) = open(&args.config).await?;
    let settings = fleet.move_settings();
    let keep = args.older_than.map_or(settings.keep, Duration::from_secs);
    let seen = survey(&sites, &fleet.tables()).await.map_err(refused)?;
    let found = clean(&sites, &seen, keep, true).await.map_err(refused)?;
    let due: Vec<&Cleaned> = found.iter().filter(|one| one.kept.is_none()).collect();
    let on: BTreeSet<String> = due.iter().map(|one| one.instance.to_string()).collect();
    let confirmed: BTreeSet<String> = args.confirm.iter().cloned().collect();
    if let Some(wrong) = confirmed
        .iter()
        .find(|name| !sites.by_name.keys().any(|one| one.to_string() == **name))
    {
        return Err(Failure::new(format!(
            "--confirm {wrong}: there is no such instance"
        )));
    }
    for (name, why) in &seen.silent {
        if confirmed.contains(&name.to_string()) {
            return Err(Failure::new(format!("{name} does not answer: {why}"))
                .hint("nothing was dropped; try again when it is back"));
        }
    }
    let mut some = sites.clone();
    some.by_name
        .retain(|name, _| confirmed.contains(&name.to_string()));
    let mut seen_there = seen;
    seen_there.keep_only(|name| confirmed.contains(&name.to_string()));
    let dropped = match confirmed.is_empty() {
        true => Vec::new(),
        false => clean(&some, &seen_there, keep, false)
            .await
            .map_err(refused)?,
    };
    let was_dropped =
        |one: &Cleaned| one.kept.is_none() && confirmed.contains(&one.instance.to_string());
    if args.json {
        let all: Vec<_> = found
            .iter()
            .map(|one| {
                json!({
                    "instance": one.instance.to_string(),
                    "table": format!("{}/{}", one.feed, one.left.table),
                    "moved_to": one.left.moved_to, "bytes": one.left.bytes,
                    "age_seconds": one.left.age.as_secs(), "kept": one.kept,
                    "dropped": was_dropped(one),
                })
            })
            .collect();
        output::json(&json!({"left_behind": all}))?;
    } else {
        for one in &found {
            let what = match (&one.kept, was_dropped(one)) {
                (Some(why), _) => why.clone(),
                (None, true) => "dropped".to_owned(),
                (None, false) => "to be dropped".to_owned(),
            };
            output::line(&format!(
                "{}: {}/{}, {}, moved to {}: {what}",
                one.instance,
                one.feed,
                one.left.table,
                output::bytes(one.left.bytes),
                one.left.moved_to.as_deref().unwrap_or("another instance"),
            ))?;
        }
        let count = dropped.iter().filter(|one| one.kept.is_none()).count();
        output::line(&format!("{count} tables dropped"))?;
    }
    let waiting: Vec<&String> = on.difference(&confirmed).collect();
    if !waiting.is_empty() {
        let options: Vec<String> = waiting
            .iter()
            .map(|name| format!("--confirm {name}"))
            .collect();
        output::note(format!(
            "nothing was dropped on {}: name it with {}",
            waiting.into_iter().cloned().collect::<Vec<_>>().join(", "),
            options.join(" ")
        ));
    }
    Ok(())
}
