//! One producer on a write stream.
//!
//! The stream takes its requests from the lane when the connection has room for them; no task and
//! no channel stands between, and what is ready together is sent together and counted together.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::Stream;
use pgbraid_client::{Answers, Backoff, Client, ClientError, EncodedRequest, proto};

use super::clock::{Clock, Timer};
use super::lane::{Lane, Next};
use super::pace::Behind;
use crate::meter::Meter;

/// Without a connection for this long, it gives up.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How often a lane that has nothing to send looks whether an early end was asked for.
const LOOK: Duration = Duration::from_millis(100);

struct Shared {
    lane: Lane,
    /// Which stream may take requests: one that broke may live on for a moment.
    term: u64,
    /// Of a stream that waits for an answer.
    full: Option<Waker>,
}

type Lock = Arc<Mutex<Shared>>;

/// Sends until the lane is done; returns how far it stayed behind its schedule.
pub async fn run(client: Client, lane: Lane, clock: Option<Clock>, meter: Arc<Meter>) -> Behind {
    let shared = Arc::new(Mutex::new(Shared {
        lane,
        term: 0,
        full: None,
    }));
    let backoff = Backoff::default();
    let (mut failures, mut lost_at) = (0, None);
    loop {
        let mut answered = false;
        let timer = Timer::new(clock.clone());
        let ended = stream(&client, &shared, timer, &meter, &mut answered).await;
        let Err(error) = ended else { break };
        if answered {
            (failures, lost_at) = (0, None);
        }
        let lost_at: &mut Instant = lost_at.get_or_insert_with(Instant::now);
        if !error.is_retriable() || lost_at.elapsed() >= GIVE_UP {
            let lane = &lock(&shared).lane;
            meter.failed(lane.in_flight() as u64, lane.rows(), &error);
            break;
        }
        failures += 1;
        tokio::time::sleep(backoff.wait(failures)).await;
    }
    let mut shared = lock(&shared);
    shared.term += 1;
    shared.lane.behind()
}

/// One stream, to the lane's end.
async fn stream(
    client: &Client,
    shared: &Lock,
    timer: Timer,
    meter: &Meter,
    answered: &mut bool,
) -> Result<(), ClientError> {
    let term = {
        let mut shared = lock(shared);
        shared.term += 1;
        shared.lane.lost();
        shared.term
    };
    let requests = Requests {
        shared: Arc::clone(shared),
        term,
        timer,
    };
    let mut answers = client.write_stream(requests).await?;
    loop {
        let Some(answer) = answers.next().await? else {
            return if lock(shared).lane.is_done(Instant::now()) {
                Ok(())
            } else {
                let why = "the router ended the stream";
                Err(tonic::Status::unavailable(why).into())
            };
        };
        *answered = true;
        if take(answer, &mut answers, shared, meter)? {
            return Ok(());
        }
    }
}

/// Takes an answer, and those that are there as well. True: the lane is done.
fn take(
    answer: proto::WriteResponse,
    answers: &mut Answers,
    shared: &Lock,
    meter: &Meter,
) -> Result<bool, ClientError> {
    let now = Instant::now();
    let mut locked = lock(shared);
    let lane = &mut locked.lane;
    let (rows, open) = (lane.rows(), lane.is_open());
    let mut batch = meter.batch();
    let mut news = Some(Ok(Some(answer)));
    let mut ended = Ok(());
    while let Some(answer) = news {
        match answer {
            Ok(Some(answer)) => {
                // Twice answered, or never sent: not counted.
                if let Some(took) = lane.answered(answer.sequence, now) {
                    batch.answered(took.latency, rows, answer.try_into());
                    if open {
                        batch.left_late(took.late);
                    }
                }
            }
            // The next call says it again.
            Ok(None) => break,
            Err(error) => {
                ended = Err(error);
                break;
            }
        }
        news = answers.ready();
    }
    drop(batch);
    let done = lane.is_done(now);
    let full = locked.full.take();
    drop(locked);
    if let Some(waker) = full {
        waker.wake();
    }
    ended.map(|()| done)
}

/// What the stream sends.
struct Requests {
    shared: Lock,
    term: u64,
    timer: Timer,
}

impl Stream for Requests {
    type Item = EncodedRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let mut shared = lock(&this.shared);
            if shared.term != this.term {
                return Poll::Ready(None);
            }
            let time = match shared.lane.next(Instant::now()) {
                Next::Send(request) => return Poll::Ready(Some(request)),
                Next::Over => return Poll::Ready(None),
                Next::Full => {
                    shared.full = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Next::Wait(time) => time,
            };
            drop(shared);
            let time = time.min(Instant::now() + LOOK);
            if this.timer.poll_until(time, context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

fn lock(shared: &Lock) -> MutexGuard<'_, Shared> {
    // The books stay usable when somebody panicked over them.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
