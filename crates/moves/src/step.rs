//! What to do next with a move, from what its source and its target say.
//!
//! There is no other state: a mover that was killed at any point is followed by one that looks and
//! goes on. Each step is idempotent and leads to a state from which this function leads on.

use pgbraid_instance::{MoveOutcome, MovingRow, SourceSeen, TargetSeen};
use pgbraid_shardmap::{Epoch, OwnershipState};

/// Where a move is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The target owns the table.
    Forward,
    /// The source has the table as if nothing had been.
    Back,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Mark the source's table with the move.
    Mark,
    /// Make the target's fenced partition.
    Make,
    /// Make publication and slot.
    Publish,
    /// Make the subscription, which copies the table.
    Subscribe,
    /// Wait for the copy.
    Wait,
    /// Fence, catch up, decide.
    CutOver,
    /// Take back a fence that a mover left behind.
    Undo,
    /// The source has decided: the target takes the table.
    Own,
    /// Begin anew: what is on the target can't be relied on.
    Restart(&'static str),
    /// Drop the subscription.
    Unsubscribe,
    /// Drop what was copied.
    DropCopy,
    /// Drop publication and slot.
    Unpublish,
    /// Take the move's mark, and what is left of the fence, from source and target.
    Unmark,
    /// The move is over.
    Close(MoveOutcome),
    /// The target owns the table already: the move can't be undone.
    TooLate,
    /// Somebody has changed things by hand.
    Stuck(String),
}

impl Step {
    /// Its name, in the home and in progress.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::Make => "make",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Wait => "copy",
            Self::CutOver => "cut-over",
            Self::Undo => "undo",
            Self::Own => "own",
            Self::Restart(_) => "restart",
            Self::Unsubscribe => "unsubscribe",
            Self::DropCopy => "drop copy",
            Self::Unpublish => "unpublish",
            Self::Unmark => "unmark",
            Self::Close(_) => "close",
            Self::TooLate => "too late",
            Self::Stuck(_) => "stuck",
        }
    }
}

/// The next step of a move whose source owned the table at `epoch`.
pub fn next_step(goal: Goal, epoch: Epoch, source: &SourceSeen, target: &TargetSeen) -> Step {
    use OwnershipState::{Moved, MovingIn, MovingOut, Owned};
    let Some(row) = &source.row else {
        return Step::Stuck("the source knows nothing of the table".into());
    };
    let arriving = target
        .row
        .as_ref()
        .filter(|row| row.mine && row.state == MovingIn);
    if row.epoch != epoch {
        return Step::Stuck(format!(
            "the source has the table at epoch {}, not {epoch}",
            row.epoch
        ));
    }
    if row.state == Moved {
        return decided(goal, epoch, row, source, target, arriving.is_some());
    }
    if row.state == MovingOut {
        return match row.mine {
            // Whoever fenced it is gone, and with it the knowledge of what was caught up.
            true => Step::Undo,
            false => Step::Stuck("another move has fenced the table".into()),
        };
    }
    if row.state != Owned {
        return Step::Stuck(format!("the source says {}", row.state));
    }
    match goal {
        Goal::Forward => forward(row, source, target, arriving.is_some()),
        Goal::Back if target.subscription => Step::Unsubscribe,
        Goal::Back if arriving.is_some() => Step::DropCopy,
        Goal::Back if source.publication || source.slot => Step::Unpublish,
        Goal::Back if row.mine => Step::Unmark,
        Goal::Back => Step::Close(MoveOutcome::Aborted),
    }
}

/// While the source owns the table.
fn forward(row: &MovingRow, source: &SourceSeen, target: &TargetSeen, arriving: bool) -> Step {
    if !row.mine {
        return Step::Mark;
    }
    if !arriving {
        return match &target.row {
            None => Step::Make,
            Some(row) if row.state == OwnershipState::Moved => Step::Make,
            Some(row) => Step::Stuck(format!("the target says {}", row.state)),
        };
    }
    let published = source.publication && source.slot;
    match (target.subscription, published) {
        _ if !target.table => Step::Restart("the copy is gone"),
        _ if !target.same_server => {
            Step::Restart("the target is another server since: it may lack rows")
        }
        (true, false) => Step::Restart("the slot is gone: changes may be lost"),
        (false, _) if target.filled => Step::Restart("the subscription is gone"),
        (false, false) => Step::Publish,
        (false, true) => Step::Subscribe,
        (true, true) if !target.ready => Step::Wait,
        (true, true) => Step::CutOver,
    }
}

/// Once the source has decided: there is only one way, whatever the goal.
fn decided(
    goal: Goal,
    epoch: Epoch,
    row: &MovingRow,
    source: &SourceSeen,
    target: &TargetSeen,
    arriving: bool,
) -> Step {
    if arriving {
        return match goal {
            Goal::Forward => Step::Own,
            Goal::Back => Step::TooLate,
        };
    }
    let taken = target.row.as_ref().filter(|row| row.epoch >= epoch.next());
    let Some(taken) = taken else {
        return Step::Stuck(
            "the source has given the table up, but the target has no copy of it".into(),
        );
    };
    if goal == Goal::Back {
        return Step::TooLate;
    }
    if target.subscription {
        Step::Unsubscribe
    } else if source.publication || source.slot {
        Step::Unpublish
    } else if row.mine || taken.mine {
        Step::Unmark
    } else {
        Step::Close(MoveOutcome::Done)
    }
}

#[cfg(test)]
mod tests;
