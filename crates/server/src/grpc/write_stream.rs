//! A stream of writes: its requests are read one after the other, its answers come as they are
//! ready.
//!
//! When the queues are full, or too many requests wait for their answer, nothing more is read:
//! HTTP/2's flow control tells the client. Requests of one row each that have arrived together are
//! queued together, which shares what a request costs, and answered each by itself.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes};
use futures::{FutureExt, Stream};
use metrics::{Counter, counter};
use pgbraid_feed::Block;
use pgbraid_ingest::{Ack, Outcome, Signal, SubmitError, WhenFull};
use pgbraid_proto::v1;
use prost::{EncodeError, Message};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, Sleep},
};
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::{
    decode,
    ingest::{check_size, count, queue, response, submit},
    status,
    together::Together,
    wire::{self, Alike, WireRows},
};
use crate::state::Shared;

/// From the reading half of a stream to its answering half.
enum Taken {
    /// A request that is answered as a whole.
    One { sequence: u64, ack: Ack },
    /// Requests of one row each, by the row's number in the block.
    Each { sequences: Vec<u64>, ack: Ack },
    /// A request that was not taken.
    Refused(v1::WriteResponse),
    /// The stream ends with this once all else is answered.
    End(Status),
}

/// Starts to read the requests; the answers are what is returned.
pub(super) fn start(shared: Arc<Shared>, requests: Streaming<Bytes>) -> Answers {
    let limit = shared.config.ingest.stream_in_flight;
    let in_flight = Arc::new(Semaphore::new(limit));
    // Each stands for a request in flight, so that it is never full but for the end.
    let (to, taken) = mpsc::channel(limit + 1);
    let signal = Signal::new();
    let answers = Answers::new(taken, signal.clone(), in_flight.clone());
    let reader = Reader {
        draining: shared.draining.subscribe(),
        shared,
        requests,
        to,
        in_flight,
        signal,
        held: None,
    };
    tokio::spawn(reader.read());
    answers
}

type Received = Option<Result<Bytes, Status>>;

struct Reader {
    shared: Arc<Shared>,
    requests: Streaming<Bytes>,
    to: mpsc::Sender<Taken>,
    in_flight: Arc<Semaphore>,
    signal: Signal,
    draining: watch::Receiver<bool>,
    /// Read, and not of a kind with the requests before it. Its permit is taken.
    held: Option<Received>,
}

impl Reader {
    async fn read(mut self) {
        loop {
            let received = match self.held.take() {
                Some(received) => received,
                None => {
                    match self.in_flight.acquire().await {
                        Ok(permit) => permit.forget(),
                        Err(_) => return,
                    }
                    tokio::select! {
                        request = self.requests.next() => request,
                        () = self.to.closed() => return,
                        _ = self.draining.wait_for(|draining| *draining) => break,
                    }
                }
            };
            let request = match received {
                None => return,
                Some(Ok(request)) => request,
                Some(Err(status)) => {
                    // The client is gone, or sent what is no message, or too large a one. An error
                    // ends the stream.
                    count("WriteStream", status.code());
                    let _ = self.to.send(Taken::End(status)).await;
                    return;
                }
            };
            let taken = self.take(request).await;
            match taken {
                Ok(()) => {}
                // Not taken: the stream ends without an answer to it, and its client sends it
                // again elsewhere.
                Err(()) if *self.draining.borrow() => break,
                Err(()) => return,
            }
        }
        let draining = status::not_taken(&SubmitError::Draining);
        let _ = self.to.send(Taken::End(draining)).await;
    }

    /// Queues a request, and perhaps others with it. An error ends the stream.
    async fn take(&mut self, message: Bytes) -> Result<(), ()> {
        let Some(request) = wire::read(&message) else {
            return self.take_message(message).await;
        };
        if let [row] = request.rows.as_slice()
            && let Some(mut together) = self.together(&request, message.len())
            && together.add(request.sequence, row)
        {
            self.gather(&mut together, &message);
            return self.take_together(together).await;
        }
        let limits = &self.shared.config.ingest;
        let Some((feed, _)) = request.names() else {
            return self.take_message(message.clone()).await;
        };
        let block = check_size(&self.shared, message.len())
            .and_then(|()| self.shared.schema(feed))
            .map(|schema| decode::wire_rows(&request, &schema, limits));
        let block = match block {
            Ok(None) => return self.take_message(message.clone()).await,
            Ok(Some(block)) => block.map_err(|error| status::bad_request(&error)),
            Err(status) => Err(status),
        };
        let sequence = request.sequence;
        let taken = match block {
            Ok(block) => self.queue(block, self.signal.clone()).await,
            Err(status) => Err(status),
        };
        let taken = match taken {
            Ok(ack) => Taken::One { sequence, ack },
            Err(status) => self.refused(sequence, &status)?,
        };
        self.to.send(taken).await.map_err(drop)
    }

    /// For requests like this one, if nothing is wrong with it but perhaps its row.
    fn together(&self, request: &WireRows<'_>, size: usize) -> Option<Together> {
        check_size(&self.shared, size).ok()?;
        let (feed, _) = request.names()?;
        let schema = self.shared.schema(feed).ok()?;
        Together::new(schema, request)
    }

    /// Queues a request that prost has to read.
    async fn take_message(&mut self, message: Bytes) -> Result<(), ()> {
        let request = match v1::WriteRequest::decode(message) {
            Ok(request) => request,
            Err(error) => {
                let status = Status::internal(format!("the request can't be decoded: {error}"));
                count("WriteStream", status.code());
                let _ = self.to.send(Taken::End(status)).await;
                return Err(());
            }
        };
        let sequence = request.sequence;
        let signal = self.signal.clone();
        let taken = match submit(&self.shared, &request, None, WhenFull::Wait, signal).await {
            Ok(ack) => Taken::One { sequence, ack },
            Err(status) => self.refused(sequence, &status)?,
        };
        self.to.send(taken).await.map_err(drop)
    }

    /// Adds what has arrived already of requests like the first one.
    fn gather(&mut self, together: &mut Together, first: &[u8]) {
        let Some(alike) = Alike::of(first) else {
            return;
        };
        while together.has_room() {
            let Ok(permit) = self.in_flight.try_acquire() else {
                return;
            };
            let Some(received) = self.requests.next().now_or_never() else {
                return;
            };
            permit.forget();
            let added = match &received {
                Some(Ok(message)) => {
                    check_size(&self.shared, message.len()).is_ok()
                        && (alike.row(message))
                            .is_some_and(|(sequence, row)| together.add(sequence, row))
                }
                _ => false,
            };
            if !added {
                self.held = Some(received);
                return;
            }
        }
    }

    /// Queues requests of one row each.
    async fn take_together(&mut self, together: Together) -> Result<(), ()> {
        let (sequences, block) = together.finish();
        let taken = match block.map_err(|error| status::bad_request(&error)) {
            Ok(block) => self.queue(block, self.signal.for_each_row()).await,
            Err(status) => Err(status),
        };
        match taken {
            Ok(ack) => {
                let taken = Taken::Each { sequences, ack };
                self.to.send(taken).await.map_err(drop)
            }
            Err(status) => {
                for sequence in sequences {
                    let refused = self.refused(sequence, &status)?;
                    self.to.send(refused).await.map_err(drop)?;
                }
                Ok(())
            }
        }
    }

    async fn queue(&self, block: Block, signal: Signal) -> Result<Ack, Status> {
        let deadline = Instant::now() + self.shared.config.ingest.request_timeout;
        queue(&self.shared, block, deadline, WhenFull::Wait, signal).await
    }

    /// The answer to a request that was not taken, unless the router is draining.
    fn refused(&self, sequence: u64, status: &Status) -> Result<Taken, ()> {
        if *self.draining.borrow() {
            return Err(());
        }
        count("WriteStream", status.code());
        Ok(Taken::Refused(v1::WriteResponse {
            sequence,
            status: Some(status::embedded(status)),
            ..Default::default()
        }))
    }
}

/// One answer. Nearly all say that all is committed: they are kept small.
pub(crate) enum Answer {
    Committed { sequence: u64, rows: u64 },
    Other(Box<v1::WriteResponse>),
}

impl Answer {
    fn of(sequence: u64, outcome: Outcome) -> Self {
        match outcome.refused.is_empty() {
            true => Self::Committed {
                sequence,
                rows: outcome.committed,
            },
            false => Self::Other(Box::new(response(sequence, outcome))),
        }
    }

    /// As the message `WriteResponse`.
    pub fn encode(&self, to: &mut impl BufMut) -> Result<(), EncodeError> {
        match self {
            Self::Committed { sequence, rows } => {
                wire::put_committed(*sequence, *rows, to);
                Ok(())
            }
            Self::Other(answer) => answer.encode(to),
        }
    }
}

/// The answers of a stream.
pub(crate) struct Answers {
    taken: mpsc::Receiver<Taken>,
    signal: Signal,
    in_flight: Arc<Semaphore>,
    waiting: Vec<Taken>,
    ready: VecDeque<Answer>,
    /// Handed out, and their permits not given back yet.
    answered: usize,
    /// The first deadline of what waits.
    timer: Pin<Box<Sleep>>,
    /// Nothing more is read.
    closed: bool,
    end: Option<Status>,
    counted: Counter,
}

impl Stream for Answers {
    type Item = Result<Answer, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(answer) = this.ready.pop_front() {
                this.answered += 1;
                return Poll::Ready(Some(Ok(answer)));
            }
            if this.answered > 0 {
                this.in_flight.add_permits(this.answered);
                this.answered = 0;
            }
            this.signal.register(context);
            while !this.closed {
                match this.taken.poll_recv(context) {
                    Poll::Ready(Some(Taken::Refused(answer))) => {
                        this.ready.push_back(Answer::Other(Box::new(answer)));
                    }
                    Poll::Ready(Some(Taken::End(status))) => this.end = Some(status),
                    Poll::Ready(Some(taken)) => this.waiting.push(taken),
                    Poll::Ready(None) => this.closed = true,
                    Poll::Pending => break,
                }
            }
            let first_deadline = this.collect();
            if !this.ready.is_empty() {
                continue;
            }
            let Some(first_deadline) = first_deadline else {
                if !this.closed {
                    return Poll::Pending;
                }
                return Poll::Ready(this.end.take().map(Err));
            };
            if this.timer.deadline() != first_deadline {
                this.timer.as_mut().reset(first_deadline);
            }
            match this.timer.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => this.expire(),
            }
        }
    }
}

impl Drop for Answers {
    /// Nobody takes answers any more: the reading half may be waiting for room that would never
    /// come.
    fn drop(&mut self) {
        self.in_flight.close();
    }
}

impl Answers {
    fn new(taken: mpsc::Receiver<Taken>, signal: Signal, in_flight: Arc<Semaphore>) -> Self {
        Self {
            taken,
            signal,
            in_flight,
            waiting: Vec::new(),
            ready: VecDeque::new(),
            answered: 0,
            timer: Box::pin(tokio::time::sleep(Default::default())),
            closed: false,
            end: None,
            counted: counter!("pgbraid_requests_total", "method" => "WriteStream", "code" => "Ok"),
        }
    }

    /// Makes the answers that are there. Returns the first deadline of what still waits.
    fn collect(&mut self) -> Option<Instant> {
        let mut first_deadline: Option<Instant> = None;
        let mut at = 0;
        while at < self.waiting.len() {
            let (ack, done) = match &mut self.waiting[at] {
                Taken::One { ack, .. } => {
                    let done = ack.is_done();
                    (&*ack, done)
                }
                Taken::Each { sequences, ack } => {
                    // Asked first: what is answered meanwhile is found the next time.
                    let done = ack.is_done();
                    let ready = &mut self.ready;
                    let counted = &self.counted;
                    let mut told = 0;
                    ack.news(|row, refusal| {
                        told += 1;
                        let sequence = sequences[row as usize];
                        ready.push_back(match refusal {
                            None => Answer::Committed { sequence, rows: 1 },
                            Some(refusal) => {
                                let mut refusal = refusal.clone();
                                refusal.refusal.row = 0;
                                Answer::of(
                                    sequence,
                                    Outcome {
                                        committed: 0,
                                        refused: vec![refusal],
                                    },
                                )
                            }
                        });
                    });
                    if told > 0 {
                        counted.increment(told);
                    }
                    (&*ack, done)
                }
                Taken::Refused(_) | Taken::End(_) => unreachable!("never waits"),
            };
            if !done {
                let deadline = ack.deadline();
                first_deadline = Some(first_deadline.map_or(deadline, |first| first.min(deadline)));
                at += 1;
                continue;
            }
            if let Taken::One { sequence, ack } = self.waiting.swap_remove(at) {
                self.counted.increment(1);
                self.ready.push_back(Answer::of(sequence, ack.outcome()));
            }
        }
        first_deadline
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for taken in &self.waiting {
            match taken {
                Taken::One { ack, .. } | Taken::Each { ack, .. } if ack.deadline() <= now => {
                    ack.expire();
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that leaves while its window is full leaves no task behind.
    #[tokio::test]
    async fn who_waits_for_room_is_told_that_the_answers_are_gone() {
        let in_flight = Arc::new(Semaphore::new(0));
        let (_to, taken) = mpsc::channel(1);
        let answers = Answers::new(taken, Signal::new(), in_flight.clone());
        let mut waiting = Box::pin(in_flight.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(answers);
        assert!(waiting.now_or_never().expect("it is told at once").is_err());
    }
}
