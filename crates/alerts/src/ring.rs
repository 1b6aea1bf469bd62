//! The last alerts of one instance, kept once for all subscribers.
//!
//! The ring is a chain of batches: each begins at the cursor at which the one before ended, and
//! holds everything between its two cursors, ascending by seq. A subscriber whose cursor the chain
//! still reaches takes its next batch from here, and drops what its own cursor has already (so it
//! need not stand where a batch begins). Whom the chain no longer reaches reads the source.
//!
//! A big backlog enters as several batches of one window; these end in the middle of it, at a page
//! mark. Only a cursor that is in the same window, or that can take the window from its first batch,
//! may continue with them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Alert, Cursor, Snapshot};

/// What an alert takes beside its texts, about.
const ALERT_OVERHEAD_BYTES: usize = 160;

/// Everything between two positions, ascending by seq.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) from: Cursor,
    pub(crate) to: Cursor,
    pub(crate) alerts: Arc<[Arc<Alert>]>,
}

impl Batch {
    /// The later end of the window that this batch is of.
    pub(crate) fn upper(&self) -> &Snapshot {
        self.to.upper()
    }

    /// Whether `cursor`, which lacks something of this batch, has everything before it.
    fn continues(&self, cursor: &Cursor) -> bool {
        let in_window = |window: &Snapshot| {
            let page = cursor.page.as_ref();
            page.filter(|page| page.upper == *window)
        };
        let window = in_window(self.upper());
        let begins = match &self.from.page {
            None => cursor.page.is_none() || window.is_some(),
            Some(first) => window.is_some_and(|page| page.after_seq >= first.after_seq),
        };
        begins && cursor.base.covers(&self.from.base)
    }

    fn bytes(&self) -> usize {
        let bytes = |alert: &Arc<Alert>| alert.key.len() + alert.row.len() + ALERT_OVERHEAD_BYTES;
        self.alerts.iter().map(bytes).sum()
    }
}

/// What the ring has for a cursor.
#[derive(Debug)]
pub(crate) enum Found {
    /// The batch that continues it.
    Batch(Arc<Batch>),
    /// It has everything.
    CaughtUp,
    /// The ring does not reach back to it, or it has a window of its own to finish.
    Behind,
    /// The instance has never been read.
    Unknown,
}

/// See the module. `end` is the live cursor, from which the next read goes on.
#[derive(Debug)]
pub(crate) struct Ring {
    batches: VecDeque<Arc<Batch>>,
    end: Option<Cursor>,
    alerts: usize,
    bytes: usize,
    max_alerts: usize,
    max_bytes: usize,
}

impl Ring {
    pub(crate) fn new(max_alerts: usize, max_bytes: usize) -> Self {
        Self {
            batches: VecDeque::new(),
            end: None,
            alerts: 0,
            bytes: 0,
            max_alerts,
            max_bytes,
        }
    }

    /// Bytes of the alerts it keeps, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn end(&self) -> Option<&Cursor> {
        self.end.as_ref()
    }

    /// Forgets everything, and goes on from `end`.
    pub(crate) fn restart(&mut self, end: Cursor) {
        self.batches.clear();
        (self.alerts, self.bytes) = (0, 0);
        self.end = Some(end);
    }

    /// Appends what was read from the end. The oldest batches make room; one that is too big on
    /// its own is not kept at all, and is then read from the source by who needs it.
    pub(crate) fn push(&mut self, batch: Batch) {
        debug_assert_eq!(self.end.as_ref(), Some(&batch.from));
        self.end = Some(batch.to.clone());
        if batch.alerts.is_empty() && self.stretch(&batch) {
            return;
        }
        self.alerts += batch.alerts.len();
        self.bytes += batch.bytes();
        self.batches.push_back(Arc::new(batch));
        while self.alerts > self.max_alerts || self.bytes > self.max_bytes {
            let Some(oldest) = self.batches.pop_front() else {
                break;
            };
            self.alerts -= oldest.alerts.len();
            self.bytes -= oldest.bytes();
        }
    }

    /// Lets the last batch, if empty too, also stand for this empty one: idle instances are read
    /// at every heartbeat, and these reads must not pile up.
    fn stretch(&mut self, batch: &Batch) -> bool {
        let whole = |batch: &Batch| batch.from.page.is_none() && batch.to.page.is_none();
        match self.batches.back_mut() {
            Some(last) if last.alerts.is_empty() && whole(last) && whole(batch) => {
                Arc::make_mut(last).to = batch.to.clone();
                true
            }
            _ => false,
        }
    }

    /// What `cursor` needs next. Logarithmic in the number of batches.
    pub(crate) fn find(&self, cursor: &Cursor) -> Found {
        let Some(end) = &self.end else {
            return Found::Unknown;
        };
        if cursor.covers(end) {
            let same_window = end.page.is_some() && cursor.upper() == end.upper();
            return match cursor.page {
                Some(_) if !same_window => Found::Behind,
                _ => Found::CaughtUp,
            };
        }
        // Positions only grow along the chain, so what the cursor has is a prefix of it.
        let has = self
            .batches
            .partition_point(|batch| cursor.covers(&batch.to));
        match self.batches.get(has) {
            Some(batch) if batch.continues(cursor) => Found::Batch(batch.clone()),
            _ => Found::Behind,
        }
    }
}

#[cfg(test)]
mod tests;
