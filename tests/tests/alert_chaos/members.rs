//! Members that ack, nack, and vanish; and what must have held of what they did.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use pgbraid_proto::v1::{self, settle_result::Outcome, settlement::How};
use pgbraid_tests::{Member, member::ack};
use rand::RngExt;

use crate::{Alerts, Id, World, id};

fn alert_id(delivery: &v1::Delivery) -> Id {
    let alert = delivery.alert.as_ref().expect("a delivery has an alert");
    id(&alert.instance, alert.seq)
}

/// What order was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Any,
    OfKey,
}

/// What happened in a group.
pub struct Log {
    order: Order,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often an ack of each was said to hold.
    settled: BTreeMap<Id, u32>,
    /// Acks of which nobody knows: the connection broke before the answer.
    unknown: BTreeSet<Id>,
    /// The last alert of each key that was delivered for the first time.
    last: BTreeMap<(u8, String), i64>,
    delivered: BTreeSet<Id>,
    wrong: Vec<String>,
}

impl Log {
    pub fn new(order: Order) -> Self {
        Self {
            order,
            state: Mutex::default(),
        }
    }

    fn delivered(&self, delivery: &v1::Delivery) {
        let id = alert_id(delivery);
        let key = delivery.alert.as_ref().map(|alert| alert.key.clone());
        let mut state = self.state.lock().expect("no panic");
        if !state.delivered.insert(id) || self.order == Order::Any {
            return;
        }
        let of_key = (id.0, key.unwrap_or_default());
        if let Some(before) = state.last.insert(of_key, id.1) {
            let before = (id.0, before);
            if before.1 > id.1 {
                state
                    .wrong
                    .push(format!("{id:?} came after {before:?} of the same key"));
            }
            let acked = state.settled.contains_key(&before) || state.unknown.contains(&before);
            if !acked {
                state
                    .wrong
                    .push(format!("{id:?} came before {before:?} was acked"));
            }
        }
    }

    /// The ack is about to be said: until its answer nobody knows.
    fn acking(&self, id: Id) {
        let mut state = self.state.lock().expect("no panic");
        state.unknown.insert(id);
    }

    /// A lower bound of [`Self::acked`].
    pub fn certain(&self) -> usize {
        let state = self.state.lock().expect("no panic");
        state.settled.len().max(state.unknown.len())
    }

    fn settled(&self, id: Id) {
        let mut state = self.state.lock().expect("no panic");
        *state.settled.entry(id).or_default() += 1;
    }

    /// Alerts acked, for certain or as far as is known.
    pub fn acked(&self) -> Alerts {
        let state = self.state.lock().expect("no panic");
        state
            .settled
            .keys()
            .chain(&state.unknown)
            .copied()
            .collect()
    }

    pub fn assert_sound(&self) {
        let state = self.state.lock().expect("no panic");
        assert!(
            state.wrong.is_empty(),
            "{:?}",
            &state.wrong[..state.wrong.len().min(5)]
        );
        let twice: Vec<_> = state
            .settled
            .iter()
            .filter(|(_, times)| **times > 1)
            .take(5)
            .collect();
        assert!(twice.is_empty(), "acked more than once: {twice:?}");
        // Nearly all acks have their answer: else the above would say little.
        let certain = state.settled.len();
        assert!(
            certain * 10 > state.delivered.len() * 8,
            "{certain} of {}",
            state.delivered.len()
        );
    }
}

/// Works until it is aborted: joins one router after the other.
pub async fn work(world: Arc<World>, group: &'static str, name: String, log: Arc<Log>) {
    loop {
        match Member::join_at(&world.address(), group, &name, world.in_flight).await {
            Ok(member) => {
                let _ = serve(&world, member, &log).await;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(world: &World, mut member: Member, log: &Log) -> Result<(), tonic::Status> {
    let mut ids: BTreeMap<String, Id> = BTreeMap::new();
    loop {
        let mut acked = Vec::new();
        // What has come together is acked together.
        for delivery in member.some().await? {
            log.delivered(&delivery);
            let dice = if world.is_over() {
                1.0
            } else {
                rand::random::<f64>()
            };
            if dice < 0.002 {
                // Vanishes with all that it holds.
                return Ok(());
            }
            if dice < 0.03 {
                let nack = How::Nack(v1::Nack {
                    delay: Duration::from_millis(rand::rng().random_range(0..300))
                        .try_into()
                        .ok(),
                    reason: "not now".into(),
                });
                member.say(vec![delivery.id], nack).await?;
                continue;
            }
            ids.insert(delivery.id.clone(), alert_id(&delivery));
            acked.push(delivery.id);
        }
        if !acked.is_empty() {
            acked.iter().for_each(|delivery| log.acking(ids[delivery]));
            member.say(acked, ack()).await?;
        }
        while let Some(result) = member.heard() {
            if result.outcome() == Outcome::Settled
                && let Some(id) = ids.remove(&result.id)
            {
                log.settled(id);
            }
        }
    }
}
