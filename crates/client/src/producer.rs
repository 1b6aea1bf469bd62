//! Writes with many requests in flight, at least once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use pgbraid_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::ClientError;
use crate::write_stream::EncodedRequest;

mod ack;
mod driver;
mod entry;
mod subset;

pub use ack::{Refused, WriteAck};

/// How a [`Producer`] works.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// The most requests that are not acknowledged yet, at least 1. What exceeds the router's
    /// `ingest.stream_in_flight` waits in the connection.
    pub in_flight: usize,
    /// Send rows that were refused as UNAVAILABLE or RESOURCE_EXHAUSTED again, for this long from
    /// the first time. They may then be written after later rows of the same key. Without it, the
    /// caller finds them in the ack.
    pub retry_refused: Option<Duration>,
    /// Waits before connecting, or sending refused rows, again.
    pub backoff: Backoff,
    /// Fail what is not acknowledged when there has been no connection for this long. Without it,
    /// the producer tries for ever.
    pub give_up_after: Option<Duration>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            in_flight: 32,
            retry_refused: None,
            backoff: Backoff::default(),
            give_up_after: None,
        }
    }
}

/// Writes rows over one stream. Clones share the stream.
///
/// The rows of one key are written in the order of the calls of [`Producer::send`]. When the
/// connection is lost, it connects again and sends what was not acknowledged again, in order: rows
/// may be written twice, which for upserts changes nothing. Everything sent is written even when its
/// [`PendingWrite`] or every producer is dropped, as long as the runtime lives.
#[derive(Debug, Clone)]
pub struct Producer {
    commands: mpsc::Sender<Command>,
    // One permit for each request that is not acknowledged: this bounds `commands` as well.
    window: Arc<Semaphore>,
    in_flight: u32,
}

struct Command {
    /// The encoded request, without a sequence.
    body: Bytes,
    done: oneshot::Sender<Result<WriteAck, ClientError>>,
    permit: OwnedSemaphorePermit,
}

/// A request on its way; resolves when the router has answered it.
#[derive(Debug)]
pub struct PendingWrite {
    done: oneshot::Receiver<Result<WriteAck, ClientError>>,
}

impl Producer {
    /// Starts a task that carries the stream. It connects when there is something to send.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(client: Client, config: ProducerConfig) -> Self {
        let in_flight = config.in_flight.clamp(1, 65_536);
        let (commands, receiver) = mpsc::channel(in_flight);
        tokio::spawn(driver::run(client, config, in_flight, receiver));
        Self {
            commands,
            window: Arc::new(Semaphore::new(in_flight)),
            in_flight: in_flight as u32,
        }
    }

    /// Waits for room in the window and sends. The request's `sequence` is overwritten.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the stream ended for good: the pending requests say why.
    pub async fn send(&self, request: v1::WriteRequest) -> Result<PendingWrite, ClientError> {
        let window = Arc::clone(&self.window);
        let permit = window.acquire_owned().await;
        let permit = permit.map_err(|_| ClientError::Closed)?;
        let (done, receiver) = oneshot::channel();
        // Here rather than in the task of the stream, which has all producers to serve.
        let body = EncodedRequest::new(0, request).body;
        let command = Command { body, done, permit };
        // There is room: the window is no larger than the channel.
        let sent = self.commands.send(command).await;
        sent.map_err(|_| ClientError::Closed)?;
        Ok(PendingWrite { done: receiver })
    }

    /// Sends, and waits for the ack.
    ///
    /// # Errors
    /// As [`Producer::send`], or the router refused the whole request.
    pub async fn write(&self, request: v1::WriteRequest) -> Result<WriteAck, ClientError> {
        self.send(request).await?.await
    }

    /// Waits until everything sent so far, on all clones, is answered.
    pub async fn flush(&self) {
        // All permits are free only when nothing is in flight.
        drop(self.window.acquire_many(self.in_flight).await);
    }
}

impl Future for PendingWrite {
    type Output = Result<WriteAck, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let done = ready!(Pin::new(&mut self.done).poll(context));
        Poll::Ready(done.unwrap_or(Err(ClientError::Closed)))
    }
}

#[cfg(test)]
mod tests;
