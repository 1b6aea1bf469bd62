//! The wish: which instance should own each table of a feed.
//!
//! A pin decides. The other tables are spread over a consistent hash ring of the instances, by
//! name and weight, so that a new instance takes its share from all others and nothing moves
//! between those. Used when a map is read, never per row.

use std::collections::BTreeMap;

use consistent_hash::{Node, StaticHashRing};

use crate::ring::{Point, RingHash, feed_word};
use crate::{FeedName, InstanceName, TableId};

/// Virtual nodes on the ring for one unit of weight. More spread the tables more evenly, and cost
/// memory and time when a map is read.
pub const VIRTUAL_NODES_PER_WEIGHT: u32 = 256;

/// The greatest weight: it bounds the ring, at 256 instances to 6.5 million virtual nodes.
pub const MAX_WEIGHT: u32 = 100;

/// A placement that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Tables without a pin, and no instance that takes such tables.
    #[error(
        "{unpinned} of {tables} tables of feed {feed} are not pinned, and no instance has a weight above 0: pin them, or give an instance a weight"
    )]
    NoWeight {
        /// The feed.
        feed: FeedName,
        /// How many tables no pin names.
        unpinned: u32,
        /// How many tables the feed has.
        tables: u32,
    },
    /// An instance is listed twice.
    #[error("instance {0} is listed twice")]
    DuplicateInstance(InstanceName),
    /// A weight above [`MAX_WEIGHT`].
    #[error(
        "the weight of {0} is {1}, and the greatest is {MAX_WEIGHT}: weights are relative, divide them all"
    )]
    WeightTooGreat(InstanceName, u32),
    /// A pin to an instance that is not listed.
    #[error("{0} is pinned to {1}, which is not among the instances")]
    UnknownInstance(TableId, InstanceName),
    /// A pin of a table that the feed does not have.
    #[error("{0} is pinned, but feed {1} has {2} tables")]
    UnknownTable(TableId, FeedName, u32),
}

/// The wanted instance of every table of a feed: element `i` is that of table `i`.
///
/// `instances` come with their weight; weight 0 takes no table without a pin. The order of
/// `instances` does not matter.
///
/// # Errors
/// See [`PlacementError`].
pub fn place(
    feed: &FeedName,
    tables: u32,
    instances: &[(InstanceName, u32)],
    pins: &BTreeMap<TableId, InstanceName>,
) -> Result<Vec<InstanceName>, PlacementError> {
    let mut weights = BTreeMap::new();
    for &(instance, weight) in instances {
        if weight > MAX_WEIGHT {
            return Err(PlacementError::WeightTooGreat(instance, weight));
        }
        if weights.insert(instance, weight).is_some() {
            return Err(PlacementError::DuplicateInstance(instance));
        }
    }
    for (&table, &instance) in pins {
        if !weights.contains_key(&instance) {
            return Err(PlacementError::UnknownInstance(table, instance));
        }
        if table.index() >= tables {
            return Err(PlacementError::UnknownTable(table, feed.clone(), tables));
        }
    }

    // Every pin names a table of the feed, so this does not wrap.
    let unpinned = tables - pins.len() as u32;
    if unpinned > 0 && weights.values().all(|&weight| weight == 0) {
        return Err(PlacementError::NoWeight {
            feed: feed.clone(),
            unpinned,
            tables,
        });
    }
    if unpinned == 0 {
        return Ok(pins.values().copied().collect());
    }

    let nodes = weights.iter().map(|(instance, &weight)| {
        Node::new(instance.index()).quantity((weight * VIRTUAL_NODES_PER_WEIGHT) as usize)
    });
    let ring = StaticHashRing::new(RingHash, nodes);
    let feed_word = feed_word(feed.as_str());
    let wanted = (0..tables).map(|table| {
        let pinned = pins.get(&TableId::new(table)).copied();
        pinned.or_else(|| {
            let point = Point {
                feed: feed_word,
                table,
            };
            let node = ring.calc_candidates(&point).next()?;
            Some(InstanceName::new(node.key))
        })
    });
    // The ring has a virtual node, since a weight is above 0: nothing is dropped here.
    Ok(wanted.flatten().collect())
}

#[cfg(test)]
mod tests;
