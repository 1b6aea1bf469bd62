//! One request that is not acknowledged, and what its answers make of it.

use std::time::Duration;

use pgbraid_proto::v1;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::ack::{Refused, WriteAck, is_retriable};
use super::{Command, ProducerConfig, subset};
use crate::error::{ApiError, ClientError};
use crate::write_stream::EncodedRequest;

/// One request that is not acknowledged.
pub(super) struct Entry {
    /// What is to be sent: the request, or what is left of it.
    pub request: EncodedRequest,
    /// Refused rows go out again then; `None` while it is on its way.
    pub retry_at: Option<Instant>,
    done: oneshot::Sender<Result<WriteAck, ClientError>>,
    _permit: OwnedSemaphorePermit,
    /// What is known of the rows that are not sent again.
    ack: WriteAck,
    /// Where the rows of `request` stand in the caller's request; `None`: in the same places.
    places: Option<Vec<u32>>,
    give_up_at: Option<Instant>,
    retries: u32,
}

impl Entry {
    pub fn new(sequence: u64, command: Command) -> Self {
        Self {
            request: EncodedRequest {
                sequence,
                body: command.body,
            },
            retry_at: None,
            done: command.done,
            _permit: command.permit,
            ack: WriteAck::default(),
            places: None,
            give_up_at: None,
            retries: 0,
        }
    }

    /// Ends it without an answer.
    pub fn fail(self, error: ClientError) {
        // The caller may have dropped its end.
        let _ = self.done.send(Err(error));
    }

    /// Takes an answer: done, or given back with what is to be sent again.
    pub fn answered(mut self, config: &ProducerConfig, answer: v1::WriteResponse) -> Option<Self> {
        if let Some(status) = answer.status {
            let error = ApiError::from_message(status);
            if is_retriable(error.code) && self.schedule(config, error.retry_delay) {
                return Some(self);
            }
            self.fail(ClientError::Api(Box::new(error)));
            return None;
        }
        self.ack.committed += answer.rows_committed;
        let refused = answer.refused.into_iter().map(Refused::from);
        let (again, settled): (Vec<_>, Vec<_>) =
            refused.partition(|row| config.retry_refused.is_some() && row.is_retriable());
        let delay = again.iter().filter_map(|row| row.retry_delay).max();
        self.settle(settled);
        if !again.is_empty() {
            if self.schedule(config, delay) && self.keep_only(&again) {
                return Some(self);
            }
            self.settle(again);
        }
        self.ack.refused.sort_unstable_by_key(|row| row.index);
        let _ = self.done.send(Ok(self.ack));
        None
    }

    /// Whether there is time for another try, which then is set.
    fn schedule(&mut self, config: &ProducerConfig, delay: Option<Duration>) -> bool {
        let Some(for_how_long) = config.retry_refused else {
            return false;
        };
        let now = Instant::now();
        let give_up_at = *self.give_up_at.get_or_insert(now + for_how_long);
        self.retries += 1;
        let wait = config.backoff.wait(self.retries);
        let at = now + wait.max(delay.unwrap_or_default());
        self.retry_at = (at < give_up_at).then_some(at);
        self.retry_at.is_some()
    }

    fn settle(&mut self, rows: Vec<Refused>) {
        for mut row in rows {
            row.index = self.place(row.index);
            self.ack.refused.push(row);
        }
    }

    /// False, and nothing is done: the request can't be read, which it can, as it was encoded here.
    fn keep_only(&mut self, rows: &[Refused]) -> bool {
        let Ok(mut request) = v1::WriteRequest::decode(self.request.body.clone()) else {
            return false;
        };
        let kept: Vec<u32> = rows.iter().map(|row| row.index).collect();
        self.places = Some(kept.iter().map(|&index| self.place(index)).collect());
        subset::keep_only(&mut request, &kept);
        self.request = EncodedRequest::new(self.request.sequence, request);
        true
    }

    fn place(&self, index: u32) -> u32 {
        let places = self.places.as_ref();
        let place = places.and_then(|places| places.get(index as usize));
        place.copied().unwrap_or(index)
    }
}
