//! `pgbraid alerts dead`: the dead letters of a group.

use clap::Subcommand;
use pgbraid_client::proto;
use serde_json::json;

use super::render;
use crate::failure::{Failure, Result};
use crate::output;
use crate::router_args::{RouterArgs, refused};

/// Dead letters of one request.
const PAGE: u32 = 500;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show dead letters
    List(List),
    /// Deliver dead letters again, as if for the first time
    Requeue(Which),
    /// Drop dead letters for good
    Drop(Which),
}

#[derive(clap::Args, Debug)]
pub struct List {
    #[command(flatten)]
    router: RouterArgs,
    /// The group
    #[arg(long, value_name = "NAME")]
    group: String,
    /// Show this many at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only those after this one, as in db3/17
    #[arg(long, value_name = "ID", default_value = "")]
    after: String,
    /// Print each as a JSON object on its own line, with its history
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "all"])))]
pub struct Which {
    #[command(flatten)]
    router: RouterArgs,
    /// The group
    #[arg(long, value_name = "NAME")]
    group: String,
    /// Ids, as `alerts dead list` shows them
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    ids: Vec<String>,
    /// All of the group
    #[arg(long)]
    all: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(args) => list(args).await,
        Command::Requeue(args) => change(args, true).await,
        Command::Drop(args) => change(args, false).await,
    }
}

async fn list(args: List) -> Result<()> {
    let groups = args.router.connect().await?.groups();
    let width = output::stdout_width();
    let (mut after, mut left) = (args.after, args.limit.unwrap_or(u64::MAX));
    loop {
        let limit = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let page = groups.dead_letters(&args.group, &after, limit).await;
        let page = page.map_err(refused)?;
        for letter in &page.dead_letters {
            if args.json {
                output::json(&render::Letter::of(letter))?;
            } else {
                output::line(&render::letter(letter, width))?;
            }
        }
        left -= page.dead_letters.len() as u64;
        let last = page.dead_letters.last();
        // An instance that could not be asked would be passed over by the pages after this one.
        incomplete(&page.unreachable)?;
        match last {
            Some(last) if page.more && left > 0 => after.clone_from(&last.id),
            _ => return Ok(()),
        }
    }
}

async fn change(args: Which, requeue: bool) -> Result<()> {
    let groups = args.router.connect().await?.groups();
    let wanted = (!args.all).then_some(args.ids.len() as u64);
    let ids = (!args.all).then_some(args.ids);
    let done = if requeue {
        groups.requeue(&args.group, ids).await
    } else {
        groups.drop_dead(&args.group, ids).await
    };
    let done = done.map_err(refused)?;
    let what = if requeue { "requeued" } else { "dropped" };
    if args.json {
        output::json(&json!({
            what: done.count, "group": args.group,
            "unreachable": done.unreachable.iter()
                .map(|one| json!({"instance": one.instance, "reason": one.reason}))
                .collect::<Vec<_>>(),
        }))?;
    } else {
        output::line(&format!("{what}: {}", done.count))?;
    }
    incomplete(&done.unreachable)?;
    match wanted {
        Some(wanted) if done.count < wanted => Err(Failure::new(format!(
            "{} of {wanted} are no dead letters of group {}",
            wanted - done.count,
            args.group
        ))
        .hint("see `pgbraid alerts dead list`; they may have been requeued or dropped before")),
        _ => Ok(()),
    }
}

fn incomplete(unreachable: &[proto::InstanceError]) -> Result<()> {
    if unreachable.is_empty() {
        return Ok(());
    }
    let each = unreachable
        .iter()
        .map(|one| format!("{}: {}", one.instance, one.reason));
    let causes: Vec<String> = each.collect();
    let failure = Failure::new(causes.join("\n")).context("not all instances were reached");
    Err(failure.hint("say it again when they are back"))
}
