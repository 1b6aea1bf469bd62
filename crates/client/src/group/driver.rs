//! The task of a member: one stream at a time, deliveries in, settlements out.

use std::sync::Arc;
use std::time::Duration;

use pgbraid_proto::v1::{
    self, consume_request::Request as Ask, consume_response::Response as Told,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::books::How;
use super::delivery::Arrived;
use super::shared::Shared;
use super::{ConsumeOptions, GroupEvent};
use crate::client::{Client, Place};
use crate::error::ClientError;

/// Messages of settlements between the driver and its connection.
const BUFFERED: usize = 4;
/// How often settlements are looked over for those that rest or are given up.
const TICK: Duration = Duration::from_millis(50);

/// One connection to a router.
pub(super) struct Session {
    out: mpsc::Sender<v1::ConsumeRequest>,
    told: Streaming<v1::ConsumeResponse>,
    place: Place,
}

impl Session {
    pub(super) async fn open(
        client: &Client,
        options: &ConsumeOptions,
    ) -> Result<Self, ClientError> {
        let place = client.place();
        let (out, requests) = mpsc::channel(BUFFERED);
        let join = Ask::Join(v1::Join {
            group: options.group.clone(),
            member: options.member.clone(),
            max_in_flight: options.max_in_flight.max(1),
        });
        // There is room: it is the first.
        let _ = out.try_send(v1::ConsumeRequest {
            request: Some(join),
        });
        let requests = ReceiverStream::new(requests);
        match client.alerts().consume(requests).await {
            Ok(told) => Ok(Self {
                out,
                told: told.into_inner(),
                place,
            }),
            Err(error) => {
                client.lost(place);
                Err(error.into())
            }
        }
    }
}

struct Driver {
    client: Client,
    options: ConsumeOptions,
    shared: Arc<Shared>,
    failures: u32,
    /// When leaving must be over.
    leave_by: Option<Instant>,
}

/// How a session ended.
enum End {
    Left,
    Lost(ClientError),
}

pub(super) async fn run(
    client: Client,
    options: ConsumeOptions,
    shared: Arc<Shared>,
    session: Session,
) {
    let mut driver = Driver {
        client,
        options,
        shared,
        failures: 0,
        leave_by: None,
    };
    let end = driver.work(session).await;
    let shared = driver.shared;
    let mut state = shared.lock();
    state.ready.clear();
    state.books.fail(&end);
    state.end = Some(end);
    drop(state);
    shared.news.notify_one();
}

impl Driver {
    async fn work(&mut self, first: Session) -> ClientError {
        let mut session = Some(first);
        loop {
            let error = match session.take() {
                Some(open) => {
                    let place = open.place;
                    match self.serve(open).await {
                        End::Left => return ClientError::Closed,
                        End::Lost(error) => {
                            self.client.lost(place);
                            error
                        }
                    }
                }
                None => match self.again().await {
                    Ok(Some(open)) => {
                        session = Some(open);
                        continue;
                    }
                    Ok(None) => return ClientError::Closed,
                    Err(error) => error,
                },
            };
            if !error.is_retriable() {
                return error;
            }
            if self.leave_by.is_some_and(|by| by <= Instant::now()) {
                return error;
            }
            self.lost(&error).await;
        }
    }

    /// What was delivered and not taken goes back: its router may have given it to others already.
    async fn lost(&mut self, error: &ClientError) {
        self.failures = self.failures.saturating_add(1);
        let mut wait = self.options.backoff.wait(self.failures);
        if let ClientError::Api(api) = error {
            wait = wait.max(api.retry_delay.unwrap_or_default());
        }
        self.note_loss(error, wait);
        let (endpoint, failures) = (self.client.endpoint(), self.failures);
        tracing::debug!(
            endpoint,
            failures,
            ?wait,
            "lost the group's stream: {error}"
        );
        self.meanwhile(tokio::time::sleep(wait)).await;
    }

    fn note_loss(&self, error: &ClientError, wait: Duration) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.books.lost(now);
        for arrived in std::mem::take(&mut state.ready) {
            let (message, until) = arrived.given_back();
            let reason = "the member lost its router before it looked at it".into();
            let delay = Duration::ZERO;
            let how = How::Nack { delay, reason };
            drop(state.books.add(&message.id, how, until, now));
        }
        state.notice(GroupEvent::Disconnected {
            reason: error.to_string(),
            retry_in: wait,
        });
        drop(state);
        self.shared.news.notify_one();
    }

    /// Another connection; `None` when there is nothing left to do over it.
    async fn again(&mut self) -> Result<Option<Session>, ClientError> {
        if self.is_leaving() && self.shared.lock().books.len() == 0 {
            return Ok(None);
        }
        let (client, options) = (self.client.clone(), self.options.clone());
        let open = Session::open(&client, &options);
        match self.meanwhile(open).await {
            Some(session) => session.map(Some),
            None => Err(Status::unavailable("no router answered before the time to leave").into()),
        }
    }

    /// Looks after the settlements while something takes its time; `None` when leaving took too
    /// long.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        loop {
            if self.is_leaving() && self.leave_by.is_some_and(|by| by <= Instant::now()) {
                return None;
            }
            if let Ok(done) = timeout(TICK, &mut what).await {
                return Some(done);
            }
            self.tick();
        }
    }

    fn tick(&self) {
        let mut state = self.shared.lock();
        let before = state.books.len();
        state.books.tick(Instant::now());
        let fewer = state.books.len() < before;
        drop(state);
        if fewer {
            self.shared.news.notify_one();
        }
    }

    fn is_leaving(&mut self) -> bool {
        let leaving = self.shared.lock().leaving;
        if leaving && self.leave_by.is_none() {
            self.leave_by = Some(Instant::now() + self.options.leave_timeout);
        }
        leaving
    }

    async fn serve(&mut self, mut session: Session) -> End {
        let mut tick = Instant::now() + TICK;
        loop {
            let now = Instant::now();
            if tick <= now {
                self.tick();
                tick = now + TICK;
            }
            if self.is_leaving() {
                let done = {
                    let mut state = self.shared.lock();
                    // The router gives back what was not settled.
                    state.ready.clear();
                    state.books.len() == 0
                };
                if done {
                    return self.leave(session).await;
                }
                if self.leave_by.is_some_and(|by| by <= now) {
                    return End::Lost(Status::unavailable("not settled in time to leave").into());
                }
            }
            let due = self.shared.lock().books.due();
            let send = due.is_some_and(|due| due <= now);
            let until = due.filter(|_| !send).map_or(tick, |due| due.min(tick));
            tokio::select! {
                told = session.told.message() => match told {
                    Ok(Some(told)) => self.take(told),
                    Ok(None) => {
                        return End::Lost(Status::unavailable("the router ended the stream").into());
                    }
                    Err(status) => return End::Lost(status.into()),
                },
                () = self.shared.work.notified() => {}
                // A closed one has an end, which the branch above tells.
                Ok(place) = session.out.reserve(), if send => {
                    if let Some(settlement) = self.shared.lock().books.take(now) {
                        let request = Some(Ask::Settlement(settlement));
                        place.send(v1::ConsumeRequest { request });
                    }
                }
                () = sleep_until(until) => {}
            }
        }
    }

    /// Half closed, the router gives back what is held, and then ends the stream.
    async fn leave(&self, session: Session) -> End {
        let Session { out, mut told, .. } = session;
        drop(out);
        let by = self.leave_by.unwrap_or_else(Instant::now);
        let end = async { while let Ok(Some(_)) = told.message().await {} };
        let _ = timeout_at(by, end).await;
        End::Left
    }

    fn take(&mut self, told: v1::ConsumeResponse) {
        self.failures = 0;
        let mut state = self.shared.lock();
        match told.response {
            Some(Told::Deliveries(deliveries)) => {
                let some = deliveries.deliveries.into_iter();
                state.ready.extend(some.filter_map(Arrived::new));
            }
            Some(Told::Settled(settled)) => {
                let backoff = &self.options.backoff;
                state
                    .books
                    .answered(settled.results, backoff, Instant::now());
            }
            Some(Told::InstanceStatus(status)) => state.notice(GroupEvent::InstanceStatus(status)),
            Some(Told::Heartbeat(_)) | None => return,
        }
        drop(state);
        self.shared.news.notify_one();
    }
}
