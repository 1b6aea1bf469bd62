//! What a consumer, its deliveries and its driver share.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::GroupEvent;
use super::books::{Books, How};
use super::delivery::{Arrived, Outcome};
use crate::error::ClientError;

#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// The driver has something to do.
    pub(super) work: Notify,
    /// The consumer may find something new.
    pub(super) news: Notify,
}

#[derive(Default)]
pub(super) struct State {
    /// Delivered, and not taken by the consumer; no more than may be in flight.
    pub(super) ready: VecDeque<Arrived>,
    /// One an instance, and one of the connection.
    pub(super) notices: VecDeque<GroupEvent>,
    pub(super) books: Books,
    pub(super) leaving: bool,
    /// The driver has ended.
    pub(super) end: Option<ClientError>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settle(
        &self,
        id: &str,
        how: How,
        give_up_at: Instant,
    ) -> oneshot::Receiver<Result<Outcome, ClientError>> {
        let mut state = self.lock();
        let answer = state.books.add(id, how, give_up_at, Instant::now());
        if let Some(end) = state.end.clone() {
            state.books.fail(&end);
        }
        drop(state);
        self.work.notify_one();
        answer
    }

    /// No more deliveries; what was settled is brought to its end.
    pub(super) fn leave(&self) {
        self.lock().leaving = true;
        self.work.notify_one();
    }
}

impl State {
    /// Notes a change of an instance or of the connection, in place of what was noted before.
    pub(super) fn notice(&mut self, event: GroupEvent) {
        let of = |event: &GroupEvent| match event {
            GroupEvent::InstanceStatus(status) => Some(status.instance.clone()),
            _ => None,
        };
        self.notices.retain(|old| of(old) != of(&event));
        self.notices.push_back(event);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("ready", &state.ready.len())
            .field("unconfirmed", &state.books.len())
            .field("end", &state.end)
            .finish_non_exhaustive()
    }
}
