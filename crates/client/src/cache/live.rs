//! Which instances are live, and since when.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::key::KeyKind;

/// What the change stream has said of the instances.
#[derive(Debug)]
pub(super) struct Instances {
    /// Counts every turn from live to not live and back, of any instance.
    turn: AtomicU64,
    /// The turn at which an instance came to be live; None while it is not.
    live: RwLock<HashMap<String, Option<u64>>>,
    /// The key's type, once known: 0 is none.
    kind: AtomicU8,
    started: Instant,
    /// When the router was last heard: ms since `started`.
    heard_ms: AtomicU64,
    /// All instances have been named.
    named: AtomicBool,
    ended: AtomicBool,
}

impl Default for Instances {
    fn default() -> Self {
        Self {
            turn: AtomicU64::new(0),
            live: RwLock::default(),
            kind: AtomicU8::new(0),
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            named: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }
}

impl Instances {
    /// Now, in turns. Take it before a read.
    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// Whether an instance is live and has been since this turn.
    pub(super) fn live_since(&self, instance: &str, turn: u64) -> bool {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        matches!(live.get(instance), Some(Some(since)) if *since <= turn)
    }

    /// An instance is live from now on. It had no rows until now.
    pub(super) fn set_live(&self, instance: &str) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let turn = self.turn.fetch_add(1, Ordering::AcqRel) + 1;
        live.insert(instance.to_owned(), Some(turn));
    }

    /// It is not live any more. Drop its rows after this.
    pub(super) fn set_lost(&self, instance: &str) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        self.turn.fetch_add(1, Ordering::AcqRel);
        live.insert(instance.to_owned(), None);
    }

    /// None is live any more, nor known. Drop all rows after this.
    pub(super) fn forget(&self) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        self.turn.fetch_add(1, Ordering::AcqRel);
        live.clear();
        self.kind.store(0, Ordering::Release);
        self.named.store(false, Ordering::Release);
    }

    /// All instances have been named by now.
    pub(super) fn set_named(&self) {
        self.named.store(true, Ordering::Release);
    }

    pub(super) fn heard(&self) {
        let ms = self.started.elapsed().as_millis() as u64;
        self.heard_ms.store(ms, Ordering::Release);
    }

    pub(super) fn set_kind(&self, kind: Option<KeyKind>) {
        let number = match kind {
            None => 0,
            Some(KeyKind::Int8) => 1,
            Some(KeyKind::Uuid) => 2,
            Some(KeyKind::Text) => 3,
        };
        self.kind.store(number, Ordering::Release);
    }

    /// The key's type; None while it is not known or the router is silent: then nothing may be
    /// served from memory.
    pub(super) fn kind(&self, silence: Duration) -> Option<KeyKind> {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Acquire));
        if self.started.elapsed().saturating_sub(heard) > silence {
            return None;
        }
        match self.kind.load(Ordering::Acquire) {
            1 => Some(KeyKind::Int8),
            2 => Some(KeyKind::Uuid),
            3 => Some(KeyKind::Text),
            _ => None,
        }
    }

    pub(super) fn all_live(&self, silence: Duration) -> bool {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        self.kind(silence).is_some()
            && self.named.load(Ordering::Acquire)
            && live.values().all(Option::is_some)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_only_if_its_instance_was_live_all_the_time() {
        let instances = Instances::default();
        let before = instances.turn();
        assert!(!instances.live_since("db0", before));
        instances.set_live("db0");
        assert!(!instances.live_since("db0", before));
        let during = instances.turn();
        instances.set_live("db1");
        assert!(instances.live_since("db0", during));
        assert!(!instances.live_since("db1", during));
        instances.set_lost("db0");
        assert!(!instances.live_since("db0", during));
        instances.set_live("db0");
        assert!(!instances.live_since("db0", during));
        assert!(instances.live_since("db0", instances.turn()));
        instances.forget();
        assert!(!instances.live_since("db0", instances.turn()));
    }

    #[test]
    fn nothing_is_served_when_the_router_is_silent() {
        let instances = Instances::default();
        let long = Duration::from_secs(1000);
        assert_eq!(instances.kind(long), None);
        instances.set_kind(Some(KeyKind::Int8));
        instances.heard();
        assert_eq!(instances.kind(long), Some(KeyKind::Int8));
        let ended = Instant::now() + Duration::from_millis(5);
        while Instant::now() < ended {
            std::thread::yield_now();
        }
        assert_eq!(instances.kind(Duration::ZERO), None);
    }
}
