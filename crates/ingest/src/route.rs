//! From a lot of rows to the queues of the instances that own their tables.

use std::sync::Arc;

use pgbraid_feed::gather;
use pgbraid_shardmap::{FeedName, TableId};
use tokio::time::Instant;

use crate::{
    Code, Ingest, RowRefusal, WhenFull,
    admission::HealthState,
    gather::Waiting,
    lot::Lot,
    plan::{Destination, FeedPlan},
    queue::InstanceQueue,
};

/// Why an instance takes no rows: for the caller, for machines, for people.
type NoRoom = (Code, &'static str, String);

/// A table, and where its rows start and end in a block.
type Segments = [(TableId, u32, u32)];

impl Ingest {
    /// Queues requests that are alike as one lot.
    pub(crate) fn queue_together(&self, requests: Vec<Waiting>) {
        let now = Instant::now();
        let Some(first) = requests.first() else {
            return;
        };
        let (schema, queued) = (first.block.schema.clone(), first.since);
        let plan = self.plan.load_full();
        let Some(feed) = plan.feed(&schema.feed, schema.tables) else {
            let message = format!("feed {} is not known to this router any more", schema.feed);
            for request in requests {
                (request.ticket).expire("FEED_UNKNOWN", &message, self.config.retry_max);
            }
            return;
        };
        let blocks: Vec<_> = requests.iter().map(|request| &request.block).collect();
        let Some(gathered) = gather(&blocks, &feed.places) else {
            return;
        };
        let bytes: u64 = requests.iter().map(|request| request.bytes).sum();
        let row_bytes = bytes.div_ceil(u64::from(gathered.block.rows()).max(1));
        let tickets = (requests.into_iter())
            .map(|request| request.ticket)
            .collect();
        let Some(lot) = Lot::many(gathered.block, gathered.origin, tickets, row_bytes) else {
            return;
        };
        let lot = Arc::new(lot);
        for (to, segments) in feed.by_destination(&gathered.segments) {
            let Destination::Queue(queue) = to else {
                self.refuse_nowhere(&lot, to, segments);
                continue;
            };
            let room = match queue.health() {
                HealthState::Open => Ok(()),
                HealthState::Full => {
                    // These were taken when it was not. Others will wait for it.
                    self.gather.stay_apart(now);
                    Ok(())
                }
                HealthState::Down(why) => Err(down(queue, &why)),
            };
            self.queue_or_refuse(&lot, feed, queue, segments, queued, room);
        }
    }

    /// Queues rows for an instance, if there is room.
    pub(crate) fn queue_or_refuse(
        &self,
        lot: &Arc<Lot>,
        feed: &FeedPlan,
        queue: &InstanceQueue,
        segments: &Segments,
        queued: Instant,
        room: Result<(), NoRoom>,
    ) {
        if let Err((code, reason, message)) = room {
            let refused = self.refuse(lot, segments, code, reason, &message);
            queue.metrics.refused(code, refused);
            return;
        }
        let rows = segments
            .iter()
            .map(|(table, start, end)| (feed.number(*table), *start, *end));
        let moved = queue.push(lot, queued, rows);
        if !moved.is_empty() {
            self.deliver_moved(moved);
        }
    }

    /// Refuses rows of tables that have no queue to go to.
    pub(crate) fn refuse_nowhere(&self, lot: &Lot, to: &Destination, segments: &Segments) {
        let (reason, message) = nowhere(to, &lot.block.schema.feed, segments[0].0);
        self.refuse(lot, segments, Code::Unavailable, reason, &message);
    }

    /// Waits until an instance takes rows, or says why it does not.
    pub(crate) async fn admit(
        &self,
        queue: &InstanceQueue,
        deadline: Instant,
        when_full: WhenFull,
    ) -> Result<(), NoRoom> {
        let instance = queue.name;
        loop {
            match queue.health() {
                HealthState::Open => return Ok(()),
                HealthState::Down(why) => return Err(down(queue, &why)),
                HealthState::Full if when_full == WhenFull::Wait && Instant::now() < deadline => {
                    queue.space().await;
                }
                HealthState::Full => {
                    return Err((
                        Code::Exhausted,
                        "QUEUE_FULL",
                        format!(
                            "{} bytes are queued for {instance}, which is the limit \
                             (ingest.queue_bytes_per_instance)",
                            self.config.queue_bytes_per_instance
                        ),
                    ));
                }
            }
        }
    }

    /// Refuses the rows of some segments; returns how many they are.
    fn refuse(
        &self,
        lot: &Lot,
        segments: &Segments,
        code: Code,
        reason: &'static str,
        message: &str,
    ) -> u64 {
        let rows = segments.iter().flat_map(|(_, start, end)| *start..*end);
        rows.map(|row| {
            let after = self.config.retry_max;
            lot.refuse(
                row,
                RowRefusal::again(code, reason, message.to_owned(), after),
            );
        })
        .count() as u64
    }
}

fn down(queue: &InstanceQueue, why: &str) -> NoRoom {
    (
        Code::Unavailable,
        "INSTANCE_UNAVAILABLE",
        format!("{} can't be written to now: {why}", queue.name),
    )
}

/// Why rows of a table have no queue to go to.
fn nowhere(to: &Destination, feed: &FeedName, table: TableId) -> (&'static str, String) {
    match to {
        Destination::Queue(_) | Destination::Nobody => (
            "TABLE_UNOWNED",
            format!(
                "no reachable instance owns {table} of feed {feed}: \
                 see `pgbraid status` and `pgbraid check --online`"
            ),
        ),
        Destination::Unknown(instance) => (
            "INSTANCE_UNKNOWN",
            format!("{instance} owns the table but is not in this router's shard map: add it"),
        ),
        Destination::Conflict(instances) => {
            let names: Vec<String> = instances.iter().map(ToString::to_string).collect();
            (
                "TABLE_OWNED_TWICE",
                format!(
                    "{table} of feed {feed} is owned by {} at once, so it is written nowhere: \
                     see `pgbraid status`",
                    names.join(" and ")
                ),
            )
        }
    }
}
