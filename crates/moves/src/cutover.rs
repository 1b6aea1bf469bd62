//! The cut-over: fence, catch up, decide, take. Writers of the one table wait meanwhile.

use std::time::Duration;

use pgbraid_instance::{DbError, DbErrorKind, Instance, Move, SourceSide, TargetSide};
use tokio::time::sleep;

use crate::{MoveSettings, event::Progress};

/// How a cut-over ended.
pub(crate) enum Cut {
    /// The target owns the table; writers waited for so long.
    Over(Duration),
    /// It was undone, and the source goes on owning the table.
    NotYet(String),
}

/// How often the target's position is asked for. Writers wait.
const POLL: Duration = Duration::from_millis(1);

/// Tries to cut over within the bounds.
///
/// # Errors
/// If an instance is lost in the middle: what became of it shows when it is looked at again.
pub(crate) async fn cut_over(
    of: &Move,
    sites: (&Instance, &Instance),
    source: &mut SourceSide,
    target: &mut TargetSide,
    settings: &MoveSettings,
    progress: &dyn Progress,
) -> Result<Cut, DbError> {
    let fenced = match source.fence(of, settings.lock_timeout).await {
        Ok(fenced) => fenced,
        Err(error) if error.kind == DbErrorKind::Conflict => {
            return Ok(Cut::NotYet(format!(
                "its writers did not let it be locked within {:?}",
                settings.lock_timeout
            )));
        }
        Err(error) => return Err(error),
    };
    progress.point("fenced");
    let bound = settings.cutover_timeout;
    while !source.replayed(of, fenced.lsn).await? {
        if fenced.at.elapsed() >= bound {
            undo(of, source).await?;
            return Ok(Cut::NotYet(format!(
                "{} had not caught up within {bound:?}",
                of.target
            )));
        }
        sleep(POLL).await;
    }
    progress.point("replayed");
    // What rules with a cool-down know of the table's keys goes with it, as it is under the fence.
    let partition = of.partition();
    let feed = of.schema.feed.as_str();
    let cooldowns = sites.0.cooldowns(feed, &partition).await?;
    sites.1.take_cooldowns(feed, &partition, &cooldowns).await?;
    source.decide(of, fenced.cut).await?;
    progress.point("decided");
    own(of, target).await?;
    Ok(Cut::Over(fenced.at.elapsed()))
}

/// Takes the table, once that is decided. A moment's lock may be in the way.
pub(crate) async fn own(of: &Move, target: &mut TargetSide) -> Result<(), DbError> {
    retried(async || target.own(of).await).await
}

/// Takes a fence back.
pub(crate) async fn undo(of: &Move, source: &mut SourceSide) -> Result<(), DbError> {
    retried(async || source.undo(of).await.map(|_| ())).await
}

const TRIES: u32 = 20;

async fn retried(mut attempt: impl AsyncFnMut() -> Result<(), DbError>) -> Result<(), DbError> {
    let mut tries = 0;
    loop {
        match attempt().await {
            Err(error) if error.kind == DbErrorKind::Conflict && tries < TRIES => tries += 1,
            other => return other,
        }
        sleep(Duration::from_millis(5).mul_f64(rand::random_range(0.5..=1.0))).await;
    }
}
