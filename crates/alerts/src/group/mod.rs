//! Consumer groups: alerts shared between competing consumers.
//!
//! The state is the instances': a router keeps nothing that another one could not do without. It
//! claims alerts for a member, hands them on, and settles what the member says of them, there.

mod consumer;
mod gate;
mod id;
mod lane;
mod pending;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use pgbraid_shardmap::InstanceName;
use tokio::task::JoinSet;

use crate::hub::Shared;
use crate::metrics::GroupMetrics;
use crate::{Alert, SourceError};

pub use consumer::{Consumer, ConsumerEvent, ConsumerOptions};
pub(crate) use gate::Gates;
pub use id::{DeliveryId, DeliveryIdError};

/// An alert claimed for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Settle it by this.
    pub id: DeliveryId,
    /// The alert.
    pub alert: Arc<Alert>,
    /// How many times it has been delivered, with this one.
    pub delivery: u32,
    /// Settle before: µs since the Unix epoch, by the instance's clock.
    pub deadline_us: i64,
}

/// What one claim came to.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// The alerts, ascending by seq.
    pub deliveries: Vec<Delivery>,
    /// Whether another claim would find more at once.
    pub more: bool,
    /// How long until something that is in flight or delayed may come again.
    pub next_in: Option<Duration>,
}

/// What a member says of deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// Done.
    Ack,
    /// Again, after the delay.
    Nack {
        /// Not before.
        delay: Duration,
        /// For its history.
        reason: String,
    },
    /// Again at once, as if it had not been delivered: the member has left.
    Release {
        /// For its history.
        reason: String,
    },
    /// A dead letter, now.
    Terminate {
        /// Why.
        reason: String,
    },
    /// The deadline is this far from now.
    Extend {
        /// How far.
        by: Duration,
    },
}

impl Settle {
    /// Whether the delivery is over with it.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Extend { .. })
    }
}

/// What became of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It holds.
    Done,
    /// Too late: it was settled before, or went to another member.
    Stale,
    /// The instance did not answer. It may hold or not; say it again.
    Unavailable(Arc<str>),
}

/// One instance's part of the groups.
#[async_trait]
pub trait GroupStore: Send + Sync {
    /// Claims up to `limit` alerts for a member. A group that the instance has not heard of yet has
    /// nothing.
    async fn claim(
        &self,
        group: &str,
        member: &str,
        limit: u32,
        max_bytes: u64,
    ) -> Result<Claim, SourceError>;

    /// Settles deliveries, all or none. Returns, for each, whether it was still open.
    async fn settle(
        &self,
        group: &str,
        settlements: &[(DeliveryId, Settle)],
    ) -> Result<Vec<bool>, SourceError>;
}

/// Settles deliveries, each on its instance, the instances at the same time.
pub(crate) async fn settle_all(
    shared: &Arc<Shared>,
    group: &str,
    settlements: Vec<(DeliveryId, Settle)>,
) -> Vec<(DeliveryId, Settled)> {
    type Indexed = (Vec<usize>, Vec<(DeliveryId, Settle)>);
    let mut results: Vec<(DeliveryId, Settled)> = settlements
        .iter()
        .map(|(id, _)| {
            let why = "the instance is not in the shard map";
            (*id, Settled::Unavailable(why.into()))
        })
        .collect();
    let mut by_instance: BTreeMap<InstanceName, Indexed> = BTreeMap::new();
    for (at, settlement) in settlements.into_iter().enumerate() {
        let (places, some) = by_instance.entry(settlement.0.instance).or_default();
        places.push(at);
        some.push(settlement);
    }
    let slots = shared.slots();
    let metrics = Arc::new(GroupMetrics::new(group));
    let mut tasks = JoinSet::new();
    for (instance, (places, some)) in by_instance {
        let Some(slot) = slots.iter().find(|slot| slot.instance == instance).cloned() else {
            continue;
        };
        let (shared, group, metrics) = (shared.clone(), group.to_owned(), metrics.clone());
        tasks.spawn(async move {
            let answer = consumer::settle(&shared, &slot, &group, &some).await;
            let settled: Vec<Settled> = match answer {
                Ok(open) => {
                    let each = some.iter().zip(open);
                    let settled = each.map(|((_, settle), open)| {
                        metrics.settled(settle, open);
                        if open { Settled::Done } else { Settled::Stale }
                    });
                    settled.collect()
                }
                Err(error) => {
                    let why: Arc<str> = error.chain().into();
                    vec![Settled::Unavailable(why); some.len()]
                }
            };
            (places, settled)
        });
    }
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok((places, settled)) => {
                for (at, settled) in places.into_iter().zip(settled) {
                    results[at].1 = settled;
                }
            }
            Err(error) => tracing::error!("a group's task failed: {error}"),
        }
    }
    results
}
