//! A position in one instance's outbox, exact under transactions that commit out of order.
//!
//! Ids are given before commit, so "everything with an id above the last one" loses alerts. A
//! cursor is instead the snapshot of the last read: what is new is what that snapshot did not
//! see. A backlog that is too big for one read is read as a *window*: everything that `upper` sees
//! and `base` does not, in the order of seq, page by page. Because the window is fixed by two
//! snapshots, later commits cannot slip in below `after_seq`.

use std::fmt;

use crate::Snapshot;

/// How far a window has been delivered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageMark {
    /// The later end of the window.
    pub upper: Snapshot,
    /// In the window, everything with a seq up to this one was delivered.
    pub after_seq: i64,
}

/// A position in one instance's outbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Everything that this snapshot sees was delivered.
    pub base: Snapshot,
    /// Present inside a window: the part of it that was delivered as well.
    pub page: Option<PageMark>,
}

impl Cursor {
    /// The position before the first alert.
    pub const fn earliest() -> Self {
        Self::at(Snapshot::NOTHING)
    }

    /// The position at which exactly what `base` sees was delivered.
    pub const fn at(base: Snapshot) -> Self {
        Self { base, page: None }
    }

    /// Whether an alert is still to be delivered at this position.
    pub fn is_new(&self, xid: u64, seq: i64) -> bool {
        if self.base.sees(xid) {
            return false;
        }
        match &self.page {
            Some(page) => seq > page.after_seq || !page.upper.sees(xid),
            None => true,
        }
    }

    /// Whether something may still be to be delivered of a part of the outbox, of which only the range
    /// of its transactions and its highest seq are known.
    pub fn may_need(&self, first_xid: u64, last_xid: u64, last_seq: i64) -> bool {
        let running = |xid: &u64| (first_xid..=last_xid).contains(xid);
        let new = !self.base.sees(last_xid) || self.base.xip().iter().any(running);
        match &self.page {
            Some(page) if new => last_seq > page.after_seq || !page.upper.sees(last_xid),
            _ => new,
        }
    }

    /// The latest snapshot this position knows of: nothing that it does not see was delivered.
    pub fn upper(&self) -> &Snapshot {
        self.page.as_ref().map_or(&self.base, |page| &page.upper)
    }

    /// Whether everything delivered at `other` was delivered here too. May say no for positions in
    /// windows with different ends, which cannot be told by the snapshots alone; a yes is certain.
    pub fn covers(&self, other: &Self) -> bool {
        if self.base.covers(other.upper()) {
            return true;
        }
        match (&self.page, &other.page) {
            (Some(ours), Some(theirs)) => {
                ours.upper == theirs.upper
                    && ours.after_seq >= theirs.after_seq
                    && self.base.covers(&other.base)
            }
            _ => false,
        }
    }

    /// The position after reading, from here, everything up to `to`.
    ///
    /// `to` may have been reached by another reader from an earlier base; a page of it then keeps
    /// our own base, since `to` alone would forget what we have beyond its base.
    pub(crate) fn advanced_to(&self, to: &Self) -> Self {
        let Some(page) = &to.page else {
            return to.clone();
        };
        self.inside(&page.upper, page.after_seq)
    }

    /// The position in the middle of a window that ends at `upper`, at seq `after_seq`.
    ///
    /// It is exact under three conditions, which every batch we read meets: the batch holds
    /// everything that `upper` sees and this position's base does not (and, if this position is
    /// itself in that window, has a seq above its mark), it is in the order of seq, and it was
    /// handed on in that order. Then what was delivered is: all that `base` sees, and, of what
    /// `upper` sees beyond it, all with a seq up to `after_seq`; the definition of a page mark.
    pub(crate) fn inside(&self, upper: &Snapshot, after_seq: i64) -> Self {
        let ours = self.page.as_ref().map_or(i64::MIN, |page| page.after_seq);
        Self {
            base: self.base.clone(),
            page: Some(PageMark {
                upper: upper.clone(),
                after_seq: after_seq.max(ours),
            }),
        }
    }

    /// An earlier position that takes next to no room, for a token that would grow too long.
    pub(crate) fn coarse(&self) -> Self {
        Self::at(Snapshot::below(self.base.xmin()))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base)?;
        match &self.page {
            Some(page) => write!(f, " (to {} after {})", page.upper, page.after_seq),
            None => Ok(()),
        }
    }
}

/// Which PostgreSQL a cursor belongs to: its snapshots mean nothing on another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `system_identifier` of `pg_control_system()`, given by initdb.
    pub system_id: u64,
    /// The timeline, which grows with each promotion.
    pub timeline: u32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system {} timeline {}", self.system_id, self.timeline)
    }
}

/// From which transaction id on the alerts of a timeline are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineStart {
    /// The timeline.
    pub timeline: u32,
    /// None of its own transactions that raised alerts has a lower id.
    pub first_xid: u64,
}

/// What a position goes back by when an instance's history changed.
#[derive(Debug, Clone, Default)]
pub struct Rewinds {
    /// Where timelines began, as far as somebody took note.
    pub timelines: Vec<TimelineStart>,
    /// How far to go back where nobody knows.
    pub margin_xids: u64,
}

/// Where to read again when `cursor`, taken on `from`, meets an instance that is now `to`.
///
/// A promoted standby (same system, higher timeline) keeps the transaction ids up to where it was
/// promoted. One that lagged behind gives the last ids once more, to other transactions: all of
/// these are read, and of the ones before what the cursor had not seen. Anything else is another
/// history: everything is read again. Consumers drop repeats by (instance, seq).
pub fn rewind(cursor: &Cursor, from: Identity, to: Identity, rewinds: &Rewinds) -> Cursor {
    if from.system_id != to.system_id || to.timeline <= from.timeline {
        return Cursor::earliest();
    }
    let later = (rewinds.timelines.iter()).filter(|start| start.timeline > from.timeline);
    match later.map(|start| start.first_xid).min() {
        Some(first) => rewind_to(cursor.base.xmin().min(first), 0),
        None => rewind_to(cursor.base.xmin(), rewinds.margin_xids),
    }
}

/// The position `margin_xids` before `xid`.
pub(crate) fn rewind_to(xid: u64, margin_xids: u64) -> Cursor {
    Cursor::at(Snapshot::below(xid.saturating_sub(margin_xids)))
}

#[cfg(test)]
mod tests;
