//! The service `Ingest`.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use metrics::counter;
use pgbraid_ingest::{Ack, Outcome, WhenFull};
use pgbraid_proto::v1::{self, ingest_server::Ingest};
use prost::Message;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{decode, status};
use crate::state::Shared;

pub(crate) struct Service(pub Arc<Shared>);

impl Service {
    /// Checks a request and queues its rows.
    async fn submit(
        shared: &Arc<Shared>,
        request: &v1::WriteRequest,
        deadline: Option<Instant>,
        when_full: WhenFull,
    ) -> Result<Ack, Status> {
        let limits = &shared.config.ingest;
        let size = request.encoded_len() as u64;
        if size > limits.max_request_bytes {
            return Err(status::bad_field(
                "REQUEST_TOO_LARGE",
                "request",
                format!(
                    "{size} bytes in one request: at most {} are taken (ingest.max_request_bytes)",
                    limits.max_request_bytes
                ),
            ));
        }
        let schema = shared.schema(&request.feed)?;
        let form = request.form.as_ref().ok_or_else(|| {
            status::bad_field(
                "EMPTY_REQUEST",
                "form",
                "the request has neither `columnar` nor `rows`",
            )
        })?;
        let timeout = match &request.timeout {
            None => limits.request_timeout,
            Some(timeout) => Duration::try_from(*timeout)
                .ok()
                .filter(|timeout| !timeout.is_zero())
                .ok_or_else(|| {
                    status::bad_field("BAD_TIMEOUT", "timeout", "must be longer than zero")
                })?
                .min(limits.request_timeout * 10),
        };
        let own = Instant::now() + timeout;
        let deadline = deadline.map_or(own, |deadline| deadline.min(own));
        let block =
            decode::block(form, &schema, limits).map_err(|error| status::bad_request(&error))?;
        shared
            .ingest
            .submit(block, deadline, when_full)
            .await
            .map_err(|error| status::not_taken(&error))
    }
}

fn response(sequence: u64, outcome: Outcome) -> v1::WriteResponse {
    v1::WriteResponse {
        sequence,
        rows_committed: outcome.committed,
        refused: status::refused_rows(outcome.refused),
        status: None,
    }
}

fn count(method: &'static str, code: tonic::Code) {
    counter!("pgbraid_requests_total", "method" => method, "code" => format!("{code:?}"))
        .increment(1);
}

#[tonic::async_trait]
impl Ingest for Service {
    async fn write(
        &self,
        request: Request<v1::WriteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let deadline = call_deadline(&request);
        let request = request.get_ref();
        let result = async {
            let ack = Self::submit(&self.0, request, deadline, WhenFull::Refuse).await?;
            let outcome = ack.wait().await;
            if outcome.committed == 0
                && let Some(status) = status::all_refused(&outcome.refused)
            {
                return Err(status);
            }
            Ok(Response::new(response(request.sequence, outcome)))
        }
        .await;
        count(
            "Write",
            result.as_ref().err().map_or(tonic::Code::Ok, Status::code),
        );
        result
    }

    type WriteStreamStream = Pin<Box<dyn Stream<Item = Result<v1::WriteResponse, Status>> + Send>>;

    async fn write_stream(
        &self,
        request: Request<Streaming<v1::WriteRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        let in_flight = self.0.config.ingest.stream_in_flight;
        let (send, answers) = mpsc::channel(in_flight);
        tokio::spawn(stream(self.0.clone(), request.into_inner(), send));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// Takes a stream's requests one after the other; their answers come as they are ready. When the
/// queues are full, or too many requests wait for their answer, nothing more is read: HTTP/2's
/// flow control tells the client.
async fn stream(
    shared: Arc<Shared>,
    mut requests: Streaming<v1::WriteRequest>,
    answers: mpsc::Sender<Result<v1::WriteResponse, Status>>,
) {
    let limit = shared.config.ingest.stream_in_flight;
    let in_flight = Arc::new(Semaphore::new(limit));
    let mut draining = shared.draining.subscribe();
    loop {
        let Ok(permit) = in_flight.clone().acquire_owned().await else {
            return;
        };
        let request = tokio::select! {
            request = requests.next() => request,
            () = answers.closed() => return,
            _ = draining.wait_for(|draining| *draining) => break,
        };
        let request = match request {
            None => return,
            Some(Ok(request)) => request,
            Some(Err(status)) => {
                // The client is gone, or sent what is no message, or too large a one. An error ends
                // the stream: what was taken gets its answer first.
                count("WriteStream", status.code());
                drop(permit);
                tokio::select! {
                    _ = in_flight.acquire_many(limit as u32) => {}
                    () = answers.closed() => return,
                }
                let _ = answers.send(Err(status)).await;
                return;
            }
        };
        let sequence = request.sequence;
        match Service::submit(&shared, &request, None, WhenFull::Wait).await {
            Ok(ack) => {
                let answers = answers.clone();
                tokio::spawn(async move {
                    let outcome = ack.wait().await;
                    count("WriteStream", tonic::Code::Ok);
                    let _ = answers.send(Ok(response(sequence, outcome))).await;
                    drop(permit);
                });
            }
            // Not taken: the stream ends without an answer to it, and its client sends it again
            // elsewhere.
            Err(_) if *draining.borrow() => break,
            Err(status) => {
                count("WriteStream", status.code());
                let refused = v1::WriteResponse {
                    sequence,
                    status: Some(status::embedded(&status)),
                    ..Default::default()
                };
                if answers.send(Ok(refused)).await.is_err() {
                    return;
                }
            }
        }
    }
    // Everything that was taken gets its answer first.
    let _ = in_flight.acquire_many(limit as u32).await;
    let draining = status::not_taken(&pgbraid_ingest::SubmitError::Draining);
    let _ = answers.send(Err(draining)).await;
}

/// The deadline of a unary call, a little early, so that the answer still arrives.
fn call_deadline<T>(request: &Request<T>) -> Option<Instant> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number.checked_mul(3600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Instant::now().checked_add(timeout.mul_f64(0.9))
}
