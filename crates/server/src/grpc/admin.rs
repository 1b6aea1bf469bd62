//! The service `Admin`: rules, state, and where a key is.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use pgbraid_instance::{DbError, DbErrorKind, RuleChange, RuleSet, StoredRuleRow};
use pgbraid_proto::v1::{self, admin_server::Admin};
use pgbraid_rules::{Mode, Rule};
use pgbraid_shardmap::{KeyType, TableOwner, hash};
use tonic::{Request, Response, Status};

use super::status;
use crate::{
    follow,
    node::{Node, within},
    state::{Shared, Topology},
};

/// Longest wait for an answer that needs no work.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Longest that an edit may wait for the triggers' locks.
const EDIT_LIMIT: Duration = Duration::from_secs(60);
/// A dry run reads whole tables.
const TEST_LIMIT: Duration = Duration::from_secs(600);

pub(crate) struct Service(pub Arc<Shared>);

fn rule(wire: v1::Rule) -> Result<Rule, Status> {
    let mode = match v1::RuleMode::try_from(wire.mode) {
        Ok(v1::RuleMode::Edge) => Mode::Edge,
        Ok(v1::RuleMode::Level) => Mode::Level,
        Err(_) => {
            return Err(status::bad_field(
                "UNKNOWN_MODE",
                "rule.mode",
                format!("{} is no mode: 0 is edge, 1 is level", wire.mode),
            ));
        }
    };
    let cooldown = wire.cooldown.map_or(Ok(Duration::ZERO), |cooldown| {
        Duration::try_from(cooldown).map_err(|_| {
            status::bad_field(
                "BAD_COOLDOWN",
                "rule.cooldown",
                "is negative or no duration; leave it out for no cool-down",
            )
        })
    })?;
    Ok(Rule {
        name: wire.name,
        feed: wire.feed,
        expression: wire.expression,
        channel: wire.channel,
        reason: wire.reason,
        mode,
        resolve: wire.resolve,
        cooldown,
    })
}

fn wire(row: StoredRuleRow) -> v1::Rule {
    let cooldown = row.rule.cooldown;
    v1::Rule {
        name: row.rule.name,
        feed: row.rule.feed,
        expression: row.rule.expression,
        channel: row.rule.channel,
        reason: row.rule.reason,
        mode: match row.rule.mode {
            Mode::Edge => v1::RuleMode::Edge,
            Mode::Level => v1::RuleMode::Level,
        }
        .into(),
        version: row.version,
        updated_at: Some(prost_types::Timestamp {
            seconds: row.updated_at_us.div_euclid(1_000_000),
            nanos: (row.updated_at_us.rem_euclid(1_000_000) * 1000) as i32,
        }),
        resolve: row.rule.resolve,
        cooldown: (!cooldown.is_zero()).then(|| prost_types::Duration {
            seconds: cooldown.as_secs() as i64,
            nanos: cooldown.subsec_nanos() as i32,
        }),
    }
}

/// The status of an edit that was not made. An expression that is not right says which one it is.
fn not_edited(change: &RuleChange, error: &DbError) -> Status {
    let about = |name: &str| error.message.starts_with(&format!("rule {name:?}:"));
    let found = change.put.iter().position(|(rule, _)| about(&rule.name));
    match found {
        Some(at) if error.kind == DbErrorKind::Refused => {
            let field = format!("rules[{at}].rule.expression");
            status::bad_field("BAD_RULE", field, &error.message)
        }
        _ => status::database(error),
    }
}

impl Service {
    fn home(&self, topology: &Topology) -> Result<Arc<Node>, Status> {
        topology
            .nodes
            .get(&topology.map.home)
            .cloned()
            .ok_or_else(|| {
                Status::internal(format!("the home {} is not in the map", topology.map.home))
            })
    }

    /// Edits the home's rules, then brings the other instances to that version. Those that can't
    /// be reached get it from the follower when they are back.
    async fn edit(
        &self,
        change: RuleChange,
    ) -> Result<(pgbraid_instance::RuleEdit, Vec<String>), Status> {
        let topology = self.0.topology.load_full();
        let home = self.home(&topology)?;
        let schemas = topology.rule_schemas();
        let instance = home.instance.load_full();
        let edit = within(
            EDIT_LIMIT,
            home.name,
            instance.edit_rules(&change, &schemas),
        )
        .await
        .map_err(|error| not_edited(&change, &error))?;
        if change.dry_run {
            return Ok((edit, Vec::new()));
        }
        let others: Vec<Arc<Node>> = topology
            .nodes
            .values()
            .filter(|node| node.name != home.name)
            .cloned()
            .collect();
        let (there, mut pending): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|node| !topology.unreachable.contains_key(&node.name));
        let mut behind: Vec<String> = pending
            .drain(..)
            .map(|node| node.name.to_string())
            .collect();
        let mut have = vec![home.name];
        for (name, error) in follow::install(&edit.set, &schemas, &there).await {
            match error {
                None => have.push(name),
                Some(error) => {
                    tracing::warn!(instance = %name, "rules could not be installed yet: {error}");
                    behind.push(name.to_string());
                }
            }
        }
        // The follower will ask; until then nobody is to be told that these are behind.
        self.0.topology.rcu(|topology| {
            let mut topology = Topology::clone(topology);
            for name in &have {
                let version = topology.rules.entry(*name).or_default();
                *version = edit.set.version.max(*version);
            }
            topology
        });
        self.0.refresh.notify_one();
        behind.sort();
        Ok((edit, behind))
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn put_rules(
        &self,
        request: Request<v1::PutRulesRequest>,
    ) -> Result<Response<v1::PutRulesResponse>, Status> {
        let request = request.into_inner();
        let mut change = RuleChange {
            dry_run: request.dry_run,
            ..RuleChange::default()
        };
        for (at, put) in request.rules.into_iter().enumerate() {
            let field = format!("rules[{at}]");
            let wire = put.rule.ok_or_else(|| {
                status::bad_field("EMPTY_RULE", field.as_str(), "there is no rule in it")
            })?;
            self.0
                .schema_at(&wire.feed, &format!("{field}.rule.feed"))?;
            let rule = rule(wire)?;
            if change.put.iter().any(|(known, _)| known.name == rule.name) {
                return Err(status::bad_field(
                    "REPEATED_RULE",
                    field,
                    format!("rule {:?} stands in the request twice", rule.name),
                ));
            }
            rule.validate()
                .map_err(|error| status::bad_field("BAD_RULE", field, error.to_string()))?;
            if request.prune && !change.prune_feeds.contains(&rule.feed) {
                change.prune_feeds.push(rule.feed.clone());
            }
            change.put.push((rule, put.expected_version));
        }
        let (edit, pending) = self.edit(change).await?;
        Ok(Response::new(v1::PutRulesResponse {
            rules: edit.set.rules.into_iter().map(wire).collect(),
            changed: edit.changed,
            removed: edit.removed,
            pending,
        }))
    }

    async fn list_rules(
        &self,
        request: Request<v1::ListRulesRequest>,
    ) -> Result<Response<v1::ListRulesResponse>, Status> {
        let feed = request.into_inner().feed;
        if !feed.is_empty() {
            self.0.schema(&feed)?;
        }
        let topology = self.0.topology.load_full();
        let home = self.home(&topology)?;
        let instance = home.instance.load_full();
        let set: RuleSet = within(ASK_LIMIT, home.name, instance.rules())
            .await
            .map_err(|error| status::database(&error))?;
        let pending = topology
            .nodes
            .keys()
            .filter(|name| {
                topology.unreachable.contains_key(name)
                    || topology
                        .rules
                        .get(name)
                        .is_none_or(|have| *have < set.version)
            })
            .filter(|name| **name != topology.map.home)
            .map(ToString::to_string)
            .collect();
        Ok(Response::new(v1::ListRulesResponse {
            rules: set
                .rules
                .into_iter()
                .filter(|row| feed.is_empty() || row.rule.feed == feed)
                .map(wire)
                .collect(),
            pending,
        }))
    }

    async fn remove_rule(
        &self,
        request: Request<v1::RemoveRuleRequest>,
    ) -> Result<Response<v1::RemoveRuleResponse>, Status> {
        let request = request.into_inner();
        let change = RuleChange {
            remove: vec![(request.name, request.expected_version)],
            ..RuleChange::default()
        };
        let (_, pending) = self.edit(change).await?;
        Ok(Response::new(v1::RemoveRuleResponse { pending }))
    }

    async fn test_rule(
        &self,
        request: Request<v1::TestRuleRequest>,
    ) -> Result<Response<v1::TestRuleResponse>, Status> {
        let request = request.into_inner();
        let wire = request
            .rule
            .ok_or_else(|| status::bad_field("EMPTY_RULE", "rule", "there is no rule"))?;
        let schema = self.0.schema_at(&wire.feed, "rule.feed")?;
        let rule = rule(wire)?;
        let sample = i64::from(request.sample.min(100));
        let topology = self.0.topology.load_full();
        let owners = topology
            .owners
            .get(&schema.feed)
            .cloned()
            .unwrap_or_default();
        let asked = topology.nodes.values().filter_map(|node| {
            let tables: Vec<u32> = owners
                .iter()
                .enumerate()
                .filter(|(_, owner)| owner.instance() == Some(node.name))
                .map(|(number, _)| number as u32)
                .collect();
            let (schema, rule) = (schema.clone(), &rule);
            (!tables.is_empty()).then_some(async move {
                let instance = node.instance.load_full();
                let tested = instance.test_rule(&schema, rule, &tables, sample);
                within(TEST_LIMIT, node.name, tested).await
            })
        });
        let mut total = v1::TestRuleResponse::default();
        for answer in join_all(asked).await {
            let (rows, matched, keys) = answer.map_err(|error| match error.kind {
                // Whatever the statement is refused for, the expression is what is new in it.
                DbErrorKind::Refused | DbErrorKind::Statement => {
                    status::bad_field("BAD_RULE", "rule.expression", &error.message)
                }
                _ => status::database(&error),
            })?;
            total.rows_scanned += rows as u64;
            total.rows_matched += matched as u64;
            total.sample_keys.extend(keys);
        }
        total.sample_keys.truncate(sample as usize);
        Ok(Response::new(total))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(current(&self.0)))
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateResponse>, Status> {
        let request = request.into_inner();
        let schema = self.0.schema(&request.feed)?;
        let ty = match schema.key.ty {
            KeyType::Int8 => pgbraid_feed::types::ColumnType::Int8,
            KeyType::Uuid => pgbraid_feed::types::ColumnType::Uuid,
            KeyType::Text => pgbraid_feed::types::ColumnType::Text,
        };
        let mut bytes = Vec::new();
        pgbraid_feed::scalar::from_text(&ty, &request.key, &mut bytes)
            .map_err(|error| status::bad_field(error.reason.as_str(), "key", error.message))?;
        let hashed = match <[u8; 8]>::try_from(bytes.as_slice()) {
            Ok(number) if schema.key.ty == KeyType::Int8 => hash::int8(i64::from_le_bytes(number)),
            _ => hash::bytes(&bytes),
        };
        let table = hash::table_of(hashed, schema.tables);
        let topology = self.0.topology.load_full();
        let number = table.index() as usize;
        let owner = topology
            .owners
            .get(&schema.feed)
            .and_then(|owners| owners.get(number))
            .and_then(TableOwner::instance);
        let wanted = topology
            .map
            .feeds
            .get(&schema.feed)
            .and_then(|feed| feed.placement.get(number));
        let spec = owner.and_then(|owner| topology.map.instances.get(&owner));
        let host = spec.and_then(|spec| spec.hosts.first());
        let key = match schema.key.ty {
            KeyType::Int8 => request.key.trim().to_owned(),
            _ => pgbraid_instance::quote_literal(&request.key)
                .trim()
                .to_owned(),
        };
        Ok(Response::new(v1::LocateResponse {
            table: table.to_string(),
            instance: owner.map(|owner| owner.to_string()).unwrap_or_default(),
            host: host.map(|host| host.host.clone()).unwrap_or_default(),
            port: host.map_or(0, |host| host.port.into()),
            sql: format!(
                "select * from {}.{} where {} = {key}",
                pgbraid_instance::quote_ident(&schema.schema),
                pgbraid_instance::quote_ident(&schema.table),
                pgbraid_instance::quote_ident(&schema.key.name),
            ),
            wanted_instance: wanted.map(ToString::to_string).unwrap_or_default(),
        }))
    }
}

fn auto_moves(shared: &Shared) -> v1::AutoMoves {
    let state = shared.auto.state();
    let agreed = state.agreed;
    let agreed = |part: fn(pgbraid_instance::Agreed) -> String| agreed.clone().map(part);
    v1::AutoMoves {
        agreed_places: agreed(|one| one.placement).unwrap_or_default(),
        agreed_by: agreed(|one| one.by).unwrap_or_default(),
        agreed_since: agreed(|one| one.since).unwrap_or_default(),
        mover: state.mover.unwrap_or_default(),
        under_way: shared.auto.under_way() as u32,
        waiting: state.waiting.unwrap_or_default(),
    }
}

/// The state of the cluster as this router sees it.
pub(crate) fn current(shared: &Shared) -> v1::GetStatusResponse {
    let topology = shared.topology.load_full();
    let queues = shared.ingest.stats();
    let readers = shared.hub.status();
    let instances = topology
        .nodes
        .values()
        .map(|node| {
            let queue = queues.iter().find(|queue| queue.instance == node.name);
            let reader = readers.iter().find(|reader| reader.instance == node.name);
            let error = queue
                .and_then(|queue| queue.error.clone())
                .or_else(|| topology.unreachable.get(&node.name).cloned())
                .or_else(|| reader.and_then(|reader| reader.reason.as_deref().map(str::to_owned)));
            let owned = topology
                .owners
                .values()
                .flatten()
                .filter(|owner| owner.instance() == Some(node.name))
                .count();
            let kept = shared.kept.of(node.name);
            v1::InstanceState {
                alerts_kept: kept.alerts,
                alerts_bytes: kept.bytes,
                alerts_oldest_seconds: kept.oldest_seconds as u64,
                name: node.name.to_string(),
                host: node.instance.load().address().to_owned(),
                writable: queue.is_some_and(|queue| queue.error.is_none())
                    && !topology.unreachable.contains_key(&node.name),
                error: error.unwrap_or_default(),
                tables_owned: owned as u64,
                queued_rows: queue.map_or(0, |queue| queue.rows),
                queued_bytes: queue.map_or(0, |queue| queue.bytes),
                home: node.name == topology.map.home,
                server_version: topology
                    .versions
                    .get(&node.name)
                    .cloned()
                    .unwrap_or_default(),
                readable: reader.is_some_and(|reader| reader.readable),
            }
        })
        .collect();
    let feeds = topology
        .schemas
        .values()
        .map(|schema| {
            let (drift, unowned) = topology.drift(&schema.feed);
            let owners = topology.owners.get(&schema.feed);
            v1::FeedState {
                name: schema.feed.to_string(),
                tables: schema.tables,
                table: format!(
                    "{}.{}",
                    pgbraid_instance::quote_ident(&schema.schema),
                    pgbraid_instance::quote_ident(&schema.table)
                ),
                key_column: schema.key.name.clone(),
                key_type: schema.key.ty.to_string(),
                columns: schema
                    .columns
                    .iter()
                    .map(|column| v1::ColumnState {
                        name: column.name.clone(),
                        r#type: column.ty.sql_name(),
                        merge: column.policy.to_string(),
                    })
                    .collect(),
                drift,
                unowned,
                conflicts: owners
                    .into_iter()
                    .flatten()
                    .enumerate()
                    .filter(|(_, owner)| matches!(owner, TableOwner::Conflict(_)))
                    .map(|(number, _)| format!("tbl{number}"))
                    .collect(),
            }
        })
        .collect();
    v1::GetStatusResponse {
        cluster_id: shared.cluster.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        map_fingerprint: topology.map.fingerprint.clone(),
        instances,
        feeds,
        started_at: Some(super::alerts::timestamp(shared.started)),
        map_error: shared.map_error.load().as_ref().clone().unwrap_or_default(),
        auto_moves: (shared.config.moves.auto).then(|| auto_moves(shared)),
    }
}
