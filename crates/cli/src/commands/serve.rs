//! `pgbraid serve`: a router, until it is told to stop.

use std::net::SocketAddr;
use std::process;

use pgbraid_server::Router;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Result};
use crate::settings::ConfigArg;
use crate::stop::StopSignals;
use crate::{logs, output};

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Where to listen for gRPC, instead of the settings; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS")]
    grpc_listen: Option<SocketAddr>,
    /// Where to listen for HTTP, instead of the settings; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
}

pub async fn run(args: Args) -> Result<()> {
    let (mut config, map) = args.config.load()?;
    if let Some(address) = args.grpc_listen {
        let safe = address.ip().is_loopback();
        if !safe && config.grpc.tls.is_none() && !config.grpc.allow_plaintext {
            return Err(Failure::new(format!(
                "--grpc-listen {address} would be plaintext on an address that is not loopback"
            ))
            .hint("set grpc.tls, or grpc.allow_plaintext = true, in the settings"));
        }
        config.grpc.listen = address;
    }
    config.http.listen = args.http_listen.unwrap_or(config.http.listen);
    logs::init(&config.log.level, config.log.format)?;

    // Before the start: a signal that comes meanwhile is not lost.
    let mut stop = StopSignals::listen()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let map_path = config.shardmap.clone();
    let drain = config.ingest.drain_timeout;
    let router = tokio::select! {
        router = Router::start(config, map, map_path) => router?,
        () = stop.next() => return Ok(()),
    };
    output::note(format!(
        "ready: grpc {}, http {}",
        router.grpc_addr(),
        router.http_addr()
    ));
    loop {
        tokio::select! {
            _ = hangup.recv() => router.reload(),
            () = stop.next() => break,
        }
    }
    output::note(format!(
        "stopping: writing what was accepted, for at most {drain:?}"
    ));
    let left = tokio::select! {
        left = router.shutdown() => left,
        () = stop.next() => stopped_twice(),
    };
    match left {
        0 => {
            output::note("stopped: everything accepted is written");
            Ok(())
        }
        rows => Err(Failure::new(format!(
            "stopped after {drain:?} with {rows} accepted rows that are not written"
        ))
        .hint("they were not acknowledged: who sent them must send them again")),
    }
}

fn stopped_twice() -> u64 {
    output::note("stopped at once: what was accepted and is not acknowledged may be lost");
    process::exit(1)
}
