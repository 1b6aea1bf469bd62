//! A gRPC call to the router that writes nothing: what a unary row pays for the way there and back.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use pgbraid_proto::v1::{self, ingest_client::IngestClient};
use tonic::Code;

use crate::case::Measure;

/// One call after the other, on one thread, as the load generator makes its calls.
pub async fn run(address: &str, time: Duration) -> Result<Measure> {
    let address = address.to_owned();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(calls(address, time))
    })
    .await?
}

async fn calls(address: String, time: Duration) -> Result<Measure> {
    let mut client = IngestClient::connect(address).await?;
    // Up to ten minutes, in microseconds.
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    let start = Instant::now();
    while start.elapsed() < time {
        // The router looks the feed up, finds none, and says so.
        let request = v1::WriteRequest {
            feed: "no_such_feed".into(),
            ..Default::default()
        };
        let sent = Instant::now();
        match client.write(request).await {
            Err(status) if status.code() == Code::InvalidArgument => {}
            other => bail!("expected INVALID_ARGUMENT, found {other:?}"),
        }
        latencies.saturating_record(sent.elapsed().as_micros() as u64);
    }
    let calls = latencies.len() as f64;
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Measure {
        rows: calls,
        rows_per_second: calls / start.elapsed().as_secs_f64(),
        p50_ms: ms(0.5),
        p99_ms: Some(ms(0.99)),
        ..Measure::default()
    })
}
