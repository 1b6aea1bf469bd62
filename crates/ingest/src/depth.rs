//! Whether rows have to wait anyway.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows queued and in flight for each table of an instance from which on a row more waits behind
/// others.
const ROWS_A_TABLE: usize = 8;

/// How many instances' queues are deep. Each queue says so when that changes.
#[derive(Debug, Default)]
pub(crate) struct Depth {
    deep: AtomicUsize,
    instances: AtomicUsize,
}

impl Depth {
    /// Whether a queue of so many tables is deep.
    pub fn is_deep(&self, rows: usize, tables: usize) -> bool {
        tables > 0 && rows / tables >= ROWS_A_TABLE
    }

    /// A queue has become deep, or is not any more.
    pub fn changed(&self, deep: bool) {
        match deep {
            true => self.deep.fetch_add(1, Ordering::SeqCst),
            false => self.deep.fetch_sub(1, Ordering::SeqCst),
        };
    }

    /// How many instances there are.
    pub fn set_instances(&self, instances: usize) {
        self.instances.store(instances, Ordering::SeqCst);
    }

    /// Whether at least half of the queues are deep.
    pub fn is_mostly_deep(&self) -> bool {
        let deep = self.deep.load(Ordering::SeqCst);
        deep > 0 && deep * 2 >= self.instances.load(Ordering::SeqCst)
    }
}
