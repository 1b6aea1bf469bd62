//! Wakes whoever waits for answers.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

/// Tells one task that requests have come further: that of a stream, for all its requests, or
/// that of a call. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Signal {
    waker: Arc<AtomicWaker>,
    each_row: bool,
}

impl Signal {
    /// A signal that nobody waits for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same signal, given whenever rows get their answer, and not only with a request's last.
    pub fn for_each_row(&self) -> Self {
        Self {
            waker: self.waker.clone(),
            each_row: true,
        }
    }

    /// The same number for all signals of a task, while it lives.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.waker).addr()
    }

    /// Has the task of the context woken at the next signal. Look for answers after this, not
    /// before.
    pub fn register(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    pub(crate) fn give(&self, done: bool) {
        if done || self.each_row {
            self.waker.wake();
        }
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, so: impl Fn() -> bool) {
        poll_fn(|context| {
            self.register(context);
            if so() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
