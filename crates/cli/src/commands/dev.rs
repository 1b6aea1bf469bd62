//! `pgbraid dev`: local PostgreSQL instances, and the files of settings for them.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use pgbraid_devcluster::{ClusterSpec, DevCluster, InstanceState, down, status};
use pgbraid_server::fleet::Fleet;
use serde_json::json;

use crate::commands::migrate;
use crate::failure::{OrFail, Result};
use crate::table::Table;
use crate::{output, settings};

pub mod files;
pub mod schema;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start PostgreSQL instances, migrate them, and write pgbraid.toml and shardmap.toml
    Up(Up),
    /// Stop the instances
    Down(Down),
    /// Show how the instances are
    Status(Status),
}

#[derive(clap::Args, Debug)]
pub struct Up {
    /// The folder: new, empty, or made by an earlier `dev up`
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// PostgreSQL instances, 1 to 256; a cluster can grow, not shrink [default: 4, or what is there]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    instances: Option<u16>,
    /// Tables of the feed, 1 to 4096; fixed for its life [default: 64, or what is there]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=4096))]
    tables: Option<u32>,
    /// Your SQL that makes the feed's parent [default: the orders of the demo]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The feed's name [default: the first table of the schema that is partitioned by hash]
    #[arg(long, value_name = "NAME")]
    feed: Option<String>,
    /// Keep what was committed when the machine crashes; slower
    #[arg(long)]
    durable: bool,
    /// The router's port for gRPC [default: 7432, or what is there]
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<u16>,
    /// The router's port for HTTP [default: 7433, or what is there]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct Down {
    /// The folder of the cluster
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Delete the cluster as well
    #[arg(long)]
    remove: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct Status {
    /// The folder of the cluster
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(args) => run_up(args).await,
        Command::Down(args) => run_down(args).await,
        Command::Status(args) => run_status(args).await,
    }
}

async fn run_up(args: Up) -> Result<()> {
    let before = files::Existing::look(&args.dir);
    let wish = files::Wish {
        schema: args.schema.as_deref(),
        feed: args.feed.as_deref(),
        tables: args.tables,
        changes: false,
        grpc_port: args.grpc_port,
        http_port: args.http_port,
    };
    // What is wrong with the wish is told before anything is started.
    let plan = files::Plan::make(&wish, &before)?;
    let instances = args.instances.or(before.instances).unwrap_or(4);
    output::note(format!(
        "starting {instances} PostgreSQL instances in {}",
        args.dir.display()
    ));
    let cluster = DevCluster::up(&ClusterSpec {
        dir: args.dir.clone(),
        instances,
        durable: args.durable,
        settings: Vec::new(),
    })
    .await?;
    for kept in plan.write(&cluster)? {
        output::note(kept);
    }
    let config = cluster.dir().join(files::CONFIG);
    let (router, map) = settings::load(&config)?;
    let (grpc, http) = (router.grpc.listen, router.http.listen);
    let fleet = Fleet::new(Arc::new(router), Arc::new(map))?;
    let summary = migrate::with_progress(&fleet).await?;
    let shown = args.dir.join(files::CONFIG);
    if args.json {
        let instances: Vec<_> = cluster
            .instances()
            .iter()
            .map(|i| json!({"name": i.name(), "port": i.port(), "pid": i.pid()}))
            .collect();
        return output::json(&json!({
            "dir": cluster.dir(), "config": config, "grpc": grpc, "http": http,
            "instances": instances, "migrated": summary,
        }));
    }
    output::line(&migrate::text(&summary))?;
    output::line("next:")?;
    output::line(&format!("  pgbraid serve --config {}", shown.display()))?;
    let router = match grpc.port() {
        7432 => String::new(),
        port => format!(" --router http://127.0.0.1:{port}"),
    };
    output::line(&format!(
        "  pgbraid load --feed {}{router} --for 10",
        plan.feed
    ))?;
    output::line(&format!("  pgbraid dev down --dir {}", args.dir.display()))
}

async fn run_down(args: Down) -> Result<()> {
    let mut done = down(&args.dir, false).await?;
    if args.remove {
        // First ours, so that the folder is empty when its turn comes.
        let kept = files::remove_unchanged(&args.dir)?;
        let stopped = done.stopped;
        done = down(&args.dir, true).await?;
        done.stopped = stopped;
        for path in kept {
            output::note(format!("{} has changes of yours: it stays", path.display()));
        }
    }
    if args.json {
        return output::json(&done);
    }
    output::line(&format!("{} instances stopped", done.stopped))?;
    if done.removed {
        output::line(&format!("{} removed", args.dir.display()))?;
    }
    for path in &done.kept {
        output::line(&format!("kept, not ours: {}", path.display()))?;
    }
    Ok(())
}

async fn run_status(args: Status) -> Result<()> {
    let instances = status(&args.dir).await?;
    if args.json {
        let dir = args.dir.canonicalize();
        let dir = dir.or_fail(|| format!("cannot look at {}", args.dir.display()))?;
        return output::json(&json!({"dir": dir, "instances": instances}));
    }
    let mut table = Table::new(&["instance", ">port", "state", ">pid", ">data", "version"]);
    for instance in instances {
        let state = match instance.state {
            InstanceState::Running => "running",
            InstanceState::Stopped => "stopped",
            InstanceState::Frozen => "frozen",
            InstanceState::NotAnswering => "not answering",
        };
        table.row([
            instance.name,
            instance.port.to_string(),
            state.to_owned(),
            instance.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            output::bytes(instance.data_bytes),
            instance.version.unwrap_or_default(),
        ]);
    }
    table.lines().iter().try_for_each(|line| output::line(line))
}
