//! Memory of the router when its queues are full, and after they are empty again.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{
    Plan,
    fixture::{Fleet, Router, wait_for},
    load::Load,
    outcome::{Outcome, Target},
    say,
};

/// The limit of the queues, as in [`SETTINGS`].
const QUEUE_MIB: f64 = 64.0;

/// What one stream that is not read may hold: the router's HTTP/2 window.
const WINDOW_MIB: f64 = 16.0;

/// What is not counted: ledgers of rows, answers, buffers of connections.
const SLACK_MIB: f64 = 32.0;

/// Instances stand still for some seconds only: no request may come to its deadline, and no
/// instance be given up, or the load would be refused instead of filling the queues.
const SETTINGS: &str = "[ingest]\nqueue_bytes = \"64MiB\"\nqueue_bytes_per_instance = \"64MiB\"\n\
     request_timeout = \"5m\"\nstall_after = \"5m\"\n";

/// Full this far: the next request need not fit.
const FULL: f64 = 0.98;

const DEADLINE: Duration = Duration::from_secs(60);

/// For the allocator, after everything is drained.
const AFTERWARDS: Duration = Duration::from_secs(10);

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let fleet = Fleet::start(1, SETTINGS).await?;
    let mut outcome = Outcome::new("memory", fleet.setting(plan));
    for round in 1..=plan.rounds {
        let found = fill_and_drain(&fleet, plan).await?;
        say(format_args!(
            "memory, round {round}: {:.0} MiB before, {:.0} at the limit, {:.0} afterwards",
            found.before, found.peak, found.after,
        ));
        let mut add = |key: &str, label, mib| outcome.add(key, label, 0, mib);
        add(
            "before_mib",
            "after a usual load: resident, MiB",
            found.before,
        );
        add("queued_mib", "queues full: queued, MiB", found.queued);
        add("peak_mib", "queues full: peak resident, MiB", found.peak);
        add("bound_mib", "the bound, MiB", found.bound());
        add(
            "after_mib",
            "10 s after the drain: resident, MiB",
            found.after,
        );
        let label = "peak to bound";
        outcome.add("ratio.bound", label, 2, found.peak / found.bound());
        let label = "share of the growth that was given back";
        outcome.add("returned", label, 2, found.returned());
    }
    outcome.target("ratio.bound", Target::AtMost(1.0));
    outcome.target("returned", Target::AtLeast(0.75));
    outcome.note("The bound: resident after a usual load, 64 MiB of queues, 16 MiB (the HTTP/2");
    outcome.note("window) for each of 8 streams, and 32 MiB.");
    Ok(outcome)
}

/// All in MiB.
struct Found {
    before: f64,
    queued: f64,
    peak: f64,
    after: f64,
}

impl Found {
    fn bound(&self) -> f64 {
        self.before + QUEUE_MIB + f64::from(flood(1).producers) * WINDOW_MIB + SLACK_MIB
    }

    /// 1 when nothing had grown.
    fn returned(&self) -> f64 {
        let grown = self.peak - self.before;
        match grown > 0.0 {
            true => ((self.peak - self.after) / grown).clamp(0.0, 1.0),
            false => 1.0,
        }
    }
}

/// More in flight than the queues take, in wide rows: the drain takes the fewer of them.
fn flood(key_space: u64) -> Load {
    Load {
        columns: "c1,c2,c3,c4,c5,c6,c7,c8,c9,c10,c11,c12",
        in_flight: 16,
        batch_rows: 20_000,
        ..Load::random(key_space)
    }
}

async fn fill_and_drain(fleet: &Fleet, plan: &Plan) -> Result<Found> {
    // A new one each time: what an earlier round left in the allocator would hide what this grows.
    let router = fleet.serve(&[]).await?;
    let usual = Load::random(plan.stored);
    usual.run(&router.grpc, plan.time).await?;
    let before = router.memory()?.now_mib;

    fleet.cluster().freeze(0).await?;
    let running = flood(plan.stored).start(&router.grpc, plan.time)?;
    let full = wait_for(DEADLINE, async || {
        Ok(queued_mib(&router).await? >= QUEUE_MIB * FULL)
    })
    .await;
    // The streams fill their windows after the queues.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let queued = queued_mib(&router).await;
    fleet.cluster().thaw(0).await?;
    let (full, queued) = (full?, queued?);
    if !full {
        bail!("only {queued:.1} of {QUEUE_MIB} MiB were queued after {DEADLINE:?}");
    }

    running.finish().await?;
    let drained = wait_for(DEADLINE, async || Ok(queued_mib(&router).await? == 0.0)).await?;
    if !drained {
        bail!("the queues are not empty {DEADLINE:?} after the load");
    }
    tokio::time::sleep(AFTERWARDS).await;
    // The highest since its start: draining may take more than standing still.
    let memory = router.memory()?;
    router.stop().await?;
    Ok(Found {
        before,
        queued,
        peak: memory.peak_mib,
        after: memory.now_mib,
    })
}

async fn queued_mib(router: &Router) -> Result<f64> {
    Ok(router.queued_bytes().await? as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back() {
        let found = |peak, after| Found {
            before: 100.0,
            queued: 0.0,
            peak,
            after,
        };
        assert_eq!(found(300.0, 150.0).returned(), 0.75);
        assert_eq!(found(300.0, 300.0).returned(), 0.0);
        assert_eq!(found(300.0, 50.0).returned(), 1.0);
        assert_eq!(found(100.0, 100.0).returned(), 1.0);
    }

    #[test]
    fn the_flood_is_more_than_the_queues_take() {
        let load = flood(1);
        // A key of 8 bytes and columns of 4.
        let row = 8 + 4 * load.columns.split(',').count() as u32;
        let bytes = f64::from(load.producers * load.in_flight * load.batch_rows * row);
        assert!(bytes > 2.0 * QUEUE_MIB * f64::from(1 << 20));
    }
}
