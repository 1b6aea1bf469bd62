//! Follows alerts, and goes on where it was when the connection is lost.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use pgbraid_proto::v1::{
    self, subscribe_request::Start as WireStart, subscribe_response::Event as WireEvent,
};
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::client::{Client, Place};
use crate::error::ClientError;

/// Alerts since the last token that are remembered to drop repeats after a reconnect. Far more than
/// a router sends between two tokens.
const REMEMBERED: usize = 100_000;

/// What to follow, and from where.
#[derive(Debug, Clone, Default)]
pub struct SubscribeOptions {
    /// Empty lists let everything pass.
    pub filter: v1::Filter,
    /// Where to start.
    pub start: Start,
    /// How often the router says how far each instance has been read; its own default otherwise.
    pub heartbeat: Option<Duration>,
    /// Waits before connecting again.
    pub backoff: Backoff,
}

/// Where a subscription starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    #[default]
    Now,
    /// With everything that is still kept.
    Earliest,
    /// With what was raised at or after this time, by each instance's clock, and is still kept. Some
    /// alerts raised shortly before may come as well.
    Time(SystemTime),
    /// Just after the event that carried this token.
    Token(String),
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// What happened.
    pub event: Event,
    /// The resume position just after it, if it has one.
    pub token: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A row matched a rule.
    Alert(v1::Alert),
    /// A message on a plain channel.
    Notification(v1::Notification),
    /// Messages on plain channels may have been lost.
    Gap(v1::Gap),
    /// An instance cannot be read, or can again.
    InstanceStatus(v1::InstanceStatus),
    /// How far each instance has been read.
    Heartbeat(v1::Heartbeat),
    /// Alerts of an instance are read again from an earlier point.
    Rewound(v1::Rewound),
    /// Alerts that had not been received are not kept any more.
    Dropped(v1::Dropped),
    /// The connection is lost; the next event comes over another one.
    Disconnected {
        /// Why.
        reason: String,
        /// The wait before connecting again.
        retry_in: Duration,
    },
}

/// Follows alerts. Nothing is lost on the way, and after a reconnect nothing is repeated unless a
/// [`Event::Rewound`] said so. One exception: a subscription from now that loses its connection
/// before the first token starts again from now.
#[derive(Debug)]
pub struct Subscriber {
    client: Client,
    options: SubscribeOptions,
    stream: Option<Streaming<v1::SubscribeResponse>>,
    /// Where the stream goes, or was tried last.
    place: Place,
    failures: u32,
    wait: Duration,
    recent: Recent,
    ended: bool,
}

impl Subscriber {
    /// Subscribes.
    ///
    /// # Errors
    /// The router refused it (an unknown rule, a token of another cluster), or is not there.
    pub async fn start(client: Client, options: SubscribeOptions) -> Result<Self, ClientError> {
        let mut subscriber = Self {
            place: client.place(),
            client,
            options,
            stream: None,
            failures: 0,
            wait: Duration::ZERO,
            recent: Recent::default(),
            ended: false,
        };
        subscriber.stream = Some(subscriber.subscribe().await?);
        Ok(subscriber)
    }

    /// The resume position after everything that was received; `None` before the first token.
    pub fn token(&self) -> Option<&str> {
        match &self.options.start {
            Start::Token(token) => Some(token),
            Start::Now | Start::Earliest | Start::Time(_) => None,
        }
    }

    /// Waits for the next event. Safe to cancel.
    ///
    /// # Errors
    /// The router refuses to go on; [`ClientError::Closed`] in every call after that.
    pub async fn next(&mut self) -> Result<Received, ClientError> {
        if self.ended {
            return Err(ClientError::Closed);
        }
        loop {
            let step = match &mut self.stream {
                Some(stream) => stream.message().await.map_err(ClientError::from),
                None => {
                    tokio::time::sleep(self.wait).await;
                    self.place = self.client.place();
                    match self.subscribe().await {
                        Ok(stream) => {
                            self.stream = Some(stream);
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            let error = match step {
                Ok(Some(response)) => match self.take(response) {
                    Some(received) => return Ok(received),
                    None => continue,
                },
                Ok(None) => {
                    ClientError::from(tonic::Status::unavailable("the router ended the stream"))
                }
                Err(error) => error,
            };
            if !error.is_retriable() {
                self.ended = true;
                return Err(error);
            }
            return Ok(self.lost(&error));
        }
    }

    fn lost(&mut self, error: &ClientError) -> Received {
        self.stream = None;
        self.client.lost(self.place);
        self.failures = self.failures.saturating_add(1);
        self.wait = self.options.backoff.wait(self.failures);
        if let ClientError::Api(api) = error {
            self.wait = self.wait.max(api.retry_delay.unwrap_or_default());
        }
        Received {
            event: Event::Disconnected {
                reason: error.to_string(),
                retry_in: self.wait,
            },
            token: None,
        }
    }

    /// `None` for a repeat, or an event that this version does not know.
    fn take(&mut self, response: v1::SubscribeResponse) -> Option<Received> {
        self.failures = 0;
        let repeat = match &response.event {
            Some(WireEvent::Alert(alert)) => !self.recent.is_new(alert),
            Some(WireEvent::Rewound(rewound)) => {
                self.recent.forget(&rewound.instance);
                false
            }
            _ => false,
        };
        let token = (!response.token.is_empty()).then_some(response.token);
        if let Some(token) = &token {
            self.options.start = Start::Token(token.clone());
            self.recent.clear();
        }
        if repeat {
            return None;
        }
        let event = match response.event? {
            WireEvent::Alert(event) => Event::Alert(event),
            WireEvent::Notification(event) => Event::Notification(event),
            WireEvent::Gap(event) => Event::Gap(event),
            WireEvent::InstanceStatus(event) => Event::InstanceStatus(event),
            WireEvent::Heartbeat(event) => Event::Heartbeat(event),
            WireEvent::Rewound(event) => Event::Rewound(event),
            WireEvent::Dropped(event) => Event::Dropped(event),
        };
        Some(Received { event, token })
    }

    async fn subscribe(&self) -> Result<Streaming<v1::SubscribeResponse>, ClientError> {
        let options = &self.options;
        let request = v1::SubscribeRequest {
            filter: Some(options.filter.clone()),
            start: Some(match &options.start {
                Start::Now => WireStart::Now(v1::Now {}),
                Start::Earliest => WireStart::Earliest(v1::Earliest {}),
                Start::Time(time) => WireStart::Time((*time).into()),
                Start::Token(token) => WireStart::Token(token.clone()),
            }),
            heartbeat: options.heartbeat.and_then(|every| every.try_into().ok()),
        };
        let stream = self.client.alerts().subscribe(request).await?;
        Ok(stream.into_inner())
    }
}

/// The alerts since the last token: what a router sends again after a reconnect.
#[derive(Debug, Default)]
struct Recent {
    known: HashSet<(String, i64)>,
    order: VecDeque<(String, i64)>,
}

impl Recent {
    fn is_new(&mut self, alert: &v1::Alert) -> bool {
        let id = (alert.instance.clone(), alert.seq);
        if !self.known.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// What follows a rewind is passed on, for the caller to judge.
    fn forget(&mut self, instance: &str) {
        self.known.retain(|(of, _)| of != instance);
        self.order.retain(|(of, _)| of != instance);
    }

    fn clear(&mut self) {
        self.known.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests;
