//! `pgbraid changes`: follows which rows of a feed change.

use clap::Subcommand;
use pgbraid_client::{ChangeEvent, ChangeFollower, FollowOptions, proto};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::failure::Result;
use crate::output;
use crate::router_args::{RouterArgs, refused};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print changes as they come: I, U or D, the key, and the columns that changed where that is told
    Tail(Tail),
}

#[derive(clap::Args, Debug)]
pub struct Tail {
    #[command(flatten)]
    router: RouterArgs,
    /// Changes of this feed only (repeatable) [default: all feeds that tell of their changes]
    #[arg(long, value_name = "NAME")]
    feed: Vec<String>,
    /// Print the rows as well, as they are when the router reads them
    #[arg(long)]
    rows: bool,
    /// End after this many changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print every event as a JSON object on its own line
    #[arg(long)]
    json: bool,
}

/// One line of --json.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Change {
        instance: &'a str,
        feed: &'a str,
        operation: &'static str,
        key: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        columns: Option<&'a [String]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        row: Option<&'a RawValue>,
    },
    Reset {
        instance: &'a str,
        feed: &'a str,
        reason: &'a str,
    },
    Live {
        instance: &'a str,
    },
    Heartbeat {
        live: Vec<&'a str>,
        not_live: Vec<&'a str>,
    },
    Disconnected {
        reason: &'a str,
    },
}

pub async fn run(command: Command) -> Result<()> {
    let Command::Tail(args) = command;
    let client = args.router.connect().await?;
    let options = FollowOptions {
        feeds: args.feed,
        rows: args.rows,
        ..FollowOptions::default()
    };
    let follower = ChangeFollower::start(client, options).await;
    let mut follower = follower.map_err(refused)?;
    let mut left = args.count;
    while left != Some(0) {
        match follower.next().await.map_err(refused)? {
            ChangeEvent::Changes(batch) => show(&batch, args.json, &mut left)?,
            event => remark(&event, args.json)?,
        }
    }
    Ok(())
}

fn letter(change: &proto::KeyChanges) -> &'static str {
    match change.operation() {
        proto::ChangeOperation::Insert => "I",
        proto::ChangeOperation::Update => "U",
        proto::ChangeOperation::Delete => "D",
        proto::ChangeOperation::Unspecified => "?",
    }
}

/// Prints the changes of a batch, at most as many as are left.
fn show(batch: &proto::ChangeBatch, json: bool, left: &mut Option<u64>) -> Result<()> {
    for change in &batch.changes {
        let columns = change.columns.as_ref().map(|columns| &columns.names[..]);
        for (at, key) in change.keys.iter().enumerate() {
            if *left == Some(0) {
                return Ok(());
            }
            *left = left.map(|left| left - 1);
            let row = change.rows.get(at).filter(|row| !row.is_empty());
            if json {
                let row = row.map(|row| serde_json::from_str(row)).transpose()?;
                output::json(&Line::Change {
                    instance: &batch.instance,
                    feed: &change.feed,
                    operation: letter(change),
                    key,
                    columns,
                    row,
                })?;
            } else {
                let (instance, feed, letter) = (&batch.instance, &change.feed, letter(change));
                let row = row.map_or(String::new(), |row| format!(" {row}"));
                let columns =
                    columns.map_or(String::new(), |names| format!(" [{}]", names.join(", ")));
                output::line(&format!(
                    "{instance:<6} {feed} {letter} {key}{columns}{row}"
                ))?;
            }
        }
    }
    Ok(())
}

fn remark(event: &ChangeEvent, json: bool) -> Result<()> {
    let line = match event {
        ChangeEvent::Reset(reset) => Line::Reset {
            instance: &reset.instance,
            feed: &reset.feed,
            reason: &reset.reason,
        },
        ChangeEvent::Live(live) => Line::Live {
            instance: &live.instance,
        },
        ChangeEvent::Heartbeat(beat) => {
            let named = |live: bool| {
                let which = beat.progress.iter().filter(move |one| one.live == live);
                which.map(|one| one.instance.as_str()).collect()
            };
            Line::Heartbeat {
                live: named(true),
                not_live: named(false),
            }
        }
        ChangeEvent::Disconnected { reason, .. } => Line::Disconnected { reason },
        _ => return Ok(()),
    };
    match &line {
        _ if json => return output::json(&line),
        Line::Reset {
            instance, reason, ..
        } => output::note(format!("{instance}: RESET, changes are missing: {reason}")),
        Line::Live { instance } => output::note(format!("{instance}: LIVE, none is missing now")),
        Line::Disconnected { reason } => {
            output::note(format!(
                "RESET: lost the router, connecting again: {reason}"
            ));
        }
        Line::Change { .. } | Line::Heartbeat { .. } => {}
    }
    Ok(())
}
