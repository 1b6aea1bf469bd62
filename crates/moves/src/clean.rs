//! Drops what tables that moved away have left behind.

use std::time::Duration;

use pgbraid_instance::Leftover;
use pgbraid_shardmap::{FeedName, InstanceName, TableOwner};

use crate::{MoveError, Sites, Survey};

/// What was found, and what became of it.
#[derive(Clone, Debug)]
pub struct Cleaned {
    /// Where.
    pub instance: InstanceName,
    /// Of which feed.
    pub feed: FeedName,
    /// What.
    pub left: Leftover,
    /// Why it stays; `None`: it was dropped, or would be.
    pub kept: Option<String>,
}

/// Drops what is older than `keep`, or says what would be dropped.
///
/// # Errors
/// If something can't be dropped. What was dropped before stays dropped.
pub async fn clean(
    sites: &Sites,
    seen: &Survey,
    keep: Duration,
    dry_run: bool,
) -> Result<Vec<Cleaned>, MoveError> {
    let mut cleaned = Vec::new();
    for (name, facts) in &seen.by_instance {
        let instance = &sites.site(*name)?.instance;
        for (feed, leftovers) in &facts.leftovers {
            let schema = sites.schema(feed)?;
            for left in leftovers {
                let owner = seen
                    .owners
                    .get(feed)
                    .and_then(|owners| owners.get(left.table.index() as usize));
                let kept = match owner {
                    Some(TableOwner::One { instance, epoch })
                        if instance != name && *epoch > left.epoch =>
                    {
                        (left.age < keep).then(|| {
                            let rest = keep.saturating_sub(left.age).as_secs() + 1;
                            format!("kept for {rest} s more (moves.keep, or --older-than)")
                        })
                    }
                    _ => Some("no other instance that answers owns the table".to_owned()),
                };
                if kept.is_none() && !dry_run {
                    instance
                        .drop_leftover(schema, left)
                        .await
                        .map_err(|error| MoveError::of(*name, error))?;
                }
                cleaned.push(Cleaned {
                    instance: *name,
                    feed: feed.clone(),
                    left: left.clone(),
                    kept,
                });
            }
        }
    }
    Ok(cleaned)
}
