//! Compares both sides of a move at one moment.
//!
//! While the source owns the table its writers are locked out until the target has applied
//! everything before; then both sides take a snapshot, writers go on, and the sums are computed.

use std::time::Duration;

use futures::future::try_join;
use pgbraid_instance::{Contents, Move, MoveRecord};
use pgbraid_shardmap::OwnershipState;
use tokio::time::{Instant, sleep};

use crate::{MoveError, MoveSettings, Sites};

/// What both sides hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The source.
    pub source: Contents,
    /// The target.
    pub target: Contents,
    /// How long writers were locked out; `None` where none write the source any more.
    pub pause: Option<Duration>,
    /// The target owns the table: what it took since makes a difference.
    pub after: bool,
}

impl Verified {
    /// Whether both hold the same.
    pub fn equal(&self) -> bool {
        self.source == self.target
    }
}

/// Times that locking the table is tried.
const TRIES: u32 = 20;

/// Compares both sides of a move.
///
/// # Errors
/// If the copy is not complete, the target does not catch up within the bound of a cut-over, or an
/// instance can't be asked.
pub async fn verify(
    sites: &Sites,
    settings: &MoveSettings,
    record: &MoveRecord,
) -> Result<Verified, MoveError> {
    let schema = sites.schema(&record.feed)?.clone();
    let (from, to) = (sites.site(record.source)?, sites.site(record.target)?);
    let of_source = |error| MoveError::of(record.source, error);
    let of_target = |error| MoveError::of(record.target, error);
    let of = Move {
        id: record.id,
        schema: schema.clone(),
        table: record.table,
        epoch: record.epoch,
        source: record.source,
        target: record.target,
        term: 0,
    };
    let mut source = from.instance.move_source().await.map_err(of_source)?;
    let target = to
        .instance
        .move_target(&to.admin)
        .await
        .map_err(of_target)?;
    let here = source.look(&of).await.map_err(of_source)?;
    let there = target.look(&of).await.map_err(of_target)?;
    let old = from
        .instance
        .freeze(&schema, record.table)
        .await
        .map_err(of_source)?;
    let new = to
        .instance
        .freeze(&schema, record.table)
        .await
        .map_err(of_target)?;
    let owned = |row: &pgbraid_instance::MovingRow| row.state == OwnershipState::Owned;
    let after = there.row.as_ref().is_some_and(owned);
    let pause = if after {
        old.snapshot().await.map_err(of_source)?;
        new.snapshot().await.map_err(of_target)?;
        None
    } else {
        if !there.ready || !here.row.as_ref().is_some_and(owned) {
            return Err(MoveError::Refused(format!(
                "{} of feed {} is not copied to {} yet: verify it again when `pgbraid map status` \
                 says that it catches up",
                record.table, record.feed, record.target
            )));
        }
        let lock = from
            .instance
            .freeze(&schema, record.table)
            .await
            .map_err(of_source)?;
        let mut tries = 0;
        let (lsn, locked) = loop {
            let started = Instant::now();
            match lock.lock(settings.lock_timeout).await {
                Ok(lsn) => break (lsn, started),
                Err(error) if error.is_transient() && tries < TRIES => {
                    tries += 1;
                    let _ = lock.unlock().await;
                    sleep(settings.retry_min).await;
                }
                Err(error) => return Err(of_source(error)),
            }
        };
        let caught_up = async {
            while !source.replayed(&of, lsn).await.map_err(of_source)? {
                if locked.elapsed() > settings.cutover_timeout {
                    return Err(MoveError::Refused(format!(
                        "{} had not caught up within {:?}: nothing was compared",
                        record.target, settings.cutover_timeout
                    )));
                }
                sleep(Duration::from_millis(1)).await;
            }
            old.snapshot().await.map_err(of_source)?;
            new.snapshot().await.map_err(of_target)
        };
        let caught_up = caught_up.await;
        lock.unlock().await.map_err(of_source)?;
        caught_up?;
        Some(locked.elapsed())
    };
    let (source, target) = try_join(async { old.contents().await.map_err(of_source) }, async {
        new.contents().await.map_err(of_target)
    })
    .await?;
    Ok(Verified {
        source,
        target,
        pause,
        after,
    })
}
