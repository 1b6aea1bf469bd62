//! The exporter, and what only the router as a whole can count.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::{Unit, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::state::Shared;

/// A boundary at each objective we promise: 2, 10, 50 and 100 ms among them.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];
const ROWS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0,
];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once a process.
pub(crate) fn install() -> PrometheusHandle {
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new();
            let builder = builder
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
                .and_then(|builder| {
                    builder.set_buckets_for_metric(Matcher::Full("pgbraid_batch_rows".into()), ROWS)
                });
            let recorder = builder
                .unwrap_or_else(|_| PrometheusBuilder::new())
                .build_recorder();
            let handle = recorder.handle();
            // Another recorder may be there already in a process that embeds the router.
            let _ = metrics::set_global_recorder(recorder);
            describe();
            handle
        })
        .clone()
}

fn describe() {
    pgbraid_ingest::describe();
    pgbraid_alerts::metrics::describe();
    crate::retention::describe();
    crate::auto::describe();
    describe_gauge!(
        "pgbraid_build_info",
        "Always 1; labels: version, postgres client"
    );
    describe_gauge!(
        "pgbraid_map_info",
        "1 for the fingerprint of the shard map in force"
    );
    describe_gauge!(
        "pgbraid_map_drift_tables",
        "Tables that are not where the map wants them, by feed"
    );
    describe_gauge!(
        "pgbraid_map_unowned_tables",
        "Tables that no reachable instance owns, by feed"
    );
    describe_gauge!(
        "pgbraid_map_conflict_tables",
        "Tables that two instances own and nobody writes, by feed"
    );
    describe_gauge!("pgbraid_tables_owned", "Tables, by instance");
    describe_counter!(
        "pgbraid_map_reloads_total",
        "Reloads of the shard map, by result: applied, refused"
    );
    describe_gauge!(
        "pgbraid_map_reload_failed",
        "1 while the file of the shard map is refused"
    );
    describe_gauge!(
        "pgbraid_pool_connections",
        "Open connections, by instance, pool and state"
    );
    describe_counter!(
        "pgbraid_pool_errors_total",
        "Connections that could not be made or broke, by instance"
    );
    describe_gauge!(
        "pgbraid_notification_queue_usage",
        "pg_notification_queue_usage(): 0 to 1, by instance"
    );
    describe_counter!(
        "pgbraid_ownership_reads_total",
        "Times that the instances were asked who owns which table"
    );
    describe_counter!(
        "pgbraid_cooldowns_removed_total",
        "Past cool-downs of rules that were removed, by instance"
    );
    describe_counter!(
        "pgbraid_ownership_news_total",
        "Times that instances said that ownership or rules changed"
    );
    describe_counter!(
        "pgbraid_move_rescues_total",
        "Cut-overs ended by this router because their mover had died"
    );
    for name in ["pgbraid_ownership_news_total", "pgbraid_move_rescues_total"] {
        metrics::counter!(name).increment(0);
    }
    describe_counter!("pgbraid_requests_total", "gRPC requests by method and code");
    describe_gauge!(
        "pgbraid_memory_resident_bytes",
        Unit::Bytes,
        "Resident memory of the router"
    );
    for (name, text) in GROUP_GAUGES {
        describe_gauge!(name, text);
    }
    gauge!("pgbraid_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("pgbraid_map_reload_failed").set(0.0);
    for result in ["applied", "refused"] {
        metrics::counter!("pgbraid_map_reloads_total", "result" => result).increment(0);
    }
}

/// How each group stands on each instance.
const GROUP_GAUGES: [(&str, &str); 8] = [
    (
        "pgbraid_group_lag_alerts",
        "Alerts kept beyond the position of a group, by group and instance",
    ),
    (
        "pgbraid_group_lag_seconds",
        "Age of the first alert beyond the position of a group, by group and instance",
    ),
    (
        "pgbraid_group_in_flight",
        "Alerts delivered and not settled, by group and instance",
    ),
    (
        "pgbraid_group_delayed",
        "Alerts to be delivered again, by group and instance",
    ),
    (
        "pgbraid_group_waiting",
        "Alerts that wait for the one before of their key, by group and instance",
    ),
    (
        "pgbraid_group_dead_letters",
        "Dead letters, by group and instance",
    ),
    (
        "pgbraid_group_oldest_unacked_seconds",
        "Age of the oldest alert that was delivered and not acked, by group and instance",
    ),
    (
        "pgbraid_group_dropped_alerts",
        "Alerts that retention dropped before a group had them, by group and instance",
    ),
];

/// Exports which map is in force.
pub(crate) fn map_info(before: &str, now: &str) {
    if before != now {
        gauge!("pgbraid_map_info", "fingerprint" => before.to_owned()).set(0.0);
    }
    gauge!("pgbraid_map_info", "fingerprint" => now.to_owned()).set(1.0);
}

/// What is exported, without the series of groups that are not there any more: the recorder keeps
/// every series for as long as the process lives, at its last value.
pub(crate) fn without_gone_groups(text: &str, there: impl Fn(&str) -> bool) -> String {
    let of_group = |line: &str| {
        let labels = line.strip_prefix("pgbraid_group_")?;
        let label = labels.split_once("group=\"")?.1;
        // Names of groups have nothing in them that is escaped.
        Some(label.split_once('"')?.0.to_owned())
    };
    let kept = |line: &&str| of_group(line).is_none_or(|group| there(&group));
    text.split_inclusive('\n').filter(kept).collect()
}

/// Samples what has to be asked for.
pub(crate) async fn sample(shared: Arc<Shared>, handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    let mut draining = shared.draining.subscribe();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = draining.wait_for(|draining| *draining) => return,
        }
        handle.run_upkeep();
        if let Some(bytes) = resident_bytes() {
            gauge!("pgbraid_memory_resident_bytes").set(bytes as f64);
        }
        let topology = shared.topology.load_full();
        crate::groups::export(&shared, &topology).await;
        for node in topology.nodes.values() {
            metrics::counter!("pgbraid_cooldowns_removed_total", "instance" => node.name.to_string())
                .increment(0);
            let instance = node.instance.load_full();
            let stats = instance.pool_stats();
            for (pool, all, idle) in [
                ("writers", stats.writers, stats.writers_idle),
                ("readers", stats.readers, stats.readers_idle),
            ] {
                let set = |state: &'static str, count: u32| {
                    gauge!("pgbraid_pool_connections", "instance" => node.name.to_string(), "pool" => pool, "state" => state)
                        .set(f64::from(count));
                };
                set("idle", idle);
                set("busy", all.saturating_sub(idle));
            }
            if topology.unreachable.contains_key(&node.name) {
                continue;
            }
            let asked = instance.notification_queue_usage();
            if let Ok(Ok(usage)) = tokio::time::timeout(Duration::from_secs(1), asked).await {
                gauge!("pgbraid_notification_queue_usage", "instance" => node.name.to_string())
                    .set(usage);
            }
        }
    }
}

/// Resident memory, on Linux.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_groups_that_are_gone_are_left_out() {
        let text = "# TYPE pgbraid_group_lag_alerts gauge\n\
                    pgbraid_group_lag_alerts{group=\"a\",instance=\"db0\"} 5\n\
                    pgbraid_group_lag_alerts{group=\"ab\",instance=\"db0\"} 6\n\
                    pgbraid_group_settled_total{group=\"b\",how=\"ack\"} 7\n\
                    pgbraid_alerts_read_total{channel=\"group=\\\"b\\\"\"} 8\n";
        let kept = without_gone_groups(text, |group| group == "a");
        let lines: Vec<_> = kept.lines().collect();
        let all: Vec<_> = text.lines().collect();
        assert_eq!(lines, [all[0], all[1], all[4]]);
    }
}
