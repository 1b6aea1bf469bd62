//! The methods of the service `Alerts` about groups: settings, standing, positions, dead letters.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use pgbraid_alerts::{DeliveryId, Settle, Settled, Token};
use pgbraid_instance::{DbError, DeadLetterRow, GroupRow, GroupSpec, GroupStanding};
use pgbraid_proto::v1::{self, position, settle_result::Outcome, settlement::How};
use pgbraid_shardmap::InstanceName;
use tonic::{Code, Status};

use super::{alerts::Service, alerts::time, status};
use crate::{
    groups::{self, Start},
    node::{Node, within},
};

/// Longest wait for an instance.
const LIMIT: Duration = Duration::from_secs(10);
const MAX_NAME: usize = 63;
const VISIBILITY: Duration = Duration::from_secs(30);
const MAX_VISIBILITY: Duration = Duration::from_secs(24 * 3600);
const MAX_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);
const DELIVERIES: u32 = 5;
const MAX_REASON: usize = 1000;
/// The most dead letters of one answer, and settlements of one request.
const MAX_LETTERS: u32 = 1000;
const MAX_SETTLEMENTS: usize = 10_000;

fn duration(
    wire: Option<prost_types::Duration>,
    field: &str,
    range: (Duration, Duration),
) -> Result<Option<Duration>, Status> {
    let Some(wire) = wire else { return Ok(None) };
    let (least, most) = range;
    Duration::try_from(wire)
        .ok()
        .filter(|duration| (least..=most).contains(duration))
        .map(Some)
        .ok_or_else(|| {
            status::bad_field(
                "BAD_DURATION",
                field,
                format!("must be {least:?} to {most:?}"),
            )
        })
}

pub(super) fn group_name(name: &str, field: &str) -> Result<(), Status> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        return Err(status::bad_field(
            "BAD_GROUP_NAME",
            field,
            format!(
                "{name:?} is no name for a group: 1 to {MAX_NAME} letters, digits, '_', '-' or '.'"
            ),
        ));
    }
    Ok(())
}

fn no_group(name: &str) -> Status {
    status::not_found(
        "UNKNOWN_GROUP",
        format!("there is no group {name:?}: `pgbraid alerts groups` shows those there are"),
    )
}

fn wire_group(row: &GroupRow) -> v1::Group {
    let spec = &row.spec;
    v1::Group {
        name: spec.name.clone(),
        filter: Some(v1::Filter {
            feeds: spec.feeds.clone(),
            channels: spec.channels.clone(),
            rules: spec.rules.clone(),
            instances: spec.instances.clone(),
        }),
        visibility_timeout: spec.visibility.try_into().ok(),
        max_deliveries: spec.max_deliveries,
        order_by_key: spec.order_by_key,
        paused: spec.paused,
        version: row.version,
        created_at: Some(time(row.created_at_us)),
        updated_at: Some(time(row.updated_at_us)),
    }
}

fn wire_letter(group: &str, instance: InstanceName, row: DeadLetterRow) -> v1::DeadLetter {
    let alert = row.alert;
    v1::DeadLetter {
        group: group.to_owned(),
        id: format!("{instance}/{}", alert.seq),
        reason: row.reason,
        deliveries: row.deliveries,
        died_at: Some(time(row.died_at_us)),
        history: row
            .history
            .into_iter()
            .map(|one| v1::Attempt {
                delivery: one.delivery,
                member: one.member,
                delivered_at: Some(time(one.delivered_at_us)),
                ended_at: Some(time(one.ended_at_us)),
                how: one.how,
                reason: one.reason,
            })
            .collect(),
        alert: Some(v1::Alert {
            instance: instance.to_string(),
            seq: alert.seq,
            feed: alert.feed,
            rule: alert.rule,
            rule_version: alert.rule_version,
            channel: alert.channel,
            reason: alert.reason,
            key: alert.key,
            row: alert.row,
            raised_at: Some(time(alert.raised_at_us)),
            resolved: alert.resolved,
        }),
    }
}

fn wire_standing(instance: InstanceName, one: GroupStanding) -> v1::GroupInstance {
    v1::GroupInstance {
        instance: instance.to_string(),
        lag_alerts: one.lag_alerts,
        lag: one.lag.try_into().ok(),
        in_flight: one.in_flight,
        delayed: one.delayed,
        waiting: one.waiting,
        dead: one.dead,
        oldest_unacked: one.oldest_unacked.try_into().ok(),
        dropped: one.dropped,
    }
}

/// `db3/17`, the id of a dead letter.
fn letter_id(text: &str, field: &str) -> Result<(InstanceName, i64), Status> {
    text.split_once('/')
        .and_then(|(name, seq)| Some((name.parse().ok()?, seq.parse().ok()?)))
        .ok_or_else(|| {
            status::bad_field(
                "BAD_ID",
                field,
                format!("{text:?} is not the id of a dead letter, which is like db3/17"),
            )
        })
}

fn reason(text: String, field: &str) -> Result<String, Status> {
    if text.len() > MAX_REASON || text.contains('\0') {
        return Err(status::bad_field(
            "BAD_REASON",
            field,
            format!("must have at most {MAX_REASON} bytes, and none of them 0"),
        ));
    }
    Ok(text)
}

/// What a settlement says, apart from its ids.
pub(super) fn settle(how: Option<How>, visibility: Duration) -> Result<Settle, Status> {
    let long = (Duration::ZERO, MAX_DELAY);
    match how {
        None => Err(status::bad_field(
            "EMPTY_SETTLEMENT",
            "settlement.how",
            "one of ack, nack, extend, terminate must be set",
        )),
        Some(How::Ack(_)) => Ok(Settle::Ack),
        Some(How::Nack(nack)) => Ok(Settle::Nack {
            delay: duration(nack.delay, "nack.delay", long)?.unwrap_or_default(),
            reason: reason(nack.reason, "nack.reason")?,
        }),
        Some(How::Terminate(terminate)) => Ok(Settle::Terminate {
            reason: reason(terminate.reason, "terminate.reason")?,
        }),
        Some(How::Extend(extend)) => {
            let most = (Duration::from_millis(1), MAX_VISIBILITY);
            let by = duration(extend.by, "extend.by", most)?.unwrap_or(visibility);
            Ok(Settle::Extend { by })
        }
    }
}

pub(super) fn wire_settled(id: &DeliveryId, settled: Settled) -> v1::SettleResult {
    let (outcome, reason) = match settled {
        Settled::Done => (Outcome::Settled, String::new()),
        Settled::Stale => (
            Outcome::Stale,
            "settled before, or gone to another member".into(),
        ),
        Settled::Unavailable(why) => (Outcome::Unavailable, why.to_string()),
    };
    v1::SettleResult {
        id: id.to_string(),
        outcome: outcome.into(),
        reason,
    }
}

pub(super) fn invalid_id(id: String, why: &dyn std::fmt::Display) -> v1::SettleResult {
    v1::SettleResult {
        id,
        outcome: Outcome::Invalid.into(),
        reason: why.to_string(),
    }
}

/// What each of several instances answered.
type Answers<T> = (Vec<(InstanceName, T)>, Vec<v1::InstanceError>);

impl Service {
    /// The group, read again from the instances if it is not known here.
    pub(super) async fn group(&self, name: &str) -> Result<GroupRow, Status> {
        group_name(name, "group")?;
        if let Some(row) = self.0.groups.find(name) {
            return Ok(row);
        }
        groups::refresh(&self.0)
            .await
            .map_err(|error| status::database(&error))?;
        self.0.groups.find(name).ok_or_else(|| no_group(name))
    }

    async fn ask_all<T, F>(&self, ask: impl Fn(std::sync::Arc<Node>) -> F) -> Answers<T>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let topology = self.0.topology.load_full();
        let asked = topology.nodes.values().map(|node| {
            let answer = ask(node.clone());
            async move { (node.name, within(LIMIT, node.name, answer).await) }
        });
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for (name, answer) in join_all(asked).await {
            match answer {
                Ok(answer) => found.push((name, answer)),
                Err(error) => failed.push(v1::InstanceError {
                    instance: name.to_string(),
                    reason: error.to_string(),
                }),
            }
        }
        (found, failed)
    }

    fn start(&self, wire: Option<v1::Position>, field: &str) -> Result<Start, Status> {
        Ok(match wire.and_then(|position| position.at) {
            None | Some(position::At::Now(_)) => Start::Now,
            Some(position::At::Earliest(_)) => Start::Earliest,
            Some(position::At::Time(at)) => {
                Start::Time(super::alerts::time_us(at, &format!("{field}.time"))?)
            }
            Some(position::At::Token(text)) => {
                let bad = |error| {
                    status::bad_field("BAD_TOKEN", format!("{field}.token"), format!("{error}"))
                };
                let token = Token::decode(&text).map_err(bad)?;
                token
                    .check_cluster(self.0.cluster.as_bytes())
                    .map_err(bad)?;
                Start::Token(Box::new(token))
            }
        })
    }

    pub(super) async fn do_put_group(
        &self,
        request: v1::PutGroupRequest,
    ) -> Result<v1::PutGroupResponse, Status> {
        let group = request
            .group
            .ok_or_else(|| status::bad_field("EMPTY_GROUP", "group", "there is none"))?;
        group_name(&group.name, "group.name")?;
        let filter = group.filter.unwrap_or_default();
        for feed in &filter.feeds {
            self.0.schema_at(feed, "group.filter.feeds")?;
        }
        self.known_rules(&filter.rules).await?;
        let bad = |channel: &&String| channel.is_empty() || channel.contains('\0');
        if let Some(channel) = filter.channels.iter().find(bad) {
            return Err(status::bad_field(
                "BAD_CHANNEL",
                "group.filter.channels",
                format!("{channel:?} is no channel: rules write to channels with a name"),
            ));
        }
        let topology = self.0.topology.load_full();
        for name in &filter.instances {
            let known = name
                .parse()
                .is_ok_and(|name: InstanceName| topology.nodes.contains_key(&name));
            if !known {
                return Err(status::bad_field(
                    "UNKNOWN_INSTANCE",
                    "group.filter.instances",
                    format!("there is no instance {name} in the shard map"),
                ));
            }
        }
        let range = (Duration::from_millis(100), MAX_VISIBILITY);
        let visibility = duration(group.visibility_timeout, "group.visibility_timeout", range)?;
        if group.max_deliveries > 10_000 {
            return Err(status::bad_field(
                "BAD_MAX_DELIVERIES",
                "group.max_deliveries",
                "must be 1 to 10000, or 0 for 5",
            ));
        }
        let start = self.start(request.start, "start")?;
        let name = group.name.clone();
        let spec = GroupSpec {
            name: group.name,
            feeds: filter.feeds,
            channels: filter.channels,
            rules: filter.rules,
            instances: filter.instances,
            visibility: visibility.unwrap_or(VISIBILITY),
            max_deliveries: match group.max_deliveries {
                0 => DELIVERIES,
                some => some,
            },
            order_by_key: group.order_by_key,
            paused: group.paused,
        };
        let edited = groups::put(&self.0, spec, request.expected_version, &start)
            .await
            .map_err(|error| status::database(&error))?;
        let row = edited.set.groups.iter().find(|row| row.spec.name == name);
        Ok(v1::PutGroupResponse {
            group: row.map(wire_group),
            created: edited.created,
            pending: edited.pending,
        })
    }

    pub(super) async fn do_list_groups(
        &self,
        request: v1::ListGroupsRequest,
    ) -> Result<v1::ListGroupsResponse, Status> {
        groups::refresh(&self.0)
            .await
            .map_err(|error| status::database(&error))?;
        let name = (!request.name.is_empty()).then_some(request.name.as_str());
        if let Some(name) = name {
            self.group(name).await?;
        }
        let asked = self.ask_all(|node| async move {
            let instance = node.instance.load_full();
            instance.group_standings(name).await
        });
        let (found, unreachable) = asked.await;
        let mut standings: BTreeMap<String, Vec<v1::GroupInstance>> = BTreeMap::new();
        for (instance, some) in found {
            for one in some {
                let of = standings.entry(one.name.clone()).or_default();
                of.push(wire_standing(instance, one));
            }
        }
        let set = self.0.groups.set();
        let groups = set
            .groups
            .iter()
            .filter(|row| name.is_none_or(|name| row.spec.name == name))
            .map(|row| v1::GroupState {
                group: Some(wire_group(row)),
                instances: standings.remove(&row.spec.name).unwrap_or_default(),
            })
            .collect();
        Ok(v1::ListGroupsResponse {
            groups,
            unreachable,
        })
    }

    pub(super) async fn do_remove_group(
        &self,
        request: v1::RemoveGroupRequest,
    ) -> Result<v1::RemoveGroupResponse, Status> {
        self.group(&request.name).await?;
        let edited = groups::remove(&self.0, request.name, request.expected_version)
            .await
            .map_err(|error| status::database(&error))?;
        Ok(v1::RemoveGroupResponse {
            pending: edited.pending,
        })
    }

    pub(super) async fn do_replay_group(
        &self,
        request: v1::ReplayGroupRequest,
    ) -> Result<v1::ReplayGroupResponse, Status> {
        let row = self.group(&request.group).await?;
        if request.from.as_ref().is_none_or(|from| from.at.is_none()) {
            return Err(status::bad_field(
                "EMPTY_POSITION",
                "from",
                "say where to replay from: now, earliest, a token or a time",
            ));
        }
        let start = self.start(request.from, "from")?;
        let topology = self.0.topology.load_full();
        let mut nodes = Vec::new();
        for node in topology.nodes.values() {
            let name = node.name.to_string();
            if request.instances.is_empty() || request.instances.contains(&name) {
                nodes.push(node.clone());
            }
        }
        let known = |name: &&String| nodes.iter().any(|node| node.name.to_string() == **name);
        if let Some(unknown) = request.instances.iter().find(|name| !known(name)) {
            return Err(status::bad_field(
                "UNKNOWN_INSTANCE",
                "instances",
                format!("there is no instance {unknown} in the shard map"),
            ));
        }
        let (start, group) = (&start, row.spec.name.as_str());
        let replayed = nodes.iter().map(|node| async move {
            let replay = async {
                let head = start.head(node).await?;
                let instance = node.instance.load_full();
                instance.replay_group(group, &head).await
            };
            within(LIMIT, node.name, replay)
                .await
                .map_err(|error| error.context(node.name))
        });
        let failed: Vec<DbError> = join_all(replayed)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
        match failed.first() {
            None => Ok(v1::ReplayGroupResponse {}),
            Some(error) => {
                let all: Vec<String> = failed.iter().map(ToString::to_string).collect();
                let message = format!("not replayed everywhere, say it again: {}", all.join("; "));
                Err(status::database(&DbError::new(error.kind, message)))
            }
        }
    }

    pub(super) async fn do_list_dead_letters(
        &self,
        request: v1::ListDeadLettersRequest,
    ) -> Result<v1::ListDeadLettersResponse, Status> {
        let row = self.group(&request.group).await?;
        let limit = match request.limit {
            0 => 100,
            some => some.min(MAX_LETTERS),
        };
        let after = match request.after.as_str() {
            "" => None,
            text => Some(letter_id(text, "after")?),
        };
        let group = row.spec.name.as_str();
        let asked = self.ask_all(|node| async move {
            let seq = match after {
                Some((instance, _)) if node.name < instance => return Ok(Vec::new()),
                Some((instance, seq)) if node.name == instance => seq,
                _ => i64::MIN,
            };
            let instance = node.instance.load_full();
            instance.dead_letters(group, seq, limit + 1).await
        });
        let (found, unreachable) = asked.await;
        let mut letters: Vec<v1::DeadLetter> = found
            .into_iter()
            .flat_map(|(name, rows)| rows.into_iter().map(move |row| (name, row)))
            .map(|(name, row)| wire_letter(group, name, row))
            .take(limit as usize + 1)
            .collect();
        let more = letters.len() > limit as usize;
        letters.truncate(limit as usize);
        Ok(v1::ListDeadLettersResponse {
            dead_letters: letters,
            more,
            unreachable,
        })
    }

    pub(super) async fn do_dead_letters(
        &self,
        request: v1::DeadLettersRequest,
        requeue: bool,
    ) -> Result<v1::DeadLettersResponse, Status> {
        let row = self.group(&request.group).await?;
        if request.all != request.ids.is_empty() {
            return Err(status::bad_field(
                "WHICH",
                "ids",
                "name the dead letters by their ids, or say all; one of the two",
            ));
        }
        let mut wanted: BTreeMap<InstanceName, Vec<i64>> = BTreeMap::new();
        for (at, id) in request.ids.iter().enumerate() {
            let (instance, seq) = letter_id(id, &format!("ids[{at}]"))?;
            wanted.entry(instance).or_default().push(seq);
        }
        let (wanted, all, group) = (&wanted, request.all, row.spec.name.as_str());
        let asked = self.ask_all(|node| async move {
            let seqs = wanted.get(&node.name).map(Vec::as_slice);
            if seqs.is_none() && !all {
                return Ok(0);
            }
            let instance = node.instance.load_full();
            if requeue {
                instance.requeue_dead_letters(group, seqs).await
            } else {
                instance.drop_dead_letters(group, seqs).await
            }
        });
        let (done, unreachable) = asked.await;
        Ok(v1::DeadLettersResponse {
            count: done.iter().map(|(_, count)| count).sum(),
            unreachable,
        })
    }

    pub(super) async fn do_settle(
        &self,
        request: v1::SettleRequest,
    ) -> Result<v1::SettleResponse, Status> {
        let row = self.group(&request.group).await?;
        let count: usize = request.settlements.iter().map(|one| one.ids.len()).sum();
        if count > MAX_SETTLEMENTS {
            return Err(status::bad_field(
                "TOO_MANY",
                "settlements",
                format!("{count} ids are too many: at most {MAX_SETTLEMENTS}"),
            ));
        }
        let mut results = Vec::with_capacity(count);
        let mut settlements = Vec::with_capacity(count);
        for one in request.settlements {
            let how = settle(one.how, row.spec.visibility)?;
            for id in one.ids {
                match id.parse::<DeliveryId>() {
                    Ok(id) => settlements.push((id, how.clone())),
                    Err(error) => results.push(invalid_id(id, &error)),
                }
            }
        }
        let settled = self.0.hub.settle(&row.spec.name, settlements).await;
        let settled = settled
            .into_iter()
            .map(|(id, settled)| wire_settled(&id, settled));
        results.extend(settled);
        Ok(v1::SettleResponse { results })
    }
}

/// What a member that asks too much is told.
pub(super) fn too_many(error: &pgbraid_alerts::SubscribeError) -> Status {
    status::later(
        Code::ResourceExhausted,
        "TOO_MANY_SUBSCRIBERS",
        error.to_string(),
        Duration::from_secs(5),
    )
}
