//! `pgbraid alerts groups`: consumer groups and how they stand.

use std::time::Duration;

use clap::Subcommand;
use pgbraid_client::{Groups, Start, proto};
use serde_json::{Value, json};
use tonic::Code;

use super::{from, standing};
use crate::failure::{Failure, Result};
use crate::output;
use crate::router_args::{RouterArgs, refused};

#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show the groups, as without a command; or one, by instance
    List(List),
    /// Create a group, or change the settings that are given
    Put(Box<Put>),
    /// Remove a group with its dead letters
    #[command(visible_alias = "rm")]
    Remove(Edit),
    /// Deliver nothing more; what was delivered can still be acked
    Pause(Edit),
    /// Deliver again
    Resume(Edit),
}

#[derive(clap::Args, Debug)]
pub struct List {
    #[command(flatten)]
    router: RouterArgs,
    /// This group only, by instance
    #[arg(long = "group", value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct Put {
    #[command(flatten)]
    edit: Edit,
    /// Alerts of this feed only (repeatable)
    #[arg(long, value_name = "NAME")]
    feed: Vec<String>,
    /// Alerts of this channel only (repeatable)
    #[arg(long, value_name = "NAME")]
    channel: Vec<String>,
    /// Alerts of this rule only (repeatable)
    #[arg(long, value_name = "NAME")]
    rule: Vec<String>,
    /// Alerts of this instance only (repeatable)
    #[arg(long, value_name = "NAME")]
    instance: Vec<String>,
    /// Forget the stored feeds, channels, rules and instances first
    #[arg(long)]
    no_filter: bool,
    /// How long a member has to ack, such as 30s or 5m [of a new group: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    visibility_timeout: Option<Duration>,
    /// Deliveries without an ack after which an alert is a dead letter [of a new group: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_deliveries: Option<u32>,
    /// Whether a key's next alert waits for the ack of its last
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    order_by_key: Option<bool>,
    /// Where a new group starts: now, earliest (all that is kept), a time (2025-06-01T12:00:00Z, or
    /// -10m for ten minutes ago), or a token of `alerts tail --json` [default: now]
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true, value_parser = from::parse)]
    from: Option<Start>,
    /// Deliver nothing for now
    #[arg(long, conflicts_with = "resume")]
    paused: bool,
    /// Deliver
    #[arg(long)]
    resume: bool,
}

#[derive(clap::Args, Debug)]
pub struct Edit {
    #[command(flatten)]
    router: RouterArgs,
    /// The group's name
    name: String,
    /// The version that you have seen; for put, 0: the group must be new
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
    expect: Option<i64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    match args.command {
        None => list(args.list).await,
        Some(Command::List(args)) => list(args).await,
        Some(Command::Put(args)) => put(*args).await,
        Some(Command::Remove(args)) => remove(args).await,
        Some(Command::Pause(args)) => pause(args, true).await,
        Some(Command::Resume(args)) => pause(args, false).await,
    }
}

async fn list(args: List) -> Result<()> {
    let groups = args.router.connect().await?.groups();
    let answer = groups.list(args.name.as_deref()).await.map_err(refused)?;
    if args.json {
        let unreachable = answer.unreachable.iter();
        let unreachable = unreachable
            .map(|one| json!({"instance": one.instance, "reason": one.reason}))
            .collect::<Vec<_>>();
        let groups: Vec<Value> = answer.groups.iter().map(standing::as_json).collect();
        return output::json(&json!({"groups": groups, "unreachable": unreachable}));
    }
    let lines = match (&args.name, answer.groups.as_slice()) {
        (Some(_), [one]) => standing::details(one),
        (_, []) => {
            output::note("there are no groups: make one with `pgbraid alerts groups put NAME`");
            Vec::new()
        }
        (_, all) => standing::overview(all),
    };
    lines.iter().try_for_each(|line| output::line(line))?;
    for one in &answer.unreachable {
        output::note(format!("{} is not counted: {}", one.instance, one.reason));
    }
    Ok(())
}

async fn find(groups: &Groups, name: &str) -> Result<Option<proto::Group>> {
    if name.is_empty() {
        return Err(Failure::new(
            "a group's name is empty: is a variable not set?",
        ));
    }
    match groups.list(Some(name)).await {
        Ok(answer) => Ok(answer
            .groups
            .into_iter()
            .find_map(|state| state.group.filter(|group| group.name == name))),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

async fn put(args: Put) -> Result<()> {
    let groups = args.edit.router.connect().await?.groups();
    let name = &args.edit.name;
    let stored = find(&groups, name).await?;
    if let (Some(_), Some(_)) = (&stored, &args.from) {
        let failure = Failure::new(format!(
            "group {name} is there already: --from is for new ones"
        ));
        let hint = format!("move it with `pgbraid alerts replay --group {name} --from ...`");
        return Err(failure.hint(hint));
    }
    // What was not seen must not be overwritten: another editor may be at it.
    let seen = stored.as_ref().map_or(0, |group| group.version);
    let expected = args.edit.expect.unwrap_or(seen);
    let mut group = stored.unwrap_or_else(|| proto::Group {
        name: name.clone(),
        ..Default::default()
    });
    let mut filter = group.filter.take().unwrap_or_default();
    if args.no_filter {
        filter = proto::Filter::default();
    }
    for (given, kept) in [
        (args.feed, &mut filter.feeds),
        (args.channel, &mut filter.channels),
        (args.rule, &mut filter.rules),
        (args.instance, &mut filter.instances),
    ] {
        if !given.is_empty() {
            *kept = given;
        }
    }
    group.filter = Some(filter);
    if let Some(timeout) = args.visibility_timeout {
        group.visibility_timeout = Some(timeout.try_into()?);
    }
    group.max_deliveries = args.max_deliveries.unwrap_or(group.max_deliveries);
    group.order_by_key = args.order_by_key.unwrap_or(group.order_by_key);
    group.paused = (group.paused || args.paused) && !args.resume;
    let start = args.from.unwrap_or_default();
    store(&groups, group, expected, &start, args.edit.json).await
}

async fn pause(args: Edit, paused: bool) -> Result<()> {
    let groups = args.router.connect().await?.groups();
    let Some(mut group) = find(&groups, &args.name).await? else {
        let failure = Failure::new(format!("there is no group {}", args.name));
        return Err(failure.hint("`pgbraid alerts groups` shows those there are"));
    };
    group.paused = paused;
    let expected = args.expect.unwrap_or(group.version);
    store(&groups, group, expected, &Start::Now, args.json).await
}

async fn store(
    groups: &Groups,
    group: proto::Group,
    expected: i64,
    start: &Start,
    json: bool,
) -> Result<()> {
    let answer = groups.put(group, Some(expected), start).await;
    let answer = answer.map_err(refused)?;
    let group = answer.group.unwrap_or_default();
    if json {
        return output::json(&json!({
            "created": answer.created, "group": standing::settings(&group),
            "pending": answer.pending,
        }));
    }
    let done = if answer.created { "created" } else { "changed" };
    let paused = if group.paused { ", paused" } else { "" };
    let (name, version) = (&group.name, group.version);
    output::line(&format!("{done}: {name} (version {version}{paused})"))?;
    say_pending(&answer.pending);
    Ok(())
}

async fn remove(args: Edit) -> Result<()> {
    let groups = args.router.connect().await?.groups();
    let pending = groups.remove(&args.name, args.expect).await;
    let pending = pending.map_err(refused)?;
    if args.json {
        return output::json(&json!({"removed": args.name, "pending": pending}));
    }
    output::line(&format!("removed: {}", args.name))?;
    say_pending(&pending);
    Ok(())
}

fn say_pending(pending: &[String]) {
    if !pending.is_empty() {
        let instances = pending.join(", ");
        output::note(format!(
            "not reached, and will hear of it when back: {instances}"
        ));
    }
}

/// `30s`, `1500ms`, `5m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a whole number with ms, s, m or h, such as 30s".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a whole number with ms, s, m or h, such as 30s")?;
    let ms = number.checked_mul(scale).ok_or("too long")?;
    Ok(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "5", "s", "-1s", "1.5s", "1d"] {
            assert!(
                duration(wrong).unwrap_err().contains("such as 30s"),
                "{wrong}"
            );
        }
        assert!(duration("18446744073709551615h").is_err());
    }
}
