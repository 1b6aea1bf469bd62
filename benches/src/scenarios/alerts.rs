//! How long an alert takes from its row's commit to a subscriber, while rows are written.

use std::time::Duration;

use anyhow::{Context, Result};
use pgbraid_devcluster::DevCluster;
use pgbraid_proto::v1::admin_client::AdminClient;

use super::{
    Plan,
    fixture::Fleet,
    listener::{self, Listeners},
    load::Load,
    outcome::{Outcome, Target},
    probe::{self, Prober, Rate},
    say,
};

/// A few hundred a second, each in a commit of its own.
const PROBES: Rate = Rate {
    commits_per_second: 200,
    rows_per_commit: 1,
};

/// From the start of a load until it is under way, and from the last probe to the load's end.
const MARGIN: Duration = Duration::from_secs(1);

/// How late alerts are under a load.
#[derive(Clone, Copy, Debug)]
pub struct AlertLatency {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Alerts that arrived.
    pub count: u64,
    /// Alerts that did not.
    pub lost: u64,
    /// Of the load.
    pub rows_per_second: f64,
}

/// Measures it on a router at `grpc` over one instance that owns every table of the feed, while
/// the load writes. The feed has int columns c1, c2, and c3, which the load leaves alone. A rule
/// named `probe` stays.
pub async fn latency(
    cluster: &DevCluster,
    grpc: &str,
    load: &Load,
    time: Duration,
) -> Result<AlertLatency> {
    let mut admin = AdminClient::connect(grpc.to_owned()).await?;
    probe::put_rule(&mut admin).await?;
    let prober = Prober::connect(cluster).await?;
    let channel = listener::connect(grpc).await?;
    let listeners = Listeners::start(&[channel], 1, prober.first_key()).await?;
    let running = load.start(grpc, time + 2 * MARGIN)?;
    tokio::time::sleep(MARGIN).await;
    let written = prober.write(PROBES, time).await?;
    let heard = listeners.finish(&written).await?;
    let loaded = running.finish().await?;
    Ok(AlertLatency {
        p50_ms: heard.latencies.quantile_ms(0.5),
        p99_ms: heard.latencies.quantile_ms(0.99),
        max_ms: heard.latencies.max_ms(),
        count: heard.delivered(),
        lost: heard.lost,
        rows_per_second: loaded.rows_per_second,
    })
}

/// Measures the top load, then the latency at a fifth of it, sent at a steady rate, and at the top.
pub async fn fifth_and_top(
    cluster: &DevCluster,
    grpc: &str,
    key_space: u64,
    time: Duration,
) -> Result<(AlertLatency, AlertLatency)> {
    // The probes' rule costs the load something: it is there before the top is measured.
    probe::put_rule(&mut AdminClient::connect(grpc.to_owned()).await?).await?;
    let top = Load {
        alert_one_in: Some(10_000),
        ..Load::random(key_space)
    };
    let measured = top.run(grpc, time).await.context("the top load")?;
    let fifth = Load {
        rate: Some((measured.rows_per_second / 5.0).max(1.0) as u64),
        ..top.clone()
    };
    let fifth = latency(cluster, grpc, &fifth, time)
        .await
        .context("at a fifth of the top load")?;
    let top = latency(cluster, grpc, &top, time)
        .await
        .context("at the top load")?;
    Ok((fifth, top))
}

pub(super) async fn run(plan: &Plan) -> Result<Outcome> {
    let fleet = Fleet::start(1, "").await?;
    let router = fleet.serve(&[]).await?;
    fleet.store(&router, plan.stored).await?;
    let mut outcome = Outcome::new("alerts", fleet.setting(plan));
    for round in 1..=plan.rounds {
        let (fifth, top) =
            fifth_and_top(fleet.cluster(), &router.grpc, plan.stored, plan.time).await?;
        for (key, load, found) in [("fifth", "a fifth", fifth), ("top", "the top", top)] {
            say(format_args!(
                "alerts, round {round}, at {load}: p50 {:.2} ms, p99 {:.2} ms, {} alerts, {} lost",
                found.p50_ms, found.p99_ms, found.count, found.lost
            ));
            let mut add = |name: &str, label: &str, digits, value| {
                let key = format!("{key}.{name}");
                outcome.add(key, &format!("at {load}: {label}"), digits, value);
            };
            add("rows_per_second", "rows/s", 0, found.rows_per_second);
            add("p50_ms", "commit to subscriber, p50, ms", 2, found.p50_ms);
            add("p99_ms", "commit to subscriber, p99, ms", 2, found.p99_ms);
            add("max_ms", "commit to subscriber, max, ms", 2, found.max_ms);
            add("count", "alerts received", 0, found.count as f64);
            add("lost", "alerts lost", 0, found.lost as f64);
        }
    }
    outcome.target("fifth.p50_ms", Target::AtMost(2.0));
    outcome.target("fifth.p99_ms", Target::AtMost(10.0));
    outcome.target("top.p99_ms", Target::AtMost(100.0));
    outcome.target("fifth.lost", Target::AtMost(0.0));
    outcome.target("top.lost", Target::AtMost(0.0));
    outcome.note("200 probes a second past the router; from the return of their commit to the");
    outcome.note("arrival of the alert over gRPC, both taken in this process.");
    Ok(outcome)
}
