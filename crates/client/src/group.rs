//! Consumer groups: takes part in one, and settles what it is given.
//!
//! A task drives the stream: settlements go out in few messages, are confirmed one by one, and are
//! said again over the next connection where the last one broke before their answer.

use std::sync::Arc;
use std::time::Duration;

use pgbraid_proto::v1;

use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::ClientError;

mod admin;
mod books;
mod delivery;
mod driver;
mod run;
mod shared;

pub use admin::Groups;
pub use delivery::{Delivery, Message, Outcome, Settling};
pub use run::{Handled, Nack, RunOptions};

use driver::Session;
use shared::Shared;

/// How to take part in a group.
#[derive(Debug, Clone)]
pub struct ConsumeOptions {
    /// The group.
    pub group: String,
    /// A name for people: in the history of dead letters.
    pub member: String,
    /// Deliveries that are not settled, at most; 1 to 10000. Each waits for its turn while its time
    /// runs: choose no more than are handled within the visibility timeout.
    pub max_in_flight: u32,
    /// Waits before connecting, or settling what an instance did not answer, again.
    pub backoff: Backoff,
    /// How long leaving may take.
    pub leave_timeout: Duration,
}

impl ConsumeOptions {
    /// The defaults.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            member: format!("pid {}", std::process::id()),
            max_in_flight: 100,
            backoff: Backoff::default(),
            leave_timeout: Duration::from_secs(10),
        }
    }
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// An alert for this member.
    Delivery(Delivery),
    /// An instance cannot be claimed from, or can again.
    InstanceStatus(v1::InstanceStatus),
    /// The connection is lost; the next delivery comes over another one. What is held can still be
    /// settled, but may have gone to another member.
    Disconnected {
        /// Why.
        reason: String,
        /// The wait before connecting again.
        retry_in: Duration,
    },
}

/// A member of a group. At least once: an alert comes again, to any member, unless it was acked;
/// (instance, seq) of it names it.
///
/// Dropping it leaves the group in the background, as long as the runtime lives: what was settled is
/// brought to its end, what was not goes to others at once.
#[derive(Debug)]
pub struct GroupConsumer {
    shared: Arc<Shared>,
    max_in_flight: usize,
    driver: Option<tokio::task::JoinHandle<()>>,
}

impl GroupConsumer {
    /// Joins a group.
    ///
    /// # Errors
    /// The router refused it (there is no such group), or is not there.
    pub async fn join(client: Client, options: ConsumeOptions) -> Result<Self, ClientError> {
        let session = Session::open(&client, &options).await?;
        let shared = Arc::new(Shared::default());
        let max_in_flight = options.max_in_flight.max(1) as usize;
        let driver = driver::run(client, options, Arc::clone(&shared), session);
        Ok(Self {
            shared,
            max_in_flight,
            driver: Some(tokio::spawn(driver)),
        })
    }

    /// Waits for the next event. Safe to cancel.
    ///
    /// # Errors
    /// The router refuses to go on (the group was removed), in every call after that too.
    pub async fn next(&mut self) -> Result<GroupEvent, ClientError> {
        loop {
            if let Some(event) = self.ready()? {
                return Ok(event);
            }
            // A change between the look and here has left its permit.
            self.shared.news.notified().await;
        }
    }

    /// Waits for the next delivery, whatever else happens. Safe to cancel.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_delivery(&mut self) -> Result<Delivery, ClientError> {
        loop {
            if let GroupEvent::Delivery(delivery) = self.next().await? {
                return Ok(delivery);
            }
        }
    }

    fn ready(&self) -> Result<Option<GroupEvent>, ClientError> {
        let mut state = self.shared.lock();
        if let Some(notice) = state.notices.pop_front() {
            return Ok(Some(notice));
        }
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        // While no router takes settlements, deliveries must not pile up settlements.
        if state.books.len() > self.max_in_flight {
            return Ok(None);
        }
        let arrived = state.ready.pop_front();
        Ok(arrived.map(|arrived| GroupEvent::Delivery(arrived.taken(&self.shared))))
    }

    /// Leaves: waits until what was settled is confirmed, and what was not has gone back to the
    /// group.
    ///
    /// # Errors
    /// The router was not there for all of the leave timeout: then what was not settled comes back
    /// when its time is over.
    pub async fn leave(mut self) -> Result<(), ClientError> {
        self.shared.leave();
        if let Some(driver) = self.driver.take() {
            let _ = driver.await;
        }
        match self.shared.lock().end.clone() {
            None | Some(ClientError::Closed) => Ok(()),
            Some(error) => Err(error),
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

#[cfg(test)]
mod tests;
