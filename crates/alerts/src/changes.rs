//! The change stream: which keys of a feed were inserted, updated or deleted, for caches.
//!
//! Each instance tells of changes over the connection that its reader listens on, in the order of
//! their commits. The last ones are kept in a log of bounded size ([`log`]); a follower
//! ([`follower`]) owns a place in each log and no queue. Nothing is kept beyond that: after a lost
//! connection, or for a follower that is too slow, the stream says RESET, and then LIVE when it is
//! complete again.

mod follower;
mod log;
pub(crate) mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

pub use follower::{ChangeEvent, ChangeFollower, ChangeOptions, ChangeProgress};
pub(crate) use log::{Cause, ChangeLog};

/// What was done to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeOp {
    /// They are new.
    Insert,
    /// They have other values.
    Update,
    /// They are gone.
    Delete,
}

/// Rows of one feed that were changed by one statement, or some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The feed.
    pub feed: Arc<str>,
    /// What was done.
    pub op: ChangeOp,
    /// The columns of these rows that an update changed; none if it is not told.
    pub columns: Option<KeyList>,
    /// To which.
    pub keys: KeyList,
}

/// Keys, or names of columns, as text, one behind the other: far less memory than a string each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyList {
    text: String,
    ends: Vec<u32>,
}

impl KeyList {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let key = &self.text[start..*end as usize];
            start = *end as usize;
            key
        })
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<u32>()
    }
}

impl<'a> FromIterator<&'a str> for KeyList {
    fn from_iter<I: IntoIterator<Item = &'a str>>(keys: I) -> Self {
        let mut list = Self::default();
        for key in keys {
            list.text.push_str(key);
            list.ends.push(list.text.len() as u32);
        }
        list
    }
}

/// What readers and followers share beside the logs.
pub(crate) struct ChangeHub {
    wake: watch::Sender<u64>,
    followers: AtomicUsize,
}

impl Default for ChangeHub {
    fn default() -> Self {
        Self {
            wake: watch::Sender::new(0),
            followers: AtomicUsize::new(0),
        }
    }
}

impl ChangeHub {
    /// Wakes the followers that wait. Call it after the change.
    pub(crate) fn wake(&self) {
        self.wake.send_modify(|generation| *generation += 1);
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// Counts one follower more, unless there are too many.
    fn admit(&self, limit: usize) -> bool {
        let more = |count: usize| (count < limit).then_some(count + 1);
        let admitted = self
            .followers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        admitted.is_ok_and(|before| {
            metrics::set_followers(before + 1);
            true
        })
    }

    fn leave(&self) {
        let before = self.followers.fetch_sub(1, Ordering::AcqRel);
        metrics::set_followers(before - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        let list: KeyList = ["a", "", "bc"].into_iter().collect();
        assert_eq!(list.iter().collect::<Vec<_>>(), ["a", "", "bc"]);
        assert_eq!((list.len(), list.is_empty()), (3, false));
        assert_eq!(KeyList::default().iter().count(), 0);
    }
}
