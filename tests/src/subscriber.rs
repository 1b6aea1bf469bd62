//! A subscriber that notes everything.

use std::time::{Duration, SystemTime};

use pgbraid_proto::v1::{self, subscribe_request::Start, subscribe_response::Event};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use crate::{Router, rows, wait::limited};

/// A subscription.
pub struct Subscriber {
    events: Streaming<v1::SubscribeResponse>,
    /// The last token seen.
    pub token: String,
}

impl Subscriber {
    /// Subscribes to all alerts from now on, and waits until every instance is followed.
    ///
    /// # Panics
    /// If the subscription is refused.
    pub async fn now(router: &Router) -> Self {
        let mut subscriber = Self::open(router, Start::Now(v1::Now {}), v1::Filter::default())
            .await
            .expect("the subscription is taken");
        subscriber.caught_up().await;
        subscriber
    }

    /// Subscribes.
    ///
    /// # Errors
    /// If the subscription is refused.
    pub async fn open(router: &Router, start: Start, filter: v1::Filter) -> Result<Self, Status> {
        Self::open_at(&router.grpc, start, filter).await
    }

    /// As [`Self::open`], by the router's address.
    ///
    /// # Errors
    /// If the subscription is refused, or there is no router.
    pub async fn open_at(address: &str, start: Start, filter: v1::Filter) -> Result<Self, Status> {
        let events = rows::alerts_at(address)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?
            .subscribe(v1::SubscribeRequest {
                filter: Some(filter),
                start: Some(start),
                heartbeat: Some(Duration::from_millis(200).try_into().expect("a time")),
            })
            .await?
            .into_inner();
        Ok(Self {
            events,
            token: String::new(),
        })
    }

    /// The next event, heartbeats included.
    ///
    /// # Errors
    /// If the stream ends or breaks.
    pub async fn next(&mut self) -> Result<Event, Status> {
        let event = limited("an event", self.events.message()).await?;
        let event = event.ok_or_else(|| Status::unavailable("the stream has ended"))?;
        if !event.token.is_empty() {
            self.token = event.token;
        }
        event
            .event
            .ok_or_else(|| Status::internal("an empty event"))
    }

    /// Reads until a heartbeat says that every instance is followed, and returns the alerts
    /// that came before it.
    ///
    /// # Panics
    /// If the stream breaks.
    pub async fn caught_up(&mut self) -> Vec<v1::Alert> {
        let mut alerts = Vec::new();
        loop {
            match self.next().await.expect("the stream goes on") {
                Event::Alert(alert) => alerts.push(alert),
                Event::Heartbeat(beat)
                    if beat
                        .progress
                        .iter()
                        .all(|one| one.state() == v1::progress::State::Live) =>
                {
                    return alerts;
                }
                _ => {}
            }
        }
    }

    /// The next alerts, as many as asked for.
    ///
    /// # Panics
    /// If the stream breaks.
    pub async fn alerts(&mut self, count: usize) -> Vec<v1::Alert> {
        let mut alerts = Vec::new();
        while alerts.len() < count {
            if let Event::Alert(alert) = self.next().await.expect("the stream goes on") {
                alerts.push(alert);
            }
        }
        alerts
    }

    /// Everything until the router says that whatever was committed before this time has been
    /// delivered, heartbeats left out. Plain notifications are not part of that promise.
    ///
    /// # Panics
    /// If the stream breaks, or takes too long.
    pub async fn until(&mut self, time: SystemTime) -> Vec<Event> {
        limited("the subscriber to be up to date", async {
            let mut events = Vec::new();
            loop {
                match self.next().await.expect("the stream goes on") {
                    Event::Heartbeat(beat) if covers(&beat, time) => return events,
                    Event::Heartbeat(_) => {}
                    event => events.push(event),
                }
            }
        })
        .await
    }

    /// Notes all alerts, each with the token behind it, until the router has delivered whatever
    /// was committed before the time that `end` comes to hold.
    ///
    /// # Panics
    /// If the stream breaks.
    pub async fn follow(
        mut self,
        end: watch::Receiver<Option<SystemTime>>,
    ) -> Vec<(v1::Alert, String)> {
        let mut alerts = Vec::new();
        loop {
            match self.next().await.expect("the stream goes on") {
                Event::Alert(alert) => alerts.push((alert, self.token.clone())),
                Event::Heartbeat(beat) if end.borrow().is_some_and(|end| covers(&beat, end)) => {
                    return alerts;
                }
                Event::Heartbeat(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

fn covers(beat: &v1::Heartbeat, time: SystemTime) -> bool {
    let read_at = |one: &v1::Progress| one.read_at.and_then(|at| SystemTime::try_from(at).ok());
    let live = |one: &v1::Progress| one.state() == v1::progress::State::Live;
    let mut progress = beat.progress.iter();
    progress.all(|one| live(one) && read_at(one).is_some_and(|at| at > time))
}
