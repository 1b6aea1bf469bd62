//! The service `Alerts`.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::Stream;
use pgbraid_alerts::{
    Alert, Event, Filter, ReadState, Start, SubscribeError, SubscribeOptions, Subscription, Token,
};
use pgbraid_proto::v1::{
    self, alerts_server::Alerts, subscribe_request, subscribe_response::Event as Wire,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{consume::ConsumeStream, status};
use crate::{node::within, state::Shared};

/// Events between a subscription and its connection. Beyond these the subscription is not asked.
const BUFFERED: usize = 64;
/// With more instances a token is too large to go with every event.
const TOKEN_ON_EACH: usize = 16;

pub(crate) struct Service(pub Arc<Shared>);

#[tonic::async_trait]
impl Alerts for Service {
    type SubscribeStream =
        Pin<Box<dyn Stream<Item = Result<v1::SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let options = self.options(request.into_inner()).await?;
        let subscription = self.0.hub.subscribe(options).map_err(|error| match error {
            SubscribeError::TooMany { .. } => status::later(
                tonic::Code::ResourceExhausted,
                "TOO_MANY_SUBSCRIBERS",
                error.to_string(),
                Duration::from_secs(5),
            ),
            SubscribeError::Token(_) => status::bad_field("BAD_TOKEN", "token", error.to_string()),
            SubscribeError::UnknownInstance(_) => {
                status::bad_field("UNKNOWN_INSTANCE", "filter.instances", error.to_string())
            }
        })?;
        let (send, events) = mpsc::channel(BUFFERED);
        tokio::spawn(deliver(self.0.clone(), subscription, send));
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    type ConsumeStream = ConsumeStream;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let stream = self.do_consume(request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn pull(
        &self,
        request: Request<v1::PullRequest>,
    ) -> Result<Response<v1::PullResponse>, Status> {
        let request = request.into_inner();
        self.do_pull(request).await.map(Response::new)
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let request = request.into_inner();
        self.do_settle(request).await.map(Response::new)
    }

    async fn put_group(
        &self,
        request: Request<v1::PutGroupRequest>,
    ) -> Result<Response<v1::PutGroupResponse>, Status> {
        let request = request.into_inner();
        self.do_put_group(request).await.map(Response::new)
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let request = request.into_inner();
        self.do_list_groups(request).await.map(Response::new)
    }

    async fn remove_group(
        &self,
        request: Request<v1::RemoveGroupRequest>,
    ) -> Result<Response<v1::RemoveGroupResponse>, Status> {
        let request = request.into_inner();
        self.do_remove_group(request).await.map(Response::new)
    }

    async fn replay_group(
        &self,
        request: Request<v1::ReplayGroupRequest>,
    ) -> Result<Response<v1::ReplayGroupResponse>, Status> {
        let request = request.into_inner();
        self.do_replay_group(request).await.map(Response::new)
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        self.do_list_dead_letters(request).await.map(Response::new)
    }

    async fn requeue_dead_letters(
        &self,
        request: Request<v1::DeadLettersRequest>,
    ) -> Result<Response<v1::DeadLettersResponse>, Status> {
        let request = request.into_inner();
        self.do_dead_letters(request, true).await.map(Response::new)
    }

    async fn drop_dead_letters(
        &self,
        request: Request<v1::DeadLettersRequest>,
    ) -> Result<Response<v1::DeadLettersResponse>, Status> {
        let request = request.into_inner();
        self.do_dead_letters(request, false)
            .await
            .map(Response::new)
    }
}

impl Service {
    async fn options(&self, request: v1::SubscribeRequest) -> Result<SubscribeOptions, Status> {
        let filter = request.filter.unwrap_or_default();
        let instances = filter
            .instances
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_, pgbraid_shardmap::NameError>>()
            .map_err(|error| {
                status::bad_field("UNKNOWN_INSTANCE", "filter.instances", error.to_string())
            })?;
        for feed in &filter.feeds {
            self.0.schema_at(feed, "filter.feeds")?;
        }
        self.known_rules(&filter.rules).await?;
        let start = match request.start {
            None | Some(subscribe_request::Start::Now(_)) => Start::Now,
            Some(subscribe_request::Start::Earliest(_)) => Start::Earliest,
            Some(subscribe_request::Start::Time(time)) => Start::Time(time_us(time, "time")?),
            Some(subscribe_request::Start::Token(token)) => {
                let bad = |error| status::bad_field("BAD_TOKEN", "token", format!("{error}"));
                Start::Token(Token::decode(&token).map_err(bad)?)
            }
        };
        let heartbeat = heartbeat(&self.0, request.heartbeat)?;
        Ok(SubscribeOptions {
            filter: Filter {
                feeds: filter.feeds.into_iter().collect(),
                channels: filter.channels.into_iter().collect(),
                rules: filter.rules.into_iter().collect(),
                instances,
            },
            start,
            heartbeat,
        })
    }

    /// A subscription to a rule that is not there would wait for ever: most likely a typing error.
    pub(super) async fn known_rules(&self, rules: &[String]) -> Result<(), Status> {
        if rules.is_empty() {
            return Ok(());
        }
        let topology = self.0.topology.load_full();
        let Some(home) = topology.nodes.get(&topology.map.home) else {
            return Ok(());
        };
        // With the home down alerts are delivered all the same: the names are not checked then.
        let instance = home.instance.load_full();
        let limit = self.0.config.postgres.connect_timeout;
        let Ok(set) = within(limit, home.name, instance.rules()).await else {
            return Ok(());
        };
        let missing = rules
            .iter()
            .find(|name| !set.rules.iter().any(|row| row.rule.name == **name));
        match missing {
            None => Ok(()),
            Some(name) => Err(status::bad_field(
                "UNKNOWN_RULE",
                "filter.rules",
                format!("there is no rule {name:?}: `pgbraid rules list` shows those there are"),
            )),
        }
    }
}

/// The interval of heartbeats that a subscriber gets.
pub(super) fn heartbeat(
    shared: &Shared,
    wanted: Option<prost_types::Duration>,
) -> Result<Duration, Status> {
    let Some(wanted) = wanted else {
        return Ok(shared.config.alerts.heartbeat);
    };
    Duration::try_from(wanted)
        .ok()
        .filter(|heartbeat| *heartbeat >= Duration::from_millis(100))
        .ok_or_else(|| status::bad_field("BAD_HEARTBEAT", "heartbeat", "must be at least 100 ms"))
}

async fn deliver(
    shared: Arc<Shared>,
    mut subscription: Subscription,
    events: mpsc::Sender<Result<v1::SubscribeResponse, Status>>,
) {
    let mut draining = shared.draining.subscribe();
    let each = shared.topology.load().nodes.len() <= TOKEN_ON_EACH;
    loop {
        // A place first: what next() returned must not be dropped.
        let place = tokio::select! {
            place = events.reserve() => place,
            _ = draining.wait_for(|draining| *draining) => break,
        };
        let Ok(place) = place else {
            return;
        };
        let event = tokio::select! {
            event = subscription.next() => event,
            () = events.closed() => return,
            _ = draining.wait_for(|draining| *draining) => break,
        };
        let token = match &event {
            Event::Heartbeat { token, .. } => token.clone(),
            _ if each => subscription.token().encode(),
            _ => String::new(),
        };
        place.send(Ok(v1::SubscribeResponse {
            event: Some(wire(event)),
            token,
        }));
    }
    let draining = status::later(
        tonic::Code::Unavailable,
        "DRAINING",
        "the router stops: subscribe again with the last token".into(),
        Duration::from_millis(500),
    );
    let limit = Duration::from_secs(1);
    let _ = tokio::time::timeout(limit, events.send(Err(draining))).await;
}

/// From when alerts are wanted. Clocks differ a little; a time well ahead is a mistake.
pub(super) fn time_us(time: prost_types::Timestamp, field: &str) -> Result<i64, Status> {
    let bad = |what: String| status::bad_field("BAD_TIME", field, what);
    let at = SystemTime::try_from(time).map_err(|error| bad(error.to_string()))?;
    if at > SystemTime::now() + Duration::from_secs(60) {
        return Err(bad(format!(
            "{time} is in the future: give the time from which alerts are wanted, or now"
        )));
    }
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).map_err(|_| bad(format!("{time} is out of range")))
}

pub(super) fn time(us: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: us.div_euclid(1_000_000),
        nanos: (us.rem_euclid(1_000_000) * 1000) as i32,
    }
}

pub(super) fn wire_alert(alert: &Alert) -> v1::Alert {
    v1::Alert {
        instance: alert.instance.to_string(),
        seq: alert.seq,
        feed: alert.feed.to_string(),
        rule: alert.rule.to_string(),
        rule_version: alert.rule_version,
        channel: alert.channel.to_string(),
        reason: alert.reason.to_string(),
        key: alert.key.clone(),
        row: alert.row.clone(),
        raised_at: Some(time(alert.raised_at_us)),
        resolved: alert.resolved,
    }
}

fn wire(event: Event) -> Wire {
    match event {
        Event::Alert(alert) => Wire::Alert(wire_alert(&alert)),
        Event::Notification {
            instance,
            channel,
            payload,
            pid,
            ..
        } => Wire::Notification(v1::Notification {
            instance: instance.to_string(),
            channel: channel.to_string(),
            payload: payload.to_string(),
            pid,
        }),
        Event::Gap { instance, reason } => Wire::Gap(v1::Gap {
            instance: instance.to_string(),
            reason: reason.to_string(),
        }),
        Event::InstanceDown { instance, reason } => Wire::InstanceStatus(v1::InstanceStatus {
            instance: instance.to_string(),
            readable: false,
            reason: reason.to_string(),
        }),
        Event::InstanceUp { instance } => Wire::InstanceStatus(v1::InstanceStatus {
            instance: instance.to_string(),
            readable: true,
            reason: String::new(),
        }),
        Event::Rewound { instance, reason } => Wire::Rewound(v1::Rewound {
            instance: instance.to_string(),
            reason: reason.to_string(),
        }),
        Event::Dropped {
            instance,
            alerts,
            raised_until_us,
            reason,
        } => Wire::Dropped(v1::Dropped {
            instance: instance.to_string(),
            alerts,
            raised_until: Some(time(raised_until_us)),
            reason: reason.to_string(),
        }),
        Event::Heartbeat { progress, .. } => Wire::Heartbeat(v1::Heartbeat {
            progress: progress
                .into_iter()
                .map(|one| v1::Progress {
                    instance: one.instance.to_string(),
                    state: match one.state {
                        ReadState::Live => v1::progress::State::Live,
                        ReadState::CatchingUp => v1::progress::State::CatchingUp,
                        ReadState::Down => v1::progress::State::Down,
                    }
                    .into(),
                    read_at: one.read_at_us.map(time),
                })
                .collect(),
        }),
    }
}

/// Now, as the protocol has it.
pub(crate) fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    at.into()
}
