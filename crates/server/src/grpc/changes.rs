//! The service `Changes`.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use pgbraid_alerts::{Change, ChangeEvent, ChangeFollower, ChangeOp, ChangeOptions};
use pgbraid_proto::v1::{
    self, changes_server::Changes, column::Values, follow_response::Event as Wire,
};
use pgbraid_shardmap::InstanceName;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{alerts::time, rows, status};
use crate::state::Shared;

/// Events between a follower and its connection, each of a few thousand keys at most. Beyond these
/// the follower is not asked, and falls behind until it is told RESET.
const BUFFERED: usize = 16;

pub(crate) struct Service(pub Arc<Shared>);

#[tonic::async_trait]
impl Changes for Service {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<v1::FollowResponse, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let request = request.into_inner();
        let following = self.following(&request)?;
        let heartbeat = super::alerts::heartbeat(&self.0, request.heartbeat)?;
        let options = ChangeOptions {
            feeds: following.feeds.iter().map(|one| one.feed.clone()).collect(),
            heartbeat,
        };
        let follower = self.0.hub.follow_changes(options).map_err(|error| {
            status::later(
                tonic::Code::ResourceExhausted,
                "TOO_MANY_SUBSCRIBERS",
                error.to_string(),
                Duration::from_secs(5),
            )
        })?;
        let (send, events) = mpsc::channel(BUFFERED);
        let delivery = Delivery {
            shared: self.0.clone(),
            rows: request.rows.then_some(request.columns),
        };
        tokio::spawn(delivery.run(following, follower, send));
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }
}

impl Service {
    /// What is to be followed: checked.
    fn following(&self, request: &v1::FollowRequest) -> Result<v1::Following, Status> {
        let tracked = self.0.hub.tracked_feeds();
        for (at, feed) in request.feeds.iter().enumerate() {
            let field = format!("feeds[{at}]");
            self.0.schema_at(feed, &field)?;
            if tracked
                .as_ref()
                .is_some_and(|feeds| !feeds.contains(feed.as_str()))
            {
                return Err(status::bad_field(
                    "CHANGES_NOT_TOLD",
                    field,
                    format!(
                        "feed {feed} does not tell of its changes: write `changes = true` into \
                         [feeds.{feed}] of the shard map and run `pgbraid migrate`"
                    ),
                ));
            }
        }
        let feeds: Vec<String> = match request.feeds.is_empty() {
            true => tracked.iter().flatten().map(ToString::to_string).collect(),
            false => request.feeds.clone(),
        };
        if feeds.is_empty() && tracked.is_none() {
            return Err(status::later(
                tonic::Code::Unavailable,
                "INSTANCES_NOT_HEARD",
                "not every instance is heard yet: name the feeds, or try again".into(),
                Duration::from_secs(1),
            ));
        }
        if feeds.is_empty() {
            return Err(status::bad_field(
                "CHANGES_NOT_TOLD",
                "feeds",
                "no feed tells of its changes: write `changes = true` into its section of the \
                 shard map and run `pgbraid migrate`",
            ));
        }
        let mut following = v1::Following::default();
        for feed in feeds {
            let schema = self.0.schema_at(&feed, "feeds")?;
            if request.rows {
                rows::wanted(&schema, &request.columns, true)?;
            }
            following.feeds.push(v1::FollowedFeed {
                feed,
                key_column: schema.key.name.clone(),
                key_type: schema.key.ty.to_string(),
            });
        }
        Ok(following)
    }
}

type Events = mpsc::Sender<Result<v1::FollowResponse, Status>>;

struct Delivery {
    shared: Arc<Shared>,
    /// The columns of the rows that are to be sent as well.
    rows: Option<Vec<String>>,
}

impl Delivery {
    async fn run(self, following: v1::Following, mut follower: ChangeFollower, events: Events) {
        let mut draining = self.shared.draining.subscribe();
        let deliver = async {
            let first = Wire::Following(following);
            let _ = events.send(Ok(response(first))).await;
            // A place first: nobody reads rows for a subscriber that takes nothing.
            while let Ok(place) = events.reserve().await {
                let event = follower.next().await;
                match self.wire(event).await {
                    Ok(event) => place.send(Ok(response(event))),
                    Err((instance, error)) => {
                        // Without its rows a change would look like a deletion.
                        place.send(Ok(response(reset(instance, error.message()))));
                        let live = v1::ChangeLive {
                            instance: instance.to_string(),
                        };
                        let _ = events.send(Ok(response(Wire::Live(live)))).await;
                    }
                }
            }
        };
        tokio::select! {
            () = deliver => return,
            () = events.closed() => return,
            _ = draining.wait_for(|draining| *draining) => {}
        }
        let draining = status::later(
            tonic::Code::Unavailable,
            "DRAINING",
            "the router stops: follow another one".into(),
            Duration::from_millis(500),
        );
        let limit = Duration::from_secs(1);
        let _ = tokio::time::timeout(limit, events.send(Err(draining))).await;
    }

    async fn wire(&self, event: ChangeEvent) -> Result<Wire, (InstanceName, Status)> {
        Ok(match event {
            ChangeEvent::Changes { instance, changes } => {
                let mut changes: Vec<v1::KeyChanges> =
                    changes.iter().map(|change| keys(change)).collect();
                if let Some(columns) = &self.rows {
                    let read = self.read(&mut changes, columns).await;
                    read.map_err(|error| (instance, error))?;
                }
                Wire::Changes(v1::ChangeBatch {
                    instance: instance.to_string(),
                    changes,
                })
            }
            ChangeEvent::Reset {
                instance,
                feed,
                reason,
            } => match feed {
                None => reset(instance, &reason),
                Some(feed) => Wire::Reset(v1::ChangeReset {
                    instance: instance.to_string(),
                    feed: feed.to_string(),
                    reason: reason.to_string(),
                }),
            },
            ChangeEvent::Live { instance } => Wire::Live(v1::ChangeLive {
                instance: instance.to_string(),
            }),
            ChangeEvent::Heartbeat { progress } => Wire::Heartbeat(v1::ChangeHeartbeat {
                progress: progress
                    .into_iter()
                    .map(|one| v1::ChangeProgress {
                        instance: one.instance.to_string(),
                        live: one.live,
                        complete_until: one.complete_until_us.map(time),
                        lag: one.lag.and_then(|lag| lag.try_into().ok()),
                    })
                    .collect(),
            }),
        })
    }

    /// Reads the rows of inserts and updates, all of a feed at once.
    async fn read(&self, changes: &mut [v1::KeyChanges], columns: &[String]) -> Result<(), Status> {
        let mut feeds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, change) in changes.iter().enumerate() {
            if change.operation() != v1::ChangeOperation::Delete {
                feeds.entry(change.feed.clone()).or_default().push(at);
            }
        }
        for (feed, places) in feeds {
            let keys = places
                .iter()
                .flat_map(|at| changes[*at].keys.iter().cloned());
            let texts = v1::Texts {
                values: keys.collect(),
            };
            let keys = v1::Column {
                values: Some(Values::Texts(texts)),
                ..v1::Column::default()
            };
            let schema = self.shared.schema(&feed)?;
            let service = rows::Service(self.shared.clone());
            let mut rows = service
                .read_keys(&schema, &keys, columns)
                .await?
                .into_iter();
            for at in places {
                let change = &mut changes[at];
                change.rows = rows
                    .by_ref()
                    .take(change.keys.len())
                    .map(|row| row.json)
                    .collect();
            }
        }
        Ok(())
    }
}

fn response(event: Wire) -> v1::FollowResponse {
    v1::FollowResponse { event: Some(event) }
}

fn reset(instance: InstanceName, reason: &str) -> Wire {
    Wire::Reset(v1::ChangeReset {
        instance: instance.to_string(),
        feed: String::new(),
        reason: reason.to_owned(),
    })
}

fn keys(change: &Change) -> v1::KeyChanges {
    let operation = match change.op {
        ChangeOp::Insert => v1::ChangeOperation::Insert,
        ChangeOp::Update => v1::ChangeOperation::Update,
        ChangeOp::Delete => v1::ChangeOperation::Delete,
    };
    v1::KeyChanges {
        feed: change.feed.to_string(),
        operation: operation.into(),
        keys: change.keys.iter().map(str::to_owned).collect(),
        columns: change.columns.as_ref().map(|columns| v1::ChangedColumns {
            names: columns.iter().map(str::to_owned).collect(),
        }),
        rows: Vec::new(),
    }
}
