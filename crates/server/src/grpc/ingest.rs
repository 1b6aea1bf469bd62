//! The service `Ingest`.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, counter};
use pgbraid_feed::Block;
use pgbraid_ingest::{Ack, Outcome, Signal, WhenFull};
use pgbraid_proto::v1::{self, ingest_server::Ingest};
use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{decode, status};
use crate::state::Shared;

pub(crate) struct Service {
    shared: Arc<Shared>,
    /// Calls that went well: looked up once, not by each.
    ok: Counter,
}

impl Service {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            ok: counter!("pgbraid_requests_total", "method" => "Write", "code" => "Ok"),
        }
    }
}

/// Checks a request and queues its rows.
pub(super) async fn submit(
    shared: &Arc<Shared>,
    request: &v1::WriteRequest,
    deadline: Option<Instant>,
    when_full: WhenFull,
    signal: Signal,
) -> Result<Ack, Status> {
    let limits = &shared.config.ingest;
    check_size(shared, request.encoded_len())?;
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
            .ok_or_else(|| status::bad_field("BAD_TIMEOUT", "timeout", "must be longer than zero"))?
            .min(limits.request_timeout * 10),
    };
    let own = Instant::now() + timeout;
    let deadline = deadline.map_or(own, |deadline| deadline.min(own));
    let block =
        decode::block(form, &schema, limits).map_err(|error| status::bad_request(&error))?;
    queue(shared, block, deadline, when_full, signal).await
}

pub(super) async fn queue(
    shared: &Arc<Shared>,
    block: Block,
    deadline: Instant,
    when_full: WhenFull,
    signal: Signal,
) -> Result<Ack, Status> {
    shared
        .ingest
        .submit(block, deadline, when_full, signal)
        .await
        .map_err(|error| status::not_taken(&error))
}

pub(super) fn check_size(shared: &Shared, size: usize) -> Result<(), Status> {
    let limit = shared.config.ingest.max_request_bytes;
    if size as u64 > limit {
        return Err(status::bad_field(
            "REQUEST_TOO_LARGE",
            "request",
            format!(
                "{size} bytes in one request: at most {limit} are taken (ingest.max_request_bytes)"
            ),
        ));
    }
    Ok(())
}

pub(super) fn response(sequence: u64, outcome: Outcome) -> v1::WriteResponse {
    v1::WriteResponse {
        sequence,
        rows_committed: outcome.committed,
        refused: status::refused_rows(outcome.refused),
        status: None,
    }
}

pub(super) fn count(method: &'static str, code: tonic::Code) {
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
            let ack = submit(
                &self.shared,
                request,
                deadline,
                WhenFull::Refuse,
                Signal::new(),
            )
            .await?;
            let outcome = ack.wait().await;
            if outcome.committed == 0
                && let Some(status) = status::all_refused(&outcome.refused)
            {
                return Err(status);
            }
            Ok(Response::new(response(request.sequence, outcome)))
        }
        .await;
        match &result {
            Ok(_) => self.ok.increment(1),
            Err(status) => count("Write", status.code()),
        }
        result
    }

    type WriteStreamStream = tokio_stream::Empty<Result<v1::WriteResponse, Status>>;

    async fn write_stream(
        &self,
        _: Request<Streaming<v1::WriteRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        Err(Status::internal("raw_stream takes this method"))
    }
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
