//! The bound in bytes over everything that is queued.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Bytes that may be held at a time. One atomic number: taking and giving back take no lock.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
    waiting: AtomicUsize,
    freed: Notify,
}

/// Bytes taken, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Budget {
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        })
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes bytes if there are enough.
    pub fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits)
            .is_ok()
            .then(|| Reservation {
                budget: self.clone(),
                bytes,
            })
    }

    /// Waits until there are enough; for ever if `bytes` exceed the limit.
    pub async fn take(self: &Arc<Self>, bytes: u64) -> Reservation {
        if let Some(taken) = self.try_take(bytes) {
            return taken;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(taken) = self.try_take(bytes) {
                return taken;
            }
            freed.await;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::SeqCst);
        // Who waits counted itself before it looked a last time.
        if self.budget.waiting.load(Ordering::SeqCst) > 0 {
            self.budget.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back() {
        let budget = Budget::new(100);
        let first = budget.try_take(60).unwrap();
        assert!(budget.try_take(41).is_none());
        let second = budget.try_take(40).unwrap();
        let waiter = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(70).await.bytes }
        });
        while budget.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        drop(second);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished(), "40 bytes are not 70");
        drop(first);
        assert_eq!(waiter.await.unwrap(), 70);
        assert!(budget.try_take(100).is_some(), "all was given back");
        assert_eq!(budget.waiting.load(Ordering::SeqCst), 0);
    }
}
