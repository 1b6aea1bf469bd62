//! `pgbraid alerts consume`: takes part in a group; prints alerts, or runs a command for each.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pgbraid_client::{Backoff, ConsumeOptions, GroupConsumer, Message, Nack, RunOptions};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::render;
use crate::failure::{Failure, Result};
use crate::output;
use crate::router_args::{RouterArgs, refused};
use crate::stop::StopSignals;

/// Deliveries in flight for commands, a handful for each: the others of the group may be idle.
const PER_COMMAND: u32 = 4;
const IN_FLIGHT: u32 = 100;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    router: RouterArgs,
    /// The group
    #[arg(long, value_name = "NAME")]
    group: String,
    /// A name for this member, for the history of dead letters
    #[arg(long, value_name = "NAME")]
    member: Option<String>,
    /// Alerts to hold that are not acked, at most [default: 100; with --exec: 4 a command]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_in_flight: Option<u32>,
    /// End after this many alerts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Run this in a shell for each alert, with the alert as JSON on its stdin: exit code 0 acks,
    /// any other delivers the alert again later. Without it, alerts are printed, and then acked
    #[arg(long, value_name = "COMMAND",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    exec: Option<String>,
    /// Commands to run at the same time
    #[arg(long, value_name = "N", default_value_t = 1, requires = "exec",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    jobs: u16,
    /// Wait this long before a failed alert is delivered again; twice as long each further time, up
    /// to 5 minutes
    #[arg(long, value_name = "SECONDS", default_value_t = 1, requires = "exec",
          value_parser = clap::value_parser!(u64).range(0..=300))]
    retry_delay: u64,
    /// Print each alert as a JSON object on its own line
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let mut signals = StopSignals::listen()?;
    let client = args.router.connect().await?;
    let mut join = ConsumeOptions::new(&args.group);
    if let Some(member) = &args.member {
        join.member.clone_from(member);
    }
    let default = match args.exec {
        Some(_) => PER_COMMAND * u32::from(args.jobs),
        None => IN_FLIGHT,
    };
    join.max_in_flight = args.max_in_flight.unwrap_or(default);
    if let Some(count) = args.count {
        // What is not wanted is better with the others.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        join.max_in_flight = join.max_in_flight.min(count);
    }
    let options = RunOptions {
        concurrency: usize::from(args.jobs),
        retry: Backoff {
            min: Duration::from_secs(args.retry_delay),
            max: Duration::from_secs(300),
        },
        limit: args.count,
        ..RunOptions::default()
    };
    let consumer = GroupConsumer::join(client, join).await.map_err(refused)?;

    // The first failure to print ends it all.
    let (failed, mut failure) = mpsc::channel::<Failure>(1);
    let mut broken = None;
    let stop = async {
        tokio::select! {
            () = signals.next() => {}
            Some(failure) = failure.recv() => broken = Some(failure),
        }
    };
    let work = Arc::new(Work {
        group: args.group,
        exec: args.exec,
        json: args.json,
        width: output::stdout_width(),
        failed,
    });
    let handler = move |message| {
        let work = Arc::clone(&work);
        async move { work.on(message).await }
    };
    let handled = consumer.run_until(options, stop, handler).await;
    if let Some(failure) = broken {
        return Err(failure);
    }
    let handled = handled.map_err(refused)?;
    if handled.nacked + handled.terminated > 0 {
        let (acked, nacked) = (handled.acked, handled.nacked);
        output::note(format!("{acked} acked, {nacked} to be delivered again"));
    }
    if handled.unconfirmed > 0 {
        let many = handled.unconfirmed;
        output::note(format!(
            "{many} were handled too late or not confirmed: they may come again"
        ));
    }
    Ok(())
}

struct Work {
    group: String,
    exec: Option<String>,
    json: bool,
    width: Option<usize>,
    failed: mpsc::Sender<Failure>,
}

impl Work {
    async fn on(&self, message: Arc<Message>) -> Result<(), Nack> {
        let json = serde_json::to_string(&render::Delivered::of(&self.group, &message))?;
        if let Some(command) = &self.exec {
            let done = exec(command, json).await;
            if let Err(why) = &done {
                let alert = &message.alert;
                let (instance, seq) = (&alert.instance, alert.seq);
                output::note(format!("{instance}/{seq}: {why}"));
            }
            return done.map_err(Nack::new);
        }
        let line = if self.json {
            json
        } else {
            render::alert(&message.alert, self.width)
        };
        // A reader that is slow must not keep the deliveries from being extended.
        let printed = tokio::task::spawn_blocking(move || output::line(&line)).await?;
        printed.map_err(|failure| {
            let _ = self.failed.try_send(failure);
            Nack::new("it could not be printed").after(Duration::ZERO)
        })
    }
}

/// Err: why the alert is to come again.
async fn exec(command: &str, stdin: String) -> std::result::Result<(), String> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start the command: {error}"))?;
    let pipe = child.stdin.take();
    let feed = async {
        if let Some(mut pipe) = pipe {
            // A command need not read its input; its exit code says what it thinks of it.
            let _ = pipe.write_all(stdin.as_bytes()).await;
            let _ = pipe.write_all(b"\n").await;
        }
    };
    let ((), status) = tokio::join!(feed, child.wait());
    let status = status.map_err(|error| format!("cannot wait for the command: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("the command failed: {status}"))
}
