//! Keeps the outboxes within their limits, and says how full they are.
//!
//! Every router does this for every instance; in the instance a lock lets one of them work at a
//! time. An instance that does not answer holds up nothing but its own outbox.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use pgbraid_config::RetentionConfig;
use pgbraid_instance::{DbError, DbErrorKind, Instance, RetentionPolicy};
use pgbraid_shardmap::InstanceName;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::{
    node::{Node, within},
    state::Shared,
};

const BYTES: &str = "pgbraid_outbox_bytes";
const ALERTS: &str = "pgbraid_outbox_alerts";
const OLDEST: &str = "pgbraid_outbox_oldest_seconds";
const PARTS: &str = "pgbraid_outbox_parts";
const DROPPED: &str = "pgbraid_outbox_dropped_alerts_total";
const OVERRUN: &str = "pgbraid_outbox_overrun_alerts_total";
const FAILURES: &str = "pgbraid_outbox_maintenance_failures_total";

/// Between two looks at an outbox: a quarter of a part's time, within these.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// Longest that one look, with all that is due, may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn describe() {
    describe_gauge!(BYTES, Unit::Bytes, "Size of the outbox, by instance");
    describe_gauge!(ALERTS, "Alerts kept in the outbox, about, by instance");
    describe_gauge!(
        OLDEST,
        Unit::Seconds,
        "Age of the oldest alert kept, by instance"
    );
    describe_gauge!(PARTS, "Parts of the outbox, by instance");
    describe_counter!(
        DROPPED,
        "Alerts dropped by retention, by instance: counted in the instance, the same at every router"
    );
    describe_counter!(
        OVERRUN,
        "Of these, alerts in parts that a group still needed, by instance"
    );
    describe_counter!(
        FAILURES,
        "Times that this router could not maintain an outbox, by instance"
    );
}

/// What is kept on an instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    pub alerts: u64,
    pub bytes: u64,
    pub oldest_seconds: f64,
}

/// What is kept, as of the last look.
#[derive(Debug, Default)]
pub(crate) struct KeptByInstance(Mutex<BTreeMap<InstanceName, Kept>>);

impl KeptByInstance {
    pub fn of(&self, instance: InstanceName) -> Kept {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&instance).copied().unwrap_or_default()
    }

    fn set(&self, instance: InstanceName, kept: Kept) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(instance, kept);
    }
}

fn policy(config: &RetentionConfig) -> RetentionPolicy {
    RetentionPolicy {
        keep: config.keep,
        keep_bytes: config.keep_bytes,
        held_keep: config.held_keep,
        held_keep_bytes: config.held_keep_bytes,
        part: config.part_time,
        part_bytes: config.part_bytes,
    }
}

/// Looks after all outboxes until the router drains.
pub(crate) async fn maintain(shared: Arc<Shared>) {
    let policy = policy(&shared.config.alerts.retention);
    let every = (policy.part / 4).clamp(SHORTEST, LONGEST);
    let mut draining = shared.draining.subscribe();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // An instance whose last look is not over is left alone: it cannot hold up the others.
    let mut looks: JoinSet<InstanceName> = JoinSet::new();
    let mut busy = BTreeMap::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = draining.wait_for(|draining| *draining) => return,
        }
        while let Some(ended) = looks.try_join_next_with_id() {
            let id = ended
                .as_ref()
                .map_or_else(|error| error.id(), |(id, _)| *id);
            busy.retain(|_, running| *running != id);
        }
        for node in shared.topology.load().nodes.values() {
            if busy.contains_key(&node.name) {
                continue;
            }
            let (shared, node, name) = (shared.clone(), node.clone(), node.name);
            let look = looks.spawn(async move {
                look(&shared, &node, &policy, every).await;
                name
            });
            busy.insert(name, look.id());
        }
    }
}

async fn look(shared: &Shared, node: &Node, policy: &RetentionPolicy, every: Duration) {
    let name = node.name;
    let label = name.to_string();
    counter!(FAILURES, "instance" => label.clone()).increment(0);
    let instance = node.instance.load_full();
    let done = within(LIMIT, name, async {
        instance.tick_outbox(every).await?;
        let done = instance.maintain_outbox(policy).await?;
        Ok::<_, DbError>(done)
    });
    match done.await {
        Ok(done) => {
            for part in &done.opened {
                debug!(instance = %name, part, "the outbox has a new part");
            }
            for (part, reason, overrun) in &done.condemned {
                if overrun.is_empty() {
                    info!(instance = %name, part, reason, "a part of the outbox is dropped");
                } else {
                    let holders = overrun.join(", ");
                    warn!(instance = %name, part, reason, holders, "a part of the outbox is dropped that is still needed");
                }
            }
        }
        Err(error) => {
            counter!(FAILURES, "instance" => label.clone()).increment(1);
            // Locks are tried again, and an instance that is down is told of by others.
            if error.is_transient() {
                debug!(instance = %name, "the outbox is not maintained for now: {error}");
            } else if error.kind == DbErrorKind::Moved {
                warn!(instance = %name, "the outbox can't be maintained, run `pgbraid migrate`: {error}");
            } else {
                warn!(instance = %name, "the outbox can't be maintained: {error}");
            }
        }
    }
    // Said even if nothing could be done: then it matters most.
    if let Err(error) = within(LIMIT, name, measure(shared, name, &instance)).await {
        debug!(instance = %name, "the outbox can't be measured: {error}");
    }
}

async fn measure(shared: &Shared, name: InstanceName, instance: &Instance) -> Result<(), DbError> {
    let state = instance.outbox_state().await?;
    let totals = instance.outbox_totals().await?;
    let kept = Kept {
        alerts: state.alerts(),
        bytes: state.bytes(),
        oldest_seconds: state.oldest_seconds,
    };
    shared.kept.set(name, kept);
    let label = name.to_string();
    gauge!(BYTES, "instance" => label.clone()).set(kept.bytes as f64);
    gauge!(ALERTS, "instance" => label.clone()).set(kept.alerts as f64);
    gauge!(OLDEST, "instance" => label.clone()).set(kept.oldest_seconds);
    gauge!(PARTS, "instance" => label.clone()).set(state.parts() as f64);
    counter!(DROPPED, "instance" => label.clone()).absolute(totals.dropped);
    counter!(OVERRUN, "instance" => label).absolute(totals.overrun);
    Ok(())
}
