//! What a member holds, and what it has said that is not settled yet.

use std::collections::{BTreeMap, HashMap};

use pgbraid_shardmap::InstanceName;
use tokio::time::Instant;

use super::{DeliveryId, Settle};

/// Deliveries that the member has not settled, with their deadlines.
#[derive(Default)]
pub(crate) struct Held(HashMap<DeliveryId, Instant>);

impl Held {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn add(&mut self, id: DeliveryId, deadline: Instant) {
        self.0.insert(id, deadline);
    }

    pub(crate) fn remove(&mut self, id: &DeliveryId) {
        self.0.remove(id);
    }

    /// The deadline has moved, if the delivery is still held.
    pub(crate) fn extend(&mut self, id: &DeliveryId, deadline: Instant) {
        if let Some(held) = self.0.get_mut(id) {
            *held = deadline;
        }
    }

    /// Forgets those whose deadline is over: they go to others.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, deadline| *deadline > now);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    pub(crate) fn take(&mut self) -> Vec<DeliveryId> {
        let mut ids: Vec<DeliveryId> = self.0.drain().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }
}

/// Settlements that wait for the ones before them on their instance: what comes meanwhile goes
/// together.
#[derive(Default)]
pub(crate) struct ToSettle {
    waiting: BTreeMap<InstanceName, Vec<(DeliveryId, Settle)>>,
    running: BTreeMap<InstanceName, usize>,
    count: usize,
}

impl ToSettle {
    /// Settlements that are not answered yet.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn push(&mut self, id: DeliveryId, settle: Settle) {
        self.count += 1;
        let waiting = self.waiting.entry(id.instance).or_default();
        waiting.push((id, settle));
    }

    /// The next ones to go to their instance, of which none is under way there; at most `limit`.
    pub(crate) fn start(&mut self, limit: usize) -> Option<Vec<(DeliveryId, Settle)>> {
        let idle = |instance: &&InstanceName| !self.running.contains_key(*instance);
        let instance = *self.waiting.keys().find(idle)?;
        let waiting = self.waiting.get_mut(&instance)?;
        let some: Vec<_> = if waiting.len() > limit {
            waiting.drain(..limit).collect()
        } else {
            self.waiting.remove(&instance)?
        };
        self.running.insert(instance, some.len());
        Some(some)
    }

    pub(crate) fn ended(&mut self, instance: InstanceName) {
        self.count -= self.running.remove(&instance).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(instance: u8, seq: i64) -> DeliveryId {
        DeliveryId {
            instance: InstanceName::new(instance),
            claim: 1,
            seq,
        }
    }

    #[test]
    fn what_is_held_ends_at_its_deadline_and_only_that_is_extended() {
        let (now, second) = (Instant::now(), std::time::Duration::from_secs(1));
        let mut held = Held::default();
        held.add(id(0, 1), now + second);
        held.add(id(0, 2), now + second);
        held.extend(&id(0, 1), now + second * 3);
        // It was over before: whoever has it now holds it.
        held.extend(&id(0, 3), now + second * 3);
        assert_eq!((held.len(), held.next_deadline()), (2, Some(now + second)));
        held.expire(now + second);
        assert_eq!(held.take(), [id(0, 1)]);
    }

    #[test]
    fn one_at_a_time_goes_to_an_instance() {
        let mut queue = ToSettle::default();
        for seq in 0..3 {
            queue.push(id(0, seq), Settle::Ack);
        }
        queue.push(id(1, 9), Settle::Ack);
        let first = queue.start(2).expect("db0 is idle");
        assert_eq!(first.len(), 2);
        let other = queue.start(2).expect("db1 is idle");
        assert_eq!(other[0].0, id(1, 9));
        assert!(queue.start(2).is_none());
        assert_eq!(queue.len(), 4);
        queue.ended(InstanceName::new(0));
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.start(2).expect("db0 again")[0].0, id(0, 2));
    }
}
