//! The task of a producer: one stream at a time, and what is not acknowledged on it.

use std::collections::BTreeMap;
use std::pin::pin;

use pgbraid_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::entry::Entry;
use super::{Command, ProducerConfig};
use crate::client::Client;
use crate::error::ClientError;
use crate::write_stream::{Answers, EncodedRequest};

struct Driver {
    client: Client,
    config: ProducerConfig,
    in_flight: usize,
    commands: mpsc::Receiver<Command>,
    /// Every producer is gone.
    closed: bool,
    next_sequence: u64,
    /// By sequence, which is the order they were sent in.
    unacked: BTreeMap<u64, Entry>,
    failures: u32,
    /// When the connection was lost that is not there again.
    lost_at: Option<Instant>,
}

pub(super) async fn run(
    client: Client,
    config: ProducerConfig,
    in_flight: usize,
    commands: mpsc::Receiver<Command>,
) {
    let mut driver = Driver {
        client,
        config,
        in_flight,
        commands,
        closed: false,
        next_sequence: 1,
        unacked: BTreeMap::new(),
        failures: 0,
        lost_at: None,
    };
    let error = driver.work().await;
    // No producer can send any more; those who wait for the window find out by its closing.
    driver.commands.close();
    while let Some(command) = driver.commands.recv().await {
        driver.take(command);
    }
    for entry in std::mem::take(&mut driver.unacked).into_values() {
        entry.fail(error.clone());
    }
}

impl Driver {
    /// Until everything is done, or nothing more can be.
    async fn work(&mut self) -> ClientError {
        loop {
            // An idle producer leaves the router alone.
            if self.unacked.is_empty() {
                match self.commands.recv().await {
                    Some(command) => drop(self.take(command)),
                    None => return ClientError::Closed,
                }
            }
            let place = self.client.place();
            let Err(error) = self.stream().await else {
                return ClientError::Closed;
            };
            // Another router only when this one does not take the stream again: while it lives, it
            // writes what it has taken, and the next one must not be ahead of it.
            if self.failures > 0 {
                self.client.lost(place);
            }
            if !error.is_retriable() {
                return error;
            }
            let lost_at = *self.lost_at.get_or_insert_with(Instant::now);
            let patience = self.config.give_up_after;
            if patience.is_some_and(|patience| lost_at.elapsed() >= patience) {
                return error;
            }
            self.failures = self.failures.saturating_add(1);
            let mut wait = self.config.backoff.wait(self.failures);
            if let ClientError::Api(api) = &error {
                wait = wait.max(api.retry_delay.unwrap_or_default());
            }
            let (endpoint, unacked) = (self.client.endpoint(), self.unacked.len());
            // Once an outage is enough.
            if self.failures == 1 {
                tracing::warn!(
                    endpoint,
                    unacked,
                    "write stream lost, connecting again: {error}"
                );
            } else {
                tracing::debug!(endpoint, unacked, ?wait, "no write stream yet: {error}");
            }
            sleep(wait).await;
        }
    }

    /// One stream. `Ok`: everything is done and every producer is gone.
    async fn stream(&mut self) -> Result<(), ClientError> {
        // Each request stands in it at most once, so that there is always room.
        let (out, requests) = mpsc::channel(self.in_flight);
        let mut next_retry = None;
        for entry in self.unacked.values_mut() {
            entry.retry_at = None;
            let _ = out.try_send(entry.request.clone());
        }
        let client = self.client.clone();
        let mut call = pin!(client.write_stream(ReceiverStream::new(requests)));
        let mut answers: Option<Answers> = None;
        loop {
            if self.closed && self.unacked.is_empty() {
                return Ok(());
            }
            tokio::select! {
                started = &mut call, if answers.is_none() => {
                    answers = Some(started?);
                }
                answer = next(&mut answers), if answers.is_some() => {
                    let mut news = Some(answer);
                    // Those that have arrived together are taken together.
                    while let Some(answer) = news {
                        let Some(answer) = answer? else {
                            return Err(Status::unavailable("the router ended the stream").into());
                        };
                        let at = self.answered(answer);
                        next_retry = [next_retry, at].into_iter().flatten().min();
                        news = answers.as_mut().and_then(Answers::ready);
                    }
                }
                command = self.commands.recv(), if !self.closed => match command {
                    Some(command) => {
                        let mut news = Some(command);
                        while let Some(command) = news {
                            // A closed channel means that the stream has ended: `next` says why.
                            let _ = out.try_send(self.take(command));
                            news = self.commands.try_recv().ok();
                        }
                    }
                    None => self.closed = true,
                },
                () = sleep_until(next_retry.unwrap_or_else(Instant::now)), if next_retry.is_some() => {
                    next_retry = self.send_due(&out);
                }
            }
        }
    }

    /// Adds a request to what is not acknowledged, and gives it as it is sent.
    fn take(&mut self, command: Command) -> EncodedRequest {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let entry = Entry::new(sequence, command);
        let request = entry.request.clone();
        self.unacked.insert(sequence, entry);
        request
    }

    /// When what is left of the request is to be sent again, if anything is.
    fn answered(&mut self, answer: v1::WriteResponse) -> Option<Instant> {
        if self.lost_at.take().is_some() {
            tracing::info!(endpoint = self.client.endpoint(), "write stream is back");
        }
        self.failures = 0;
        let sequence = answer.sequence;
        let Some(entry) = self.unacked.remove(&sequence) else {
            tracing::warn!(
                sequence,
                "the router answered a request that is not in flight"
            );
            return None;
        };
        let entry = entry.answered(&self.config, answer)?;
        let at = entry.retry_at;
        self.unacked.insert(sequence, entry);
        at
    }

    /// Sends what is due again, and says when the next is.
    fn send_due(&mut self, out: &mpsc::Sender<EncodedRequest>) -> Option<Instant> {
        let now = Instant::now();
        let mut next = None;
        for entry in self.unacked.values_mut() {
            match entry.retry_at {
                Some(at) if at <= now => {
                    entry.retry_at = None;
                    let _ = out.try_send(entry.request.clone());
                }
                Some(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
                None => {}
            }
        }
        next
    }
}

async fn next(answers: &mut Option<Answers>) -> Result<Option<v1::WriteResponse>, ClientError> {
    match answers {
        Some(answers) => answers.next().await,
        None => Ok(None),
    }
}
