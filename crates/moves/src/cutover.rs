//! The cut-over: fence, catch up, decide, take. Writers of the one table wait meanwhile.

use std::time::Duration;

use futures::future::try_join;
use pgbraid_instance::{DbError, DbErrorKind, Fenced, Instance, Move, SourceSide, TargetSide};
use tokio::time::{sleep, timeout};

use crate::{MoveSettings, event::Progress};

/// How a cut-over ended.
pub(crate) enum Cut {
    /// The target owns the table; writers waited for so long.
    Over(Pause),
    /// It was undone, and the source goes on owning the table.
    NotYet(String),
}

/// How long writers of a table waited for its cut-over, at the most, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Until the fence stood: for writers that held the table.
    pub lock: Duration,
    /// Until the target had applied all that was written before.
    pub catch_up: Duration,
    /// Until the target owned the table.
    pub hand_over: Duration,
}

impl Pause {
    /// In all.
    pub fn total(self) -> Duration {
        self.lock + self.catch_up + self.hand_over
    }
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
    // Once before, so that connections are there and little is left to do while writers wait.
    hand_over_cooldowns(of, sites).await?;
    let fencing = async {
        source.prepare_fence(of, settings.lock_timeout).await?;
        source.fence(of, settings.lock_timeout).await
    };
    let fenced = match fencing.await {
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
    // What rules with a cool-down know of the table's keys goes with it, as it is under the fence.
    // It may be handed over again, so that it need not wait for the rows.
    let bound = settings.cutover_timeout;
    let ready = try_join(
        replayed(of, source, target, &fenced),
        hand_over_cooldowns(of, sites),
    );
    let Ok(ready) = timeout(bound.saturating_sub(fenced.at.elapsed()), ready).await else {
        undo(of, source).await?;
        return Ok(Cut::NotYet(format!(
            "{} had not caught up within {bound:?}",
            of.target
        )));
    };
    ready?;
    let caught_up = fenced.at.elapsed();
    progress.point("replayed");
    // Before it is decided, since there is no way back then: who holds the copy locked would keep the
    // table's writers waiting for as long.
    match target.prepare_own(of, settings.lock_timeout).await {
        Ok(()) => {}
        Err(error) if error.kind == DbErrorKind::Conflict => {
            undo(of, source).await?;
            return Ok(Cut::NotYet(format!(
                "the copy on {} could not be locked within {:?}",
                of.target, settings.lock_timeout
            )));
        }
        Err(error) => return Err(error),
    }
    if let Err(error) = source.decide(of, fenced.cut).await {
        target.disown().await;
        return Err(error);
    }
    progress.point("decided");
    target.own().await?;
    Ok(Cut::Over(Pause {
        lock: fenced.locked,
        catch_up: caught_up.saturating_sub(fenced.locked),
        hand_over: fenced.at.elapsed().saturating_sub(caught_up),
    }))
}

/// Until the target has all that was written before the fence, for good.
async fn replayed(
    of: &Move,
    source: &mut SourceSide,
    target: &TargetSide,
    fenced: &Fenced,
) -> Result<(), DbError> {
    while !source.replayed(of, fenced.lsn).await? {
        sleep(POLL).await;
        hasten(source, target).await?;
    }
    // What is reported is on the target's disk. Its synchronous standby must have it as well.
    target.flush().await
}

/// Lets the target report all that it has applied so far.
pub(crate) async fn hasten(source: &SourceSide, target: &TargetSide) -> Result<(), DbError> {
    try_join(target.flush(), source.nudge()).await?;
    Ok(())
}

async fn hand_over_cooldowns(of: &Move, (from, to): (&Instance, &Instance)) -> Result<(), DbError> {
    let (feed, partition) = (of.schema.feed.as_str(), of.partition());
    let cooldowns = from.cooldowns(feed, &partition).await?;
    to.take_cooldowns(feed, &partition, &cooldowns).await
}

/// Takes the table, once that is decided. A moment's lock may be in the way.
pub(crate) async fn own(of: &Move, target: &mut TargetSide) -> Result<(), DbError> {
    retried(async || {
        target.prepare_own(of, OWN_LOCK).await?;
        target.own().await
    })
    .await
}

/// Takes a fence back.
pub(crate) async fn undo(of: &Move, source: &mut SourceSide) -> Result<(), DbError> {
    retried(async || source.undo(of).await.map(|_| ())).await
}

const TRIES: u32 = 20;
/// Longest that one of them waits for the table's lock, once it is decided.
const OWN_LOCK: Duration = Duration::from_secs(1);

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
