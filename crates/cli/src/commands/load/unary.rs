//! One producer with a call a request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgbraid_client::{Backoff, Client, ClientError, WriteAck, proto};
use tokio::task::JoinSet;

use super::clock::{Clock, Timer};
use super::generate::Generator;
use super::pace::{Behind, Pace};
use crate::meter::Meter;

/// What clients of a router that is down or full do: a load without it would be of failures only.
const PATIENCE: Backoff = Backoff {
    min: Duration::from_millis(2),
    max: Duration::from_millis(200),
};

struct Caller {
    generator: Generator,
    pace: Pace,
}

/// What a caller sends next.
struct Call {
    due: Instant,
    rows: u64,
    open: bool,
    request: proto::WriteRequest,
}

/// Sends to the end; returns how far it stayed behind its schedule.
pub async fn run(
    client: Client,
    generator: Generator,
    pace: Pace,
    in_flight: u32,
    clock: Option<Clock>,
    meter: Arc<Meter>,
) -> Behind {
    let caller = Arc::new(Mutex::new(Caller { generator, pace }));
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let (client, meter) = (client.clone(), Arc::clone(&meter));
        let timer = Timer::new(clock.clone());
        callers.spawn(calls(client, Arc::clone(&caller), timer, meter));
    }
    while let Some(done) = callers.join_next().await {
        // A panic has been reported by itself.
        let _ = done;
    }
    let caller = caller.lock().unwrap_or_else(PoisonError::into_inner);
    caller.pace.behind()
}

/// One call after the other. With a schedule, whoever is free takes what is due next.
async fn calls(client: Client, caller: Arc<Mutex<Caller>>, mut timer: Timer, meter: Arc<Meter>) {
    let mut ingest = client.ingest();
    let mut failures = 0;
    while let Some(call) = next(&caller) {
        if call.open {
            timer.until(call.due).await;
        }
        let sent = Instant::now();
        // With nothing to wait for, the intended time is that of sending.
        let since = if call.open { call.due } else { sent };
        let answer = ingest.write(call.request).await;
        let answer = answer.map_err(ClientError::from);
        let answer = answer.and_then(|response| WriteAck::try_from(response.into_inner()));
        let again = (answer.as_ref().err()).is_some_and(ClientError::is_retriable);
        failures = if again { failures + 1 } else { 0 };
        {
            let mut batch = meter.batch();
            batch.answered(since.elapsed(), call.rows, answer);
            if call.open {
                batch.left_late(sent.duration_since(call.due));
            }
        }
        if again {
            tokio::time::sleep(PATIENCE.wait(failures)).await;
        }
    }
}

fn next(caller: &Mutex<Caller>) -> Option<Call> {
    let mut caller = caller.lock().unwrap_or_else(PoisonError::into_inner);
    let due = caller.pace.due(Instant::now())?;
    caller.pace.take();
    Some(Call {
        due,
        rows: caller.generator.rows(),
        open: caller.pace.is_open(),
        request: caller.generator.request().clone(),
    })
}
