//! Removes what the instances keep of cool-downs that are past. Any router does, and several may:
//! they skip what another one is removing.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use metrics::counter;
use tracing::warn;

use crate::{node::within, state::Shared};

/// How long after the start: one that keeps being restarted sweeps, too.
const FIRST: Duration = Duration::from_secs(4);
/// How often: what is past costs room, and nothing else.
const EVERY: Duration = Duration::from_secs(60);
/// Longest for one instance; the next round goes on.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn sweep(shared: Arc<Shared>) {
    let mut draining = shared.draining.subscribe();
    let mut every = FIRST;
    loop {
        // Routers that started together do not sweep together.
        let wait = every.mul_f64(rand::random_range(0.5..=1.0));
        every = EVERY;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = draining.wait_for(|draining| *draining) => return,
        }
        let topology = shared.topology.load_full();
        let reached = topology
            .nodes
            .values()
            .filter(|node| !topology.unreachable.contains_key(&node.name));
        join_all(reached.map(async |node| {
            let instance = node.instance.load_full();
            match within(LIMIT, node.name, instance.remove_past_cooldowns()).await {
                Ok(removed) => {
                    counter!("pgbraid_cooldowns_removed_total", "instance" => node.name.to_string())
                        .increment(removed);
                }
                Err(error) => warn!(instance = %node.name, "past cool-downs stay for now: {error}"),
            }
        }))
        .await;
    }
}
