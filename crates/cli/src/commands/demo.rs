//! `pgbraid demo`: instances, a router, orders and alerts, all on this machine, and then gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgbraid_client::{Client, ClientConfig, proto};
use pgbraid_config::LogFormat;
use pgbraid_devcluster::{ClusterSpec, DevCluster, TempCluster, down};
use pgbraid_server::Router;
use pgbraid_server::fleet::Fleet;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::commands::dev::files;
use crate::commands::migrate;
use crate::failure::{Failure, Result};
use crate::meter::Meter;
use crate::router_args::{refused, status};
use crate::stop::StopSignals;
use crate::{logs, output, settings};

mod follow;
mod life;
mod screen;
mod summary;
mod systems;

use follow::Follower;
use screen::Screen;
use summary::Summary;

/// How long alerts may take to arrive after the last ack.
const CATCH_UP: Duration = Duration::from_secs(20);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// PostgreSQL instances
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    instances: u16,
    /// Tables of the feed
    #[arg(long, value_name = "T", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    tables: u32,
    /// End after this time with a summary [default: at Ctrl-C]
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Rows a second to aim at, or max
    #[arg(long, value_name = "ROWS", default_value = "20000", value_parser = parse_rate)]
    rate: Rate,
    /// Where the instances live until the end [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// Rows a second; `None`: as many as go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(Option<u64>);

fn parse_rate(text: &str) -> Result<Rate, String> {
    match text.parse::<u64>() {
        _ if text == "max" => Ok(Rate(None)),
        Ok(rows @ 10..=100_000_000) => Ok(Rate(Some(rows))),
        _ => Err("give rows a second, at least 10, or max".into()),
    }
}

pub async fn run(args: Args) -> Result<()> {
    logs::init("error", LogFormat::Text)?;
    let stopped = watch_signals(args.dir.clone())?;
    let instances = args.instances;
    output::note(format!(
        "starting {instances} PostgreSQL instances (they go away at the end)"
    ));
    let done = match &args.dir {
        None => {
            let start = TempCluster::start(instances, false, &[]);
            let cluster = unless_stopped(&stopped, async { Ok(start.await?) }).await?;
            // Dropping the cluster, also after an error, removes it.
            play(&args, &cluster, &stopped).await
        }
        Some(dir) => {
            refuse_existing(dir)?;
            let done = in_folder(&args, dir, &stopped).await;
            let removed = remove(dir).await;
            done.and_then(|summary| removed.map(|()| summary))
        }
    };
    let summary = done?;
    if args.json {
        output::json(&summary)?;
    } else {
        summary
            .lines()
            .iter()
            .try_for_each(|line| output::line(line))?;
    }
    if summary.is_complete() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{} alerts were raised, and {} received within {CATCH_UP:?} after the last ack",
            summary.alerts_raised, summary.alerts_received
        )))
    }
}

/// Becomes true at the first signal. A second one does not wait for the summary.
fn watch_signals(dir: Option<PathBuf>) -> Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut signals = StopSignals::listen()?;
    tokio::spawn(async move {
        signals.next().await;
        stop.send_replace(true);
        signals.next().await;
        // The watchdog of a temporary cluster removes it; a folder that was named is the user's.
        if let Some(dir) = dir {
            let dir = dir.display();
            output::note(format!(
                "stopped at once; to clean up: pgbraid dev down --dir {dir} --remove"
            ));
        }
        std::process::exit(1);
    });
    Ok(stopped)
}

/// The demo itself, on instances that run.
async fn play(
    args: &Args,
    cluster: &DevCluster,
    stopped: &watch::Receiver<bool>,
) -> Result<Summary> {
    let begin = async {
        let wish = files::Wish {
            tables: Some(args.tables),
            changes: true,
            grpc_port: Some(0),
            http_port: Some(0),
            ..files::Wish::default()
        };
        files::Plan::make(&wish, &files::Existing::default())?.write(cluster)?;
        let (config, map) = settings::load(&cluster.dir().join(files::CONFIG))?;
        let map_path = config.shardmap.clone();
        let fleet = Fleet::new(Arc::new(config.clone()), Arc::new(map.clone()))?;
        migrate::with_progress(&fleet).await?;
        let router = Router::start(config, map, map_path).await?;
        Ok((fleet, router))
    };
    let (fleet, router) = unless_stopped(stopped, begin).await?;
    let done = generate(args, &fleet, &router, stopped).await;
    let left = router.shutdown().await;
    let summary = done?;
    if left > 0 {
        return Err(Failure::new(format!(
            "{left} accepted rows were not written at the end"
        )));
    }
    Ok(summary)
}

/// Writes orders and follows alerts until it is time to stop.
async fn generate(
    args: &Args,
    fleet: &Fleet,
    router: &Router,
    stopped: &watch::Receiver<bool>,
) -> Result<Summary> {
    let endpoint = format!("http://{}", router.grpc_addr());
    let connect = || async {
        let client = Client::connect(ClientConfig::new(&endpoint)).await;
        client.map_err(refused)
    };
    let client = connect().await?;
    let request = proto::PutRulesRequest {
        rules: life::rules(),
        prune: false,
        dry_run: false,
    };
    client.admin().put_rules(request).await.map_err(status)?;
    let (grpc, http) = (router.grpc_addr(), router.http_addr());
    output::note(format!(
        "router on {grpc}, metrics on http://{http}/metrics"
    ));

    let screen = Arc::new(Screen::new());
    let mut follower = Follower::start(client, Arc::clone(&screen)).await?;
    let meter = Arc::new(Meter::default());
    let (end, mut ended) = watch::channel(false);
    let pace = systems::Pace::new(args.rate.0);
    let mut tasks = JoinSet::new();
    for system in systems::System::ALL {
        let client = connect().await?;
        let meter = Arc::clone(&meter);
        tasks.spawn(systems::run(system, client, pace, meter, ended.clone()));
    }
    let start = Instant::now();
    let mut stopped = stopped.clone();
    let mut tick = tokio::time::interval(screen.interval());
    let time_is_up = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let mut time_is_up = std::pin::pin!(time_is_up);
    loop {
        tokio::select! {
            _ = tick.tick() => screen.progress(&meter, follower.seen(), start.elapsed()),
            () = &mut time_is_up => break,
            _ = stopped.wait_for(|stopped| *stopped) => break,
            error = follower.failed() => return Err(error),
            done = tasks.join_next() => match done {
                Some(Err(panicked)) => return Err(panicked.into()),
                _ => break, // A stream that ended for good: the refusals say why.
            },
        }
    }
    end.send_replace(true);
    ended.mark_unchanged();
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    let elapsed = start.elapsed();
    // Everything is acknowledged: no more alerts are raised from here on.
    let raised = u64::try_from(fleet.count_alerts().await?).unwrap_or_default();
    let received = follower.wait_for(raised, CATCH_UP).await?;
    screen.finish();
    Ok(Summary::new(
        &meter,
        elapsed,
        raised,
        received,
        follower.latencies(),
    ))
}

async fn in_folder(args: &Args, dir: &Path, stopped: &watch::Receiver<bool>) -> Result<Summary> {
    let spec = ClusterSpec {
        dir: dir.to_owned(),
        instances: args.instances,
        durable: false,
        settings: Vec::new(),
    };
    let cluster = unless_stopped(stopped, async { Ok(DevCluster::up(&spec).await?) }).await?;
    play(args, &cluster, stopped).await
}

fn refuse_existing(dir: &Path) -> Result<()> {
    let foreign = dir
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some());
    if foreign {
        return Err(Failure::new(format!("{} is not empty", dir.display())).hint(
            "the demo removes what it made: give it a new or an empty folder, or see `pgbraid dev \
             up` for a cluster that stays",
        ));
    }
    Ok(())
}

async fn remove(dir: &Path) -> Result<()> {
    if !dir.join("cluster.json").exists() {
        return Ok(());
    }
    down(dir, false).await?;
    files::remove_unchanged(dir)?;
    down(dir, true).await?;
    Ok(())
}

async fn unless_stopped<T>(
    stopped: &watch::Receiver<bool>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut stopped = stopped.clone();
    tokio::select! {
        done = work => done,
        _ = stopped.wait_for(|stopped| *stopped) => {
            Err(Failure::new("stopped before the demo had begun"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(parse_rate("max"), Ok(Rate(None)));
        assert_eq!(parse_rate("20000"), Ok(Rate(Some(20_000))));
        for bad in ["", "0", "-1", "fast"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
