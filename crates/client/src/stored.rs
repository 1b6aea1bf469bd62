//! A subscriber that goes on after a restart.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::error::ClientError;
use crate::subscriber::{Received, Start, SubscribeOptions, Subscriber};
use crate::token_store::TokenStore;

const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Follows alerts from where it was, as a [`TokenStore`] says. At least once: the position is saved
/// only after the events before it were handled, which the next call of [`Self::next`] says they
/// were. After a crash up to a second of events, or whatever [`Self::save_every`] says, come again;
/// (instance, seq) of an alert names it.
#[derive(Debug)]
pub struct StoredSubscriber<S> {
    subscriber: Subscriber,
    store: S,
    save_every: Duration,
    /// Given out, and being handled.
    handling: Option<String>,
    /// Handled, and not saved.
    handled: Option<String>,
    save_at: Instant,
}

impl<S: TokenStore> StoredSubscriber<S> {
    /// Subscribes just after the stored token, or, when there is none, from `options.start`.
    ///
    /// # Errors
    /// The store cannot be read; or as [`Subscriber::start`].
    pub async fn start(
        client: Client,
        mut options: SubscribeOptions,
        store: S,
    ) -> Result<Self, ClientError> {
        let token = store.load().await;
        if let Some(token) = token.map_err(|error| ClientError::TokenStore(error.to_string()))? {
            options.start = Start::Token(token);
        }
        Ok(Self {
            subscriber: Subscriber::start(client, options).await?,
            store,
            save_every: SAVE_EVERY,
            handling: None,
            handled: None,
            save_at: Instant::now(),
        })
    }

    /// How often the position is saved, at most; zero: after each event that has a token.
    #[must_use]
    pub fn save_every(mut self, every: Duration) -> Self {
        self.save_every = every;
        self
    }

    /// Everything given out before is handled: waits for the next event. Safe to cancel.
    ///
    /// # Errors
    /// The store failed: the next call tries again; or as [`Subscriber::next`].
    pub async fn next(&mut self) -> Result<Received, ClientError> {
        if let Some(token) = self.handling.take() {
            self.handled = Some(token);
        }
        loop {
            if self.handled.is_some() && self.save_at <= Instant::now() {
                self.save().await?;
            }
            let received = tokio::select! {
                received = self.subscriber.next() => received?,
                () = sleep_until(self.save_at), if self.handled.is_some() => continue,
            };
            self.handling.clone_from(&received.token);
            return Ok(received);
        }
    }

    /// Everything given out so far is handled: saves the position now, as before an end.
    ///
    /// # Errors
    /// The store failed.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        if let Some(token) = self.handling.take() {
            self.handled = Some(token);
        }
        self.save().await
    }

    async fn save(&mut self) -> Result<(), ClientError> {
        let Some(token) = &self.handled else {
            return Ok(());
        };
        let saved = self.store.save(token).await;
        saved.map_err(|error| ClientError::TokenStore(error.to_string()))?;
        self.handled = None;
        self.save_at = Instant::now() + self.save_every;
        Ok(())
    }
}
