//! A PostgreSQL snapshot: which transactions of one instance are visible.
//!
//! Snapshots of one instance are linearly ordered, because a snapshot is taken in one step and
//! transactions only ever go from invisible to visible. That is what makes one a position: of two
//! reads, the later one sees everything that the earlier one saw.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a snapshot: {reason}; expected pg_snapshot text like 10:20:10,14")]
pub struct SnapshotError {
    text: String,
    reason: &'static str,
}

/// What `pg_current_snapshot()` says, field by field.
///
/// Two snapshots can be written differently and see the same; compare what they see with
/// [`Snapshot::covers`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    xip: Vec<u64>,
}

impl Snapshot {
    /// The snapshot that sees no transaction: xids of normal transactions start at 3.
    pub const NOTHING: Self = Self {
        xmin: 1,
        xmax: 1,
        xip: Vec::new(),
    };

    /// A snapshot from its parts, under PostgreSQL's own conditions: `0 < xmin <= xmax`, and `xip`
    /// ascending, each in `xmin..xmax`. Says what is wrong with them.
    pub fn new(xmin: u64, xmax: u64, xip: Vec<u64>) -> Result<Self, &'static str> {
        if xmin == 0 || xmax < xmin {
            return Err("needs 0 < xmin <= xmax");
        }
        if xip.iter().any(|xid| !(xmin..xmax).contains(xid)) {
            return Err("a transaction in progress is not between xmin and xmax");
        }
        if !xip.is_sorted_by(|a, b| a < b) {
            return Err("the transactions in progress are not in ascending order");
        }
        Ok(Self { xmin, xmax, xip })
    }

    /// The snapshot that sees exactly the transactions below `xid`.
    pub fn below(xid: u64) -> Self {
        let xid = xid.max(1);
        Self {
            xmin: xid,
            xmax: xid,
            xip: Vec::new(),
        }
    }

    /// The part of this snapshot below `xmax`.
    ///
    /// A crash takes back the ids of transactions that ended without a trace on disk, and gives
    /// them again. A position must not take such an id for seen. Up to the newest alert it is safe:
    /// that one's commit is on disk, and with it every id below. Beyond it this snapshot sees no
    /// alert, so that nothing is forgotten by leaving that part out.
    #[must_use]
    pub fn capped(mut self, xmax: u64) -> Self {
        let xmax = xmax.max(1);
        if xmax < self.xmax {
            self.xmax = xmax;
            self.xmin = self.xmin.min(xmax);
            self.xip.retain(|xid| *xid < xmax);
        }
        self
    }

    /// The oldest transaction that was still running: everything below it is visible.
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    /// The first transaction that had not started to end: nothing from here on is visible.
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// The transactions in `xmin..xmax` that were still running, ascending.
    pub fn xip(&self) -> &[u64] {
        &self.xip
    }

    /// Whether this transaction had ended when the snapshot was taken.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }

    /// Whether everything that `other` sees is seen here too.
    pub fn covers(&self, other: &Self) -> bool {
        // A transaction that is running here must be invisible there ...
        let running = |xid: &u64| *xid >= other.xmax || other.xip.binary_search(xid).is_ok();
        if !self.xip.iter().all(running) {
            return false;
        }
        // ... and so must every one from our xmax on, which there can only be by running.
        if other.xmax <= self.xmax {
            return true;
        }
        let first = other.xip.partition_point(|xid| *xid < self.xmax);
        (other.xip.len() - first) as u64 == other.xmax - self.xmax
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (index, xid) in self.xip.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{xid}")?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        // The text may come from outside and be long; the error keeps its beginning.
        let fail = |reason| SnapshotError {
            text: text.chars().take(60).collect(),
            reason,
        };
        let number = |part: &str| part.parse().map_err(|_| fail("a part is not a number"));
        let mut parts = text.splitn(3, ':');
        let (Some(xmin), Some(xmax), Some(list)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(fail("it needs three parts"));
        };
        let mut xip = Vec::new();
        for xid in list.split(',').filter(|_| !list.is_empty()) {
            let xid: u64 = number(xid)?;
            // PostgreSQL's own input skips repeats, so they are allowed here.
            if xip.last() != Some(&xid) {
                xip.push(xid);
            }
        }
        Self::new(number(xmin)?, number(xmax)?, xip).map_err(fail)
    }
}

#[cfg(test)]
mod tests;
