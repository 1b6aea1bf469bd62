//! Keeps the members of one router from all asking an instance for the same alert.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pgbraid_shardmap::InstanceName;

/// The members of one group on this router, before one instance.
#[derive(Default)]
pub(crate) struct Gate {
    /// Held while claiming: the next one then knows what this one found.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// The slot's generation before the last claim that left nothing, plus one.
    dry: AtomicU64,
}

impl Gate {
    /// A claim begun at this generation left nothing.
    pub(crate) fn found_end(&self, generation: u64) {
        self.dry.fetch_max(generation + 1, Ordering::AcqRel);
    }

    /// Whether nothing can have come since a claim that left nothing.
    pub(crate) fn is_dry(&self, generation: u64) -> bool {
        self.dry.load(Ordering::Acquire) > generation
    }
}

/// The gates in use.
#[derive(Default)]
pub(crate) struct Gates(Mutex<HashMap<(String, InstanceName), Weak<Gate>>>);

impl Gates {
    pub(crate) fn of(&self, group: &str, instance: InstanceName) -> Arc<Gate> {
        let mut gates = self.0.lock();
        let key = (group.to_owned(), instance);
        if let Some(gate) = gates.get(&key).and_then(Weak::upgrade) {
            return gate;
        }
        // Seldom enough to look for those that nobody uses any more.
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::default());
        gates.insert(key, Arc::downgrade(&gate));
        gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lasts_as_long_as_its_users() {
        let gates = Gates::default();
        let first = gates.of("g", InstanceName::new(1));
        first.found_end(7);
        assert!(gates.of("g", InstanceName::new(1)).is_dry(7));
        assert!(!gates.of("g", InstanceName::new(1)).is_dry(8));
        assert!(!gates.of("g", InstanceName::new(2)).is_dry(7));
        drop(first);
        assert!(!gates.of("g", InstanceName::new(1)).is_dry(7));
        assert_eq!(gates.0.lock().len(), 1);
    }
}
