//! Members of groups: the stream `Consume`, and `Pull`.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use pgbraid_alerts::{Consumer, ConsumerEvent, ConsumerOptions, Delivery, DeliveryId};
use pgbraid_instance::GroupRow;
use pgbraid_proto::v1::{
    self, consume_request::Request as Asked, consume_response::Response as Told,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    alerts::{Service, time, wire_alert},
    groups, status,
};
use crate::state::Shared;

/// Responses between a member and its connection.
const BUFFERED: usize = 16;
/// Settlements that may wait for their instances; beyond these the stream is not read.
const MAX_UNSETTLED: usize = 20_000;
/// How long a member that leaves may take to give back what it holds.
const LEAVING: Duration = Duration::from_secs(5);
/// Longest that a member has to say which group it joins.
const JOINING: Duration = Duration::from_secs(10);
const IN_FLIGHT: u32 = 100;
const MAX_IN_FLIGHT: u32 = 10_000;
const MAX_PULL: u32 = 1000;
const MAX_WAIT: Duration = Duration::from_secs(60);
const MAX_MEMBER: usize = 200;

pub(super) type ConsumeStream =
    Pin<Box<dyn Stream<Item = Result<v1::ConsumeResponse, Status>> + Send>>;
type Responses = mpsc::Sender<Result<v1::ConsumeResponse, Status>>;

fn wire(delivery: &Delivery) -> v1::Delivery {
    v1::Delivery {
        alert: Some(wire_alert(&delivery.alert)),
        id: delivery.id.to_string(),
        delivery: delivery.delivery,
        deadline: Some(time(delivery.deadline_us)),
    }
}

fn told(event: ConsumerEvent) -> Told {
    match event {
        ConsumerEvent::Deliveries(deliveries) => Told::Deliveries(v1::Deliveries {
            deliveries: deliveries.iter().map(wire).collect(),
        }),
        ConsumerEvent::Settled(results) => Told::Settled(v1::Settled {
            results: results
                .into_iter()
                .map(|(id, settled)| groups::wire_settled(&id, settled))
                .collect(),
        }),
        ConsumerEvent::InstanceDown(instance, reason) => Told::InstanceStatus(v1::InstanceStatus {
            instance: instance.to_string(),
            readable: false,
            reason: reason.to_string(),
        }),
        ConsumerEvent::InstanceUp(instance) => Told::InstanceStatus(v1::InstanceStatus {
            instance: instance.to_string(),
            readable: true,
            reason: String::new(),
        }),
    }
}

fn draining() -> Status {
    status::later(
        Code::Unavailable,
        "DRAINING",
        "the router stops: join again, at another one".into(),
        Duration::from_millis(500),
    )
}

impl Service {
    fn consumer(
        &self,
        row: &GroupRow,
        member: String,
        max_in_flight: u32,
    ) -> Result<Consumer, Status> {
        if member.len() > MAX_MEMBER || member.contains('\0') {
            return Err(status::bad_field(
                "BAD_MEMBER",
                "member",
                format!("must have at most {MAX_MEMBER} bytes, and none of them 0"),
            ));
        }
        let instances = row.spec.instances.iter();
        let options = ConsumerOptions {
            group: row.spec.name.clone(),
            member,
            max_in_flight,
            instances: instances.filter_map(|name| name.parse().ok()).collect(),
        };
        let consumer = self.0.hub.consume(options);
        consumer.map_err(|error| groups::too_many(&error))
    }

    pub(super) async fn do_consume(
        &self,
        mut requests: Streaming<v1::ConsumeRequest>,
    ) -> Result<ConsumeStream, Status> {
        let first = tokio::time::timeout(JOINING, requests.message()).await;
        let first = first.map_err(|_| {
            status::bad_field(
                "NOT_JOINED",
                "request",
                "nothing came: the first message joins",
            )
        })??;
        let Some(Asked::Join(join)) = first.and_then(|first| first.request) else {
            return Err(status::bad_field(
                "NOT_JOINED",
                "request",
                "the first message must join a group",
            ));
        };
        let row = self.group(&join.group).await?;
        let max_in_flight = match join.max_in_flight {
            0 => IN_FLIGHT,
            some if some <= MAX_IN_FLIGHT => some,
            _ => {
                return Err(status::bad_field(
                    "BAD_MAX_IN_FLIGHT",
                    "join.max_in_flight",
                    format!("must be 1 to {MAX_IN_FLIGHT}, or 0 for {IN_FLIGHT}"),
                ));
            }
        };
        let consumer = self.consumer(&row, join.member, max_in_flight)?;
        let (send, responses) = mpsc::channel(BUFFERED);
        let member = Member {
            shared: self.0.clone(),
            group: row,
            consumer,
            requests,
            responses: send,
        };
        tokio::spawn(member.run());
        Ok(Box::pin(ReceiverStream::new(responses)))
    }

    pub(super) async fn do_pull(
        &self,
        request: v1::PullRequest,
    ) -> Result<v1::PullResponse, Status> {
        let row = self.group(&request.group).await?;
        let max = match request.max {
            0 => IN_FLIGHT,
            some if some <= MAX_PULL => some,
            _ => {
                return Err(status::bad_field(
                    "BAD_MAX",
                    "max",
                    format!("must be 1 to {MAX_PULL}, or 0 for {IN_FLIGHT}"),
                ));
            }
        };
        let wait = match request.wait {
            None => Duration::ZERO,
            Some(wait) => Duration::try_from(wait)
                .ok()
                .filter(|wait| *wait <= MAX_WAIT)
                .ok_or_else(|| {
                    status::bad_field("BAD_WAIT", "wait", format!("must be 0 to {MAX_WAIT:?}"))
                })?,
        };
        let mut consumer = self.consumer(&row, request.member, max)?;
        let (answer, answered) = oneshot::channel();
        let mut drain = self.0.draining.subscribe();
        // A task, so that what was claimed for a client that has gone is given back.
        tokio::spawn(async move {
            let deliveries = tokio::select! {
                deliveries = consumer.pull(wait) => deliveries,
                _ = drain.wait_for(|draining| *draining) => Vec::new(),
            };
            if answer.send(deliveries).is_ok() {
                consumer.detach();
            } else {
                consumer.leave(LEAVING, "the client had gone", false).await;
            }
        });
        let deliveries = answered.await.unwrap_or_default();
        Ok(v1::PullResponse {
            deliveries: deliveries.iter().map(wire).collect(),
        })
    }
}

struct Member {
    shared: Arc<Shared>,
    group: GroupRow,
    consumer: Consumer,
    requests: Streaming<v1::ConsumeRequest>,
    responses: Responses,
}

/// How a member ended its stream.
enum End {
    Left,
    Lost,
}

impl Member {
    async fn run(mut self) {
        let end = self.serve().await;
        let (reason, lost) = match &end {
            Ok(End::Left) => ("the member left".to_owned(), false),
            Ok(End::Lost) => ("the connection to the member was lost".to_owned(), true),
            Err(status) => {
                let ours = *self.shared.draining.borrow();
                (status.message().to_owned(), !ours)
            }
        };
        if let Err(status) = end {
            let sent = self.responses.send(Err(status));
            let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
        }
        self.consumer.leave(LEAVING, &reason, lost).await;
    }

    /// Err: the member is sent away.
    async fn serve(&mut self) -> Result<End, Status> {
        let mut drain = self.shared.draining.subscribe();
        let mut heartbeat = tokio::time::interval(self.shared.config.alerts.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A place first: what next() returned must not be dropped.
        let responses = self.responses.clone();
        let mut place = None;
        loop {
            let room = self.consumer.unsettled() < MAX_UNSETTLED;
            let mut asked = None;
            tokio::select! {
                _ = drain.wait_for(|draining| *draining) => return Err(draining()),
                () = responses.closed() => return Ok(End::Lost),
                request = self.requests.message(), if room => match request {
                    Ok(Some(request)) => asked = Some(request),
                    Ok(None) => return Ok(End::Left),
                    Err(_) => return Ok(End::Lost),
                },
                got = responses.reserve(), if place.is_none() => match got {
                    Ok(got) => place = Some(got),
                    Err(_) => return Ok(End::Lost),
                },
                event = self.consumer.next(), if place.is_some() => {
                    if let Some(place) = place.take() {
                        place.send(Ok(v1::ConsumeResponse { response: Some(told(event)) }));
                    }
                }
                _ = heartbeat.tick() => {
                    let name = &self.group.spec.name;
                    let known = self.shared.groups.find(name);
                    if known.is_none_or(|known| known.created_at_us != self.group.created_at_us) {
                        let gone = format!("the group {name:?} was removed");
                        return Err(status::not_found("UNKNOWN_GROUP", gone));
                    }
                    if let Some(place) = place.take() {
                        let heartbeat = Told::Heartbeat(v1::ConsumeHeartbeat {});
                        place.send(Ok(v1::ConsumeResponse { response: Some(heartbeat) }));
                    }
                }
            }
            if let Some(request) = asked {
                // Before the place that is held, which it would wait for.
                place = None;
                self.take(request).await?;
            }
        }
    }

    async fn take(&mut self, request: v1::ConsumeRequest) -> Result<(), Status> {
        let settlement = match request.request {
            Some(Asked::Settlement(settlement)) => settlement,
            Some(Asked::Join(_)) => {
                return Err(status::bad_field("JOINED", "join", "it has joined already"));
            }
            None => {
                return Err(status::bad_field(
                    "EMPTY",
                    "request",
                    "there is nothing in it",
                ));
            }
        };
        let how = groups::settle(settlement.how, self.group.spec.visibility)?;
        let mut invalid = Vec::new();
        for id in settlement.ids {
            match id.parse::<DeliveryId>() {
                Ok(id) => self.consumer.settle(id, how.clone()),
                Err(error) => invalid.push(groups::invalid_id(id, &error)),
            }
        }
        if !invalid.is_empty() {
            let settled = Told::Settled(v1::Settled { results: invalid });
            let response = v1::ConsumeResponse {
                response: Some(settled),
            };
            // Bounded by the client reading its answers, as everything here is.
            let _ = self.responses.send(Ok(response)).await;
        }
        Ok(())
    }
}
