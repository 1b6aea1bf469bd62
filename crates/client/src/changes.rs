//! Follows the changes of feeds, and connects again when the connection is lost.

use std::time::Duration;

use pgbraid_proto::v1::{self, follow_response::Event as WireEvent};
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::client::{Client, Place};
use crate::error::ClientError;

/// What to follow.
#[derive(Debug, Clone, Default)]
pub struct FollowOptions {
    /// Feeds; none means all that tell of their changes.
    pub feeds: Vec<String>,
    /// Ask for the rows of inserts and updates as well.
    pub rows: bool,
    /// The columns of these rows; none means all.
    pub columns: Vec<String>,
    /// How often the router says how far each instance has been heard; its own default otherwise.
    pub heartbeat: Option<Duration>,
    /// A connection on which nothing comes for this long is given up. Keep it at several
    /// heartbeats. None leaves it to the transport's pings.
    pub silence: Option<Duration>,
    /// Waits before connecting again.
    pub backoff: Backoff,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ChangeEvent {
    /// A connection was made: this is what is followed. No instance is live yet.
    Following(v1::Following),
    /// Rows changed.
    Changes(v1::ChangeBatch),
    /// Changes of an instance are missing: forget its rows.
    Reset(v1::ChangeReset),
    /// From here on no change of this instance is missing.
    Live(v1::ChangeLive),
    /// How far each instance has been heard.
    Heartbeat(v1::ChangeHeartbeat),
    /// The connection is lost: forget everything. The next event comes over another connection.
    Disconnected {
        /// Why.
        reason: String,
        /// The wait before connecting again.
        retry_in: Duration,
    },
}

/// Follows changes. They are not kept anywhere: whatever happens while there is no connection is
/// not told, and [`ChangeEvent::Disconnected`] says so.
#[derive(Debug)]
pub struct ChangeFollower {
    client: Client,
    options: FollowOptions,
    stream: Option<Streaming<v1::FollowResponse>>,
    /// Where the stream goes, or was tried last.
    place: Place,
    failures: u32,
    wait: Duration,
    ended: bool,
}

impl ChangeFollower {
    /// Begins to follow.
    ///
    /// # Errors
    /// The router refused it (a feed that does not tell of its changes), or is not there.
    pub async fn start(client: Client, options: FollowOptions) -> Result<Self, ClientError> {
        let mut follower = Self {
            place: client.place(),
            client,
            options,
            stream: None,
            failures: 0,
            wait: Duration::ZERO,
            ended: false,
        };
        follower.stream = Some(follower.follow().await?);
        Ok(follower)
    }

    /// Waits for the next event. Safe to cancel.
    ///
    /// # Errors
    /// The router refuses to go on; [`ClientError::Closed`] in every call after that.
    pub async fn next(&mut self) -> Result<ChangeEvent, ClientError> {
        if self.ended {
            return Err(ClientError::Closed);
        }
        loop {
            let step = match &mut self.stream {
                Some(stream) => heard(stream, self.options.silence).await,
                None => {
                    tokio::time::sleep(self.wait).await;
                    self.place = self.client.place();
                    match self.follow().await {
                        Ok(stream) => {
                            self.stream = Some(stream);
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            let error = match step {
                Ok(response) => {
                    self.failures = 0;
                    // None is an event that this version does not know.
                    match response.event {
                        Some(event) => return Ok(known(event)),
                        None => continue,
                    }
                }
                Err(error) => error,
            };
            if !error.is_retriable() {
                self.ended = true;
                return Err(error);
            }
            self.stream = None;
            self.client.lost(self.place);
            self.failures = self.failures.saturating_add(1);
            self.wait = self.options.backoff.wait(self.failures);
            if let ClientError::Api(api) = &error {
                self.wait = self.wait.max(api.retry_delay.unwrap_or_default());
            }
            return Ok(ChangeEvent::Disconnected {
                reason: error.to_string(),
                retry_in: self.wait,
            });
        }
    }

    async fn follow(&self) -> Result<Streaming<v1::FollowResponse>, ClientError> {
        let options = &self.options;
        let request = v1::FollowRequest {
            feeds: options.feeds.clone(),
            rows: options.rows,
            columns: options.columns.clone(),
            heartbeat: options.heartbeat.and_then(|every| every.try_into().ok()),
        };
        let mut changes = self.client.changes();
        let following = changes.follow(request);
        let answer = match options.silence {
            Some(limit) => tokio::time::timeout(limit, following).await,
            None => Ok(following.await),
        };
        let answer = answer.map_err(|_| silent())?;
        Ok(answer?.into_inner())
    }
}

async fn heard(
    stream: &mut Streaming<v1::FollowResponse>,
    silence: Option<Duration>,
) -> Result<v1::FollowResponse, ClientError> {
    let message = match silence {
        Some(limit) => tokio::time::timeout(limit, stream.message()).await,
        None => Ok(stream.message().await),
    };
    let message = message.map_err(|_| silent())??;
    message.ok_or_else(|| tonic::Status::unavailable("the router ended the stream").into())
}

fn silent() -> ClientError {
    tonic::Status::unavailable("nothing came from the router for too long").into()
}

fn known(event: WireEvent) -> ChangeEvent {
    match event {
        WireEvent::Following(event) => ChangeEvent::Following(event),
        WireEvent::Changes(event) => ChangeEvent::Changes(event),
        WireEvent::Reset(event) => ChangeEvent::Reset(event),
        WireEvent::Live(event) => ChangeEvent::Live(event),
        WireEvent::Heartbeat(event) => ChangeEvent::Heartbeat(event),
    }
}
