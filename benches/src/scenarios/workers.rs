//! The router with one and with two worker threads. A lock that all share would show as more CPU
//! a row with two.

use anyhow::Result;

use super::{Plan, fixture::Fleet, in_turns, load::Load, outcome::Outcome, say};

/// Read by tokio's runtime.
const VARIABLE: &str = "TOKIO_WORKER_THREADS";

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let fleet = Fleet::start(1, "").await?;
    let router = fleet.serve(&[]).await?;
    fleet.store(&router, plan.stored).await?;
    router.stop().await?;
    let load = Load::random(plan.stored);
    let mut outcome = Outcome::new("workers", fleet.setting(plan));
    for round in 1..=plan.rounds {
        for threads in in_turns(&["1", "2"], round) {
            let router = fleet.serve(&[(VARIABLE, threads)]).await?;
            let (rows, cpu_ns) = router.measure(&load, plan.time).await?;
            router.stop().await?;
            say(format_args!(
                "workers, round {round}, {threads}: {rows:.0} rows/s, {cpu_ns:.0} ns/row"
            ));
            let label = format!("{threads} worker threads: rows/s");
            outcome.add(format!("rows_per_second.{threads}"), &label, 0, rows);
            let label = format!("{threads} worker threads: router CPU, ns/row");
            outcome.add(format!("cpu_ns_per_row.{threads}"), &label, 0, cpu_ns);
        }
    }
    for (name, label) in [
        ("rows_per_second", "throughput, 2 threads to 1"),
        ("cpu_ns_per_row", "CPU a row, 2 threads to 1"),
    ] {
        let of = |threads: u32| format!("{name}.{threads}");
        outcome.ratio(&format!("ratio.{name}"), label, &of(2), &of(1))?;
    }
    outcome.note("PostgreSQL and the load share the cores: the second thread adds throughput only");
    outcome.note("where the router is what limits it.");
    Ok(outcome)
}
