//! A mover that dies within a cut-over leaves a table that nobody writes. Any router ends that.
//!
//! The source's row of ownership decides: while it says `moving_out` nothing is decided, and the
//! fence may be taken back, by anybody; once it says `moved` the target may take the table, on
//! behalf of whoever decided it.

use std::time::Duration;

use metrics::counter;
use pgbraid_shardmap::{InstanceName, OwnershipState, TableId, TableOwner};
use tracing::{info, warn};

use crate::{
    node::within,
    state::{Shared, Topology},
};

/// Longer than a mover lets a cut-over take.
const AFTER: Duration = Duration::from_secs(10);

/// Longest that one table may keep other news waiting.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks after every table that is in the last step of a move.
pub(crate) async fn rescue(shared: &Shared, topology: &Topology) {
    for (feed, owners) in &topology.owners {
        for (number, owner) in owners.iter().enumerate() {
            let TableOwner::MovingOut { from, .. } = owner else {
                continue;
            };
            let table = TableId::new(number as u32);
            match rescue_one(topology, feed, table, *from).await {
                Ok(None) => {}
                Ok(Some(what)) => {
                    counter!("pgbraid_move_rescues_total").increment(1);
                    info!(feed = %feed, %table, "its mover is gone: {what}");
                    shared.refresh.notify_one();
                }
                Err(error) => {
                    warn!(feed = %feed, %table, "its mover is gone, and the table waits: {error}")
                }
            }
        }
    }
}

async fn rescue_one(
    topology: &Topology,
    feed: &pgbraid_shardmap::FeedName,
    table: TableId,
    from: InstanceName,
) -> Result<Option<&'static str>, pgbraid_instance::DbError> {
    let (Some(schema), Some(source)) = (topology.schemas.get(feed), topology.nodes.get(&from))
    else {
        return Ok(None);
    };
    let source = source.instance.load_full();
    let undone = within(LIMIT, from, source.undo_stale_fence(schema, table, AFTER)).await?;
    if undone {
        return Ok(Some(
            "the fence is taken back, the source goes on owning it",
        ));
    }
    let Some((id, epoch)) = within(LIMIT, from, source.decided_move(schema, table, AFTER)).await?
    else {
        return Ok(None);
    };
    let target = topology.reports.iter().find(|(_, tables)| {
        tables.iter().any(|one| {
            one.feed == *feed
                && one.table == table
                && one.state == OwnershipState::MovingIn
                && one.epoch == epoch
        })
    });
    let Some(node) = target.and_then(|(name, _)| topology.nodes.get(name)) else {
        return Ok(None);
    };
    let instance = node.instance.load_full();
    let owned = within(
        LIMIT,
        node.name,
        instance.own_decided(schema, table, &id, epoch),
    )
    .await?;
    Ok(owned.then_some("the move was decided, the target owns it now"))
}
