//! What a load did: rows, latencies, refusals.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use pgbraid_client::{
    Client, ClientError, PendingWrite, Producer, ProducerConfig, WriteAck, proto,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Counts over all producers.
#[derive(Default)]
pub struct Meter {
    rows_acked: AtomicU64,
    requests: AtomicU64,
    acks: Latencies,
    late: Latencies,
    /// Rows by the code of their refusal.
    refused: Mutex<BTreeMap<String, u64>>,
    example: Mutex<Option<String>>,
}

impl Meter {
    pub fn rows_acked(&self) -> u64 {
        self.rows_acked.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// From the (intended) time of sending to the ack.
    pub fn acks(&self) -> &Latencies {
        &self.acks
    }

    /// From the intended time of sending to the real one.
    pub fn late(&self) -> &Latencies {
        &self.late
    }

    pub fn refused(&self) -> BTreeMap<String, u64> {
        lock(&self.refused).clone()
    }

    /// The first refusal's text.
    pub fn example(&self) -> Option<String> {
        lock(&self.example).clone()
    }

    /// Takes the answer to a request of so many rows.
    pub fn answered(&self, since: Instant, rows: u64, answer: Result<WriteAck, ClientError>) {
        self.batch().answered(since.elapsed(), rows, answer);
    }

    /// Takes several answers at once. Nobody else can meanwhile: not to be kept over an await.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            meter: self,
            acks: lock(&self.acks.0),
            rows_acked: 0,
            requests: 0,
        }
    }

    /// So many requests, each of so many rows, will never be answered.
    pub fn failed(&self, requests: u64, rows: u64, error: &ClientError) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        // Even if there were none: a load that ended early says why.
        let rows = requests.saturating_mul(rows);
        self.refuse(code_name(error.code()), rows, &error.to_string());
    }

    fn refuse(&self, code: String, rows: u64, why: &str) {
        *lock(&self.refused).entry(code).or_default() += rows;
        lock(&self.example).get_or_insert_with(|| why.to_owned());
    }
}

/// Answers that are taken together.
pub struct Batch<'a> {
    meter: &'a Meter,
    acks: MutexGuard<'a, Histogram<u64>>,
    rows_acked: u64,
    requests: u64,
}

impl Batch<'_> {
    /// The answer to a request of so many rows, and the time from its (intended) sending.
    pub fn answered(
        &mut self,
        latency: Duration,
        rows: u64,
        answer: Result<WriteAck, ClientError>,
    ) {
        self.requests += 1;
        match answer {
            Ok(ack) => {
                self.acks.saturating_record(us(latency));
                self.rows_acked += ack.committed;
                for row in ack.refused {
                    self.meter.refuse(code_name(row.code), 1, &row.message);
                }
            }
            Err(error) => {
                let code = code_name(error.code());
                self.meter.refuse(code, rows, &error.to_string());
            }
        }
    }

    /// So much later than intended it was sent.
    pub fn left_late(&mut self, late: Duration) {
        self.meter.late.record(late);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let meter = self.meter;
        meter.requests.fetch_add(self.requests, Ordering::Relaxed);
        meter
            .rows_acked
            .fetch_add(self.rows_acked, Ordering::Relaxed);
    }
}

/// A histogram of durations, from 1 µs to 10 minutes with 3 digits.
pub struct Latencies(Mutex<Histogram<u64>>);

const LONGEST_US: u64 = 600_000_000;

impl Default for Latencies {
    fn default() -> Self {
        Self(Mutex::new(
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds are valid"),
        ))
    }
}

impl Latencies {
    pub fn record(&self, duration: Duration) {
        lock(&self.0).saturating_record(us(duration));
    }

    /// In milliseconds; 0 when nothing was recorded.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        ms(lock(&self.0).value_at_quantile(quantile))
    }

    pub fn max_ms(&self) -> f64 {
        ms(lock(&self.0).max())
    }
}

fn us(duration: Duration) -> u64 {
    let us = u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US);
    us.clamp(1, LONGEST_US)
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// A producer whose acks are counted.
pub struct Feeder {
    producer: Producer,
    pending: mpsc::Sender<Pending>,
    collector: JoinHandle<()>,
}

struct Pending {
    write: PendingWrite,
    rows: u64,
    since: Instant,
}

impl Feeder {
    pub fn new(client: Client, config: ProducerConfig, meter: Arc<Meter>) -> Self {
        let (pending, receiver) = mpsc::channel(config.in_flight.max(1));
        Self {
            producer: Producer::new(client, config),
            pending,
            collector: tokio::spawn(collect(receiver, meter)),
        }
    }

    /// Waits for room and sends. False: the stream has ended for good.
    pub async fn send(&self, request: proto::WriteRequest, rows: u64, since: Instant) -> bool {
        let Ok(write) = self.producer.send(request).await else {
            return false;
        };
        let pending = Pending { write, rows, since };
        self.pending.send(pending).await.is_ok()
    }

    /// Waits until everything is answered and counted.
    pub async fn finish(self) {
        drop(self.pending);
        // It fails only if it panicked, which has been reported then.
        let _ = self.collector.await;
    }
}

async fn collect(mut receiver: mpsc::Receiver<Pending>, meter: Arc<Meter>) {
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            pending = receiver.recv(), if open => match pending {
                Some(Pending { write, rows, since }) => {
                    waiting.push(async move { (since, rows, write.await) });
                }
                None => open = false,
            },
            Some((since, rows, answer)) = waiting.next(), if !waiting.is_empty() => {
                meter.answered(since, rows, answer);
            }
        }
    }
}

/// `InvalidArgument` as INVALID_ARGUMENT.
fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts stay usable when somebody panicked while counting.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_codes() {
        assert_eq!(code_name(tonic::Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(code_name(tonic::Code::Unavailable), "UNAVAILABLE");
    }

    #[test]
    fn latencies_have_three_digits() {
        let latencies = Latencies::default();
        assert!(latencies.quantile_ms(0.99) < 0.01);
        for ms in 1..=1000 {
            latencies.record(Duration::from_millis(ms));
        }
        latencies.record(Duration::from_secs(100_000));
        assert!((latencies.quantile_ms(0.5) - 500.0).abs() < 2.0);
        assert!((latencies.max_ms() - 600_000.0).abs() < 600.0);
    }
}
