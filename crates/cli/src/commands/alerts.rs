//! `pgbraid alerts`: follows what the rules find, alone or as a group.

use clap::Subcommand;
use pgbraid_client::{Event, Received, Start, SubscribeOptions, Subscriber, proto};

use crate::failure::Result;
use crate::output;
use crate::router_args::{RouterArgs, refused};

mod consume;
mod dead;
pub mod from;
mod groups;
pub mod render;
mod replay;
mod standing;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print alerts as they come
    Tail(Tail),
    /// Show consumer groups and how they stand; put, remove, pause and resume them
    Groups(groups::Args),
    /// Take part in a consumer group
    Consume(consume::Args),
    /// List, requeue and drop the dead letters of a group
    #[command(subcommand)]
    Dead(dead::Command),
    /// Move a group to another position
    Replay(replay::Args),
}

#[derive(clap::Args, Debug)]
pub struct Tail {
    #[command(flatten)]
    router: RouterArgs,
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
    /// Where to start: now, earliest (all that is kept), a time (2025-06-01T12:00:00Z, or -10m for
    /// ten minutes ago), or a token of --json
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "now",
        allow_hyphen_values = true,
        value_parser = from::parse
    )]
    from: Start,
    /// End after this many alerts (with --notifications: and notifications)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print messages of plain pg_notify channels as well
    #[arg(long)]
    notifications: bool,
    /// Print every event as a JSON object on its own line, heartbeats with their tokens too
    #[arg(long)]
    json: bool,
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Tail(args) => tail(args).await,
        Command::Groups(args) => groups::run(args).await,
        Command::Consume(args) => consume::run(args).await,
        Command::Dead(command) => dead::run(command).await,
        Command::Replay(args) => replay::run(args).await,
    }
}

async fn tail(args: Tail) -> Result<()> {
    let client = args.router.connect().await?;
    let following = following(&args);
    let options = SubscribeOptions {
        filter: proto::Filter {
            feeds: args.feed,
            channels: args.channel,
            rules: args.rule,
            instances: args.instance,
        },
        start: args.from,
        ..SubscribeOptions::default()
    };
    let mut subscriber = Subscriber::start(client, options).await.map_err(refused)?;
    output::note(output::wrap(&following, output::stderr_width()));
    let mut left = args.count;
    let width = output::stdout_width();
    let mut lost = false;
    while left != Some(0) {
        let received = subscriber.next().await.map_err(refused)?;
        if let Event::Disconnected { reason, .. } = &received.event {
            if !lost {
                output::note(format!("lost the router, connecting again: {reason}"));
            }
            lost = true;
            continue;
        }
        if std::mem::take(&mut lost) {
            output::note("the router is back, going on after the last token");
        }
        let counts = match received.event {
            Event::Alert(_) => true,
            Event::Notification(_) if args.notifications => true,
            Event::Notification(_) => continue,
            _ => false,
        };
        show(&received, args.json, width)?;
        if counts {
            left = left.map(|left| left - 1);
        }
    }
    Ok(())
}

/// What is followed from where, for whoever waits for the first alert.
fn following(args: &Tail) -> String {
    let mut text = "following alerts".to_owned();
    for (what, names) in [
        ("feed", &args.feed),
        ("channel", &args.channel),
        ("rule", &args.rule),
        ("instance", &args.instance),
    ] {
        if !names.is_empty() {
            let s = if names.len() == 1 { "" } else { "s" };
            text.push_str(&format!(" of {what}{s} {}", names.join(", ")));
        }
    }
    match &args.from {
        Start::Now => text.push_str(" from now on"),
        Start::Earliest => text.push_str(" from the oldest that is kept"),
        Start::Time(at) => {
            let at = prost_types::Timestamp::from(*at);
            text.push_str(&format!(" raised since {at}"));
        }
        Start::Token(_) => text.push_str(" from after the token"),
    }
    text
}

fn show(received: &Received, json: bool, width: Option<usize>) -> Result<()> {
    if json {
        return output::json(&render::Line::of(received));
    }
    match &received.event {
        Event::Alert(alert) => output::line(&render::alert(alert, width)),
        Event::Notification(event) => output::line(&render::notification(event, width)),
        event => {
            if let Some(text) = render::remark(event) {
                output::note(output::wrap(&text, output::stderr_width()));
            }
            Ok(())
        }
    }
}
