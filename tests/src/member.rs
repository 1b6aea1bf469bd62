//! A member of a group, and alerts for it.

use std::collections::VecDeque;

use pgbraid_proto::v1::{
    self, consume_request::Request as Asked, consume_response::Response as Told, settlement::How,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{Cluster, Router, rows, wait::limited};

/// A member on a stream.
pub struct Member {
    requests: mpsc::Sender<v1::ConsumeRequest>,
    responses: Streaming<v1::ConsumeResponse>,
    deliveries: VecDeque<v1::Delivery>,
    settled: VecDeque<v1::SettleResult>,
}

impl Member {
    /// Joins a group.
    ///
    /// # Errors
    /// If it may not.
    pub async fn join(
        router: &Router,
        group: &str,
        member: &str,
        max_in_flight: u32,
    ) -> Result<Self, Status> {
        Self::join_at(&router.grpc, group, member, max_in_flight).await
    }

    /// As [`Self::join`], by the router's address.
    ///
    /// # Errors
    /// If it may not, or there is no router.
    pub async fn join_at(
        address: &str,
        group: &str,
        member: &str,
        max_in_flight: u32,
    ) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(64);
        let join = v1::Join {
            group: group.into(),
            member: member.into(),
            max_in_flight,
        };
        let join = v1::ConsumeRequest {
            request: Some(Asked::Join(join)),
        };
        requests.send(join).await.expect("there is room");
        let responses = rows::alerts_at(address)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?
            .consume(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        Ok(Self {
            requests,
            responses,
            deliveries: VecDeque::new(),
            settled: VecDeque::new(),
        })
    }

    /// Leaves: what it holds goes to others as if it had not been delivered.
    ///
    /// # Panics
    /// If the router does not end the stream.
    pub async fn leave(self) {
        drop(self.requests);
        let mut responses = self.responses;
        let end = async { while let Ok(Some(_)) = responses.message().await {} };
        limited("the end of the stream", end).await;
    }

    async fn receive(&mut self) -> Result<(), Status> {
        let response = limited("a response", self.responses.message()).await?;
        let response = response.ok_or_else(|| Status::unavailable("the stream has ended"))?;
        match response.response {
            Some(Told::Deliveries(some)) => self.deliveries.extend(some.deliveries),
            Some(Told::Settled(some)) => self.settled.extend(some.results),
            _ => {}
        }
        Ok(())
    }

    /// The next delivery.
    ///
    /// # Errors
    /// If the stream breaks.
    pub async fn next(&mut self) -> Result<v1::Delivery, Status> {
        loop {
            if let Some(delivery) = self.deliveries.pop_front() {
                return Ok(delivery);
            }
            self.receive().await?;
        }
    }

    /// Those that have come; at least one.
    ///
    /// # Errors
    /// If the stream breaks.
    pub async fn some(&mut self) -> Result<Vec<v1::Delivery>, Status> {
        let first = self.next().await?;
        let mut some = vec![first];
        some.extend(self.deliveries.drain(..));
        Ok(some)
    }

    /// The next `count` deliveries.
    ///
    /// # Panics
    /// If they do not come.
    pub async fn take(&mut self, count: usize) -> Vec<v1::Delivery> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            taken.push(self.next().await.expect("a delivery comes"));
        }
        taken
    }

    /// Says something of deliveries.
    ///
    /// # Errors
    /// If the stream is broken.
    pub async fn say(&mut self, ids: Vec<String>, how: How) -> Result<(), Status> {
        let settlement = v1::Settlement {
            ids,
            how: Some(how),
        };
        let request = v1::ConsumeRequest {
            request: Some(Asked::Settlement(settlement)),
        };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| Status::unavailable("the stream has ended"))
    }

    /// The next answer to a settlement.
    ///
    /// # Errors
    /// If the stream breaks.
    pub async fn answer(&mut self) -> Result<v1::SettleResult, Status> {
        loop {
            if let Some(result) = self.settled.pop_front() {
                return Ok(result);
            }
            self.receive().await?;
        }
    }

    /// An answer that has come already.
    pub fn heard(&mut self) -> Option<v1::SettleResult> {
        self.settled.pop_front()
    }

    /// Settles deliveries and waits for the answers, in the order in which they come.
    ///
    /// # Panics
    /// If they do not come.
    pub async fn settle(&mut self, ids: Vec<String>, how: How) -> Vec<v1::SettleResult> {
        let count = ids.len();
        self.say(ids, how).await.expect("the stream works");
        let mut results = Vec::with_capacity(count);
        while results.len() < count {
            results.push(self.answer().await.expect("an answer comes"));
        }
        results
    }
}

/// How to ack.
pub fn ack() -> How {
    How::Ack(v1::Ack {})
}

/// The settings of a group that has a name and the defaults.
pub fn group(name: &str) -> v1::Group {
    v1::Group {
        name: name.into(),
        ..Default::default()
    }
}

impl Cluster {
    /// Makes a group that starts with the oldest alert.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn put_group(&self, router: &Router, group: v1::Group) {
        let start = v1::Position {
            at: Some(v1::position::At::Earliest(v1::Earliest {})),
        };
        let answer = rows::alerts(router)
            .await
            .put_group(v1::PutGroupRequest {
                group: Some(group),
                expected_version: None,
                start: Some(start),
            })
            .await
            .expect("the group is taken")
            .into_inner();
        assert!(answer.pending.is_empty(), "pending: {:?}", answer.pending);
    }

    /// Raises alerts as a rule's trigger does, in one transaction: number `i` has the key `i % keys`.
    ///
    /// # Panics
    /// If the instance does not take them.
    pub async fn raise(&self, instance: usize, count: i64, keys: i64) {
        let client = self.sql(instance).await;
        let sql = "insert into pgbraid.alert \
                   (feed, rule, rule_version, channel, reason, key, \"row\") \
                   select 'feed', 'r', 1, 'c', 'why', (i % $2::int8)::text, json_build_object('id', i) \
                   from generate_series(1, $1::int8) i";
        client
            .execute(sql, &[&count, &keys])
            .await
            .expect("alerts are raised");
        client
            .batch_execute("notify pgbraid_alert")
            .await
            .expect("a notification");
    }
}

/// The id of an alert.
pub fn alert_id(delivery: &v1::Delivery) -> (String, i64) {
    let alert = delivery.alert.as_ref().expect("a delivery has an alert");
    (alert.instance.clone(), alert.seq)
}
