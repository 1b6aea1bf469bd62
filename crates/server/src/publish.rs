//! Puts what is known of tables into force. Two do so: who asks for everything in turn
//! (`follow.rs`), and who hears news of owners (`news.rs`). Neither undoes what the other has put
//! there: of what an instance says of its tables, the later counts.

use std::sync::Arc;

use metrics::gauge;
use pgbraid_shardmap::TableOwner;
use tracing::error;

use crate::state::{Shared, Topology};

/// Puts what is known into force, beside what has been heard of owners since.
pub(crate) fn publish(shared: &Shared, mut topology: Topology) {
    let _publishing = shared.publishing.lock();
    if topology.take_later(&shared.topology.load()) {
        topology.resolve_owners();
    }
    put_in_force(shared, topology);
}

/// Puts what was heard of owners into force, and leaves all else as it is by now.
pub(crate) fn publish_owners(shared: &Shared, heard: &Topology) {
    let _publishing = shared.publishing.lock();
    let current = shared.topology.load();
    let mut topology = Topology::clone(&current);
    if topology.take_later(heard) {
        topology.resolve_owners();
        if topology.owners != current.owners {
            put_in_force(shared, topology);
        } else {
            shared.topology.store(Arc::new(topology));
        }
    }
}

impl Topology {
    /// Takes over what instances said when they were asked later than here. Returns whether any
    /// were.
    fn take_later(&mut self, other: &Self) -> bool {
        let later: Vec<_> = (other.asked.iter())
            .filter(|(name, asked)| {
                self.nodes.contains_key(name)
                    && self.asked.get(name).is_none_or(|known| known < asked)
            })
            .collect();
        for (name, asked) in &later {
            if let Some(report) = other.reports.get(name) {
                self.reports.insert(**name, report.clone());
                self.asked.insert(**name, **asked);
            }
        }
        !later.is_empty()
    }
}

/// And exports it.
fn put_in_force(shared: &Shared, topology: Topology) {
    for (feed, owners) in &topology.owners {
        for (number, owner) in owners.iter().enumerate() {
            if let TableOwner::Conflict(instances) = owner {
                error!(feed = %feed, "tbl{number} is owned by {instances:?} at once: it is written nowhere until one of them gives it up");
            }
        }
        let (elsewhere, unowned) = topology.drift(feed);
        gauge!("pgbraid_map_drift_tables", "feed" => feed.to_string()).set(f64::from(elsewhere));
        gauge!("pgbraid_map_unowned_tables", "feed" => feed.to_string()).set(f64::from(unowned));
        let conflicts = owners
            .iter()
            .filter(|owner| matches!(owner, TableOwner::Conflict(_)))
            .count();
        gauge!("pgbraid_map_conflict_tables", "feed" => feed.to_string()).set(conflicts as f64);
    }
    for name in topology.nodes.keys() {
        let tables = topology
            .owners
            .values()
            .flatten()
            .filter(|owner| owner.instance() == Some(*name));
        gauge!("pgbraid_tables_owned", "instance" => name.to_string()).set(tables.count() as f64);
    }
    shared.ingest.set_routing(topology.routing());
    shared.topology.store(Arc::new(topology));
}
