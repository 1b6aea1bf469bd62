//! A producer on a stream.

use std::collections::HashMap;

use pgbraid_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{Router, rows, wait::limited};

/// A stream of requests, numbered from 1.
pub struct Writer {
    requests: mpsc::Sender<v1::WriteRequest>,
    answers: Streaming<v1::WriteResponse>,
    next: u64,
    waiting: HashMap<u64, v1::WriteRequest>,
}

impl Writer {
    /// Opens a stream.
    ///
    /// # Panics
    /// If the router does not answer.
    pub async fn open(router: &Router) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let answers = rows::ingest(router)
            .await
            .write_stream(ReceiverStream::new(receiver))
            .await
            .expect("the stream opens")
            .into_inner();
        Self {
            requests,
            answers,
            next: 0,
            waiting: HashMap::new(),
        }
    }

    /// Sends a request; returns its number. Waits while too many are on their way.
    ///
    /// # Errors
    /// If the stream is over.
    pub async fn send(&mut self, mut request: v1::WriteRequest) -> Result<u64, Status> {
        self.next += 1;
        request.sequence = self.next;
        self.waiting.insert(self.next, request.clone());
        self.requests
            .send(request)
            .await
            .map_err(|_| Status::unavailable("the stream is over"))?;
        Ok(self.next)
    }

    /// The next answer, with its request.
    ///
    /// # Errors
    /// If the stream ends or breaks.
    pub async fn answer(&mut self) -> Result<(v1::WriteRequest, v1::WriteResponse), Status> {
        let answer = limited("an answer to a write", self.answers.message()).await?;
        let answer = answer.ok_or_else(|| Status::unavailable("the stream has ended"))?;
        let request = self.waiting.remove(&answer.sequence);
        let request = request.ok_or_else(|| Status::internal("an answer to no request"))?;
        Ok((request, answer))
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Sends a request and waits until nothing is in flight. Every row must be committed.
    ///
    /// # Panics
    /// If a row is refused, or the stream breaks.
    pub async fn write(&mut self, request: v1::WriteRequest) {
        self.send(request).await.expect("the stream is open");
        self.settle().await;
    }

    /// Waits until nothing is in flight. Every row must be committed.
    ///
    /// # Panics
    /// If a row is refused, or the stream breaks.
    pub async fn settle(&mut self) {
        while self.in_flight() > 0 {
            let (_, answer) = self.answer().await.expect("the stream goes on");
            assert_eq!(answer.status, None);
            assert_eq!(answer.refused, []);
        }
    }
}
