//! What a thousand subscribers of one channel cost the router, and what one that reads nothing
//! changes for the others.

use std::time::{Duration, Instant};

use anyhow::Result;
use pgbraid_proto::v1;
use tonic::{Streaming, transport::Channel};

use super::{
    Plan,
    fixture::{Fleet, Router},
    in_turns,
    listener::{self, Listeners},
    outcome::{Outcome, Target},
    probe::{self, Prober, Rate},
    say,
};

const SUBSCRIBERS: usize = 1000;
const CONNECTIONS: usize = 20;

/// The dearest way: each alert wakes every subscriber by itself.
const SINGLE: Rate = Rate {
    commits_per_second: 50,
    rows_per_commit: 1,
};

/// As a batch of rows raises them.
const TOGETHER: Rate = Rate {
    commits_per_second: 10,
    rows_per_commit: 10,
};

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let fleet = Fleet::start(1, "").await?;
    let router = fleet.serve(&[]).await?;
    probe::put_rule(&mut router.admin()).await?;
    let mut outcome = Outcome::new("subscribers", fleet.setting(plan));
    let bench = Bench {
        fleet: &fleet,
        router: &router,
        time: plan.time,
    };
    for round in 1..=plan.rounds {
        let phases = [
            ("single", "1 alert a commit", SINGLE, false),
            ("together", "10 alerts a commit", TOGETHER, false),
            ("slow", "with one that reads nothing", SINGLE, true),
        ];
        for (key, label, rate, slow) in in_turns(&phases, round) {
            // Anew each time, so that machine noise hits both sides of the difference alike.
            let idle = bench.phase(rate, 0, slow).await?;
            let busy = bench.phase(rate, SUBSCRIBERS, slow).await?;
            let us = us_each(busy.cpu_share - idle.cpu_share, busy.wall, busy.delivered);
            say(format_args!(
                "subscribers, round {round}, {label}: {us:.1} us an alert, p99 {:.2} ms, {} lost",
                busy.p99_ms, busy.lost
            ));
            let mut add = |name: &str, what: &str, digits, value| {
                let key = format!("{key}.{name}");
                outcome.add(key, &format!("{label}: {what}"), digits, value);
            };
            add("cpu_us", "CPU, us", 2, us);
            add("p50_ms", "p50, ms", 2, busy.p50_ms);
            add("p99_ms", "p99, ms", 2, busy.p99_ms);
            add("lost", "lost", 0, busy.lost as f64);
            add("rss_mib", "RSS, MiB", 0, busy.rss_mib);
        }
    }
    for (name, label) in [
        ("p50_ms", "p50 with a slow one to p50 without"),
        ("p99_ms", "p99 with a slow one to p99 without"),
    ] {
        let of = |phase: &str| format!("{phase}.{name}");
        outcome.ratio(&format!("ratio.{name}"), label, &of("slow"), &of("single"))?;
    }
    for phase in ["single", "together", "slow"] {
        outcome.target(&format!("{phase}.cpu_us"), Target::AtMost(10.0));
        outcome.target(&format!("{phase}.lost"), Target::AtMost(0.0));
    }
    outcome.target("ratio.p50_ms", Target::AtMost(1.25));
    outcome.note("1000 subscribers over 20 connections, in this process. CPU: the router's, by");
    outcome.note("alerts delivered, less what it takes with the same rows and no subscriber.");
    Ok(outcome)
}

struct Bench<'a> {
    fleet: &'a Fleet,
    router: &'a Router,
    time: Duration,
}

struct Phase {
    /// CPU time by wall time, of the router.
    cpu_share: f64,
    wall: Duration,
    delivered: u64,
    lost: u64,
    p50_ms: f64,
    p99_ms: f64,
    rss_mib: f64,
}

impl Bench<'_> {
    async fn phase(&self, rate: Rate, subscribers: usize, slow: bool) -> Result<Phase> {
        let grpc = &self.router.grpc;
        let prober = Prober::connect(self.fleet.cluster()).await?;
        let stopped: Option<Streaming<v1::SubscribeResponse>> = match slow {
            true => Some(listener::stopped_reader(grpc).await?),
            false => None,
        };
        let mut channels: Vec<Channel> = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(listener::connect(grpc).await?);
        }
        let listeners = Listeners::start(&channels, subscribers, prober.first_key()).await?;
        // Subscribing is over, and not to be counted.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (cpu, start) = (self.router.cpu()?, Instant::now());
        let written = prober.write(rate, self.time).await?;
        let heard = listeners.finish(&written).await?;
        let (used, wall) = (self.router.cpu()?.saturating_sub(cpu), start.elapsed());
        let phase = Phase {
            cpu_share: used.as_secs_f64() / wall.as_secs_f64(),
            wall,
            delivered: heard.delivered(),
            lost: heard.lost,
            p50_ms: heard.latencies.quantile_ms(0.5),
            p99_ms: heard.latencies.quantile_ms(0.99),
            rss_mib: self.router.memory()?.now_mib,
        };
        drop(stopped);
        Ok(phase)
    }
}

/// Microseconds of CPU for each alert delivered.
fn us_each(cpu_share: f64, wall: Duration, delivered: u64) -> f64 {
    cpu_share * wall.as_secs_f64() * 1e6 / delivered.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_by_alert() {
        // Half a core for 4 s, for 200,000 alerts.
        let each = us_each(0.5, Duration::from_secs(4), 200_000);
        assert!((each - 10.0).abs() < 1e-9);
        assert_eq!(us_each(0.0, Duration::from_secs(4), 0), 0.0);
    }
}
