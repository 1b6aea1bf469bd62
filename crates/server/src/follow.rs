//! Keeps the router in step with the instances: who owns which table, the feeds' columns, the
//! rules, and tables that nobody has made yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use metrics::counter;
use pgbraid_config::{RouterConfig, ShardMap};
use pgbraid_ingest::{FeedRoute, Owner, Routing};
use pgbraid_instance::{DbError, DbErrorKind, OwnedTable, TableToMake};
use pgbraid_shardmap::{Drift, FeedName, InstanceName, TableId, TableOwner, drift, resolve};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    fleet::{Fleet, make_missing},
    node::Node,
    publish::publish,
    rescue::rescue,
    state::{Shared, Topology},
};

mod rules;

pub(crate) use rules::install;

/// How often to ask without being told to.
const EVERY: Duration = Duration::from_secs(30);
/// Least time between two rounds of asking.
const SPACING: Duration = Duration::from_millis(20);
/// From news of owners, which are in force by then, to asking for the rest.
const AFTER_NEWS: Duration = Duration::from_millis(250);
/// How often while something is amiss.
const SOON: Duration = Duration::from_secs(1);

/// Longest that making tables may keep other news waiting.
const MAKE_LIMIT: Duration = Duration::from_secs(60);

/// What one instance says.
struct Report {
    owned: Vec<OwnedTable>,
    feeds: Vec<(String, u32)>,
    rules: i64,
    outdated: bool,
    groups: i64,
    version: String,
}

async fn ask(
    node: &Node,
    cluster: Option<Uuid>,
    limit: Duration,
) -> Result<(Uuid, Report), DbError> {
    let instance = node.instance.load_full();
    let asked = async {
        let cluster = instance.verify_cluster(cluster).await?;
        let rules = instance.rules().await?;
        let report = Report {
            owned: instance.ownership().await?,
            feeds: instance.stored_feeds().await?,
            rules: rules.version,
            outdated: rules.outdated,
            groups: instance.groups_version().await?,
            version: instance.probe().await?.server_version,
        };
        Ok((cluster, report))
    };
    tokio::time::timeout(limit, asked)
        .await
        .unwrap_or_else(|_| {
            Err(DbError::new(
                DbErrorKind::Outage,
                format!(
                    "{} at {} has not answered within {limit:?}",
                    instance.name(),
                    instance.address()
                ),
            ))
        })
}

/// Longest that one instance may keep the others' news waiting.
pub(crate) fn limit(config: &RouterConfig) -> Duration {
    config.postgres.connect_timeout * 2
}

/// A feed whose number of tables in the map is not the one it was made with: every key would be
/// routed wrongly.
fn other_count(map: &ShardMap, name: InstanceName, stored: &[(String, u32)]) -> Option<DbError> {
    stored.iter().find_map(|(feed, tables)| {
        let wanted = FeedName::parse(feed)
            .ok()
            .and_then(|feed| map.feeds.get(&feed))?;
        (wanted.tables != *tables).then(|| {
            DbError::new(
                DbErrorKind::Contradiction,
                format!(
                    "feed {feed} was made with {tables} tables on {name}, but the shard map says \
                     {}: the number of tables never changes; put {tables} back",
                    wanted.tables
                ),
            )
        })
    })
}

/// Asks all instances for the first time.
///
/// # Errors
/// Instances that answer but are not what the map says. Instances that do not answer are not an
/// error, unless none does.
pub(crate) async fn first_look(
    config: &RouterConfig,
    map: Arc<ShardMap>,
    nodes: BTreeMap<InstanceName, Arc<Node>>,
) -> Result<(Uuid, Topology), Vec<DbError>> {
    let asked = Instant::now();
    let answers = join_all(nodes.values().map(|node| ask(node, None, limit(config)))).await;
    let mut topology = Topology {
        map,
        schemas: BTreeMap::new(),
        reports: BTreeMap::new(),
        asked: BTreeMap::new(),
        owners: BTreeMap::new(),
        rules: BTreeMap::new(),
        outdated: BTreeSet::new(),
        groups: BTreeMap::new(),
        unreachable: BTreeMap::new(),
        versions: BTreeMap::new(),
        nodes,
    };
    let mut errors = Vec::new();
    let mut cluster: Option<(Uuid, InstanceName)> = None;
    let names: Vec<InstanceName> = topology.nodes.keys().copied().collect();
    for (name, answer) in names.into_iter().zip(answers) {
        match answer {
            Ok((id, report)) => {
                let (first, by) = *cluster.get_or_insert((id, name));
                if first != id {
                    errors.push(DbError::new(
                        DbErrorKind::Contradiction,
                        format!("{by} belongs to cluster {first}, but {name} to {id}: correct the shard map"),
                    ));
                }
                errors.extend(other_count(&topology.map, name, &report.feeds));
                topology.take(name, report, asked);
            }
            Err(error) if error.is_transient() => {
                warn!(instance = %name, "not reachable: {error}");
                topology.unreachable.insert(name, error.message);
            }
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    match cluster {
        Some((cluster, _)) => {
            for node in topology.nodes.values() {
                node.instance.load().expect_cluster(cluster);
            }
            Ok((cluster, topology))
        }
        None => Err(topology
            .unreachable
            .into_values()
            .map(|message| DbError::new(DbErrorKind::Outage, message))
            .collect()),
    }
}

impl Topology {
    fn take(&mut self, name: InstanceName, report: Report, asked: Instant) {
        self.reports.insert(name, report.owned);
        self.asked.insert(name, asked);
        self.rules.insert(name, report.rules);
        match report.outdated {
            true => self.outdated.insert(name),
            false => self.outdated.remove(&name),
        };
        self.groups.insert(name, report.groups);
        self.versions.insert(name, report.version);
        self.unreachable.remove(&name);
    }

    /// Reads the feeds' columns from the home, or from whichever instance answers. A feed that has
    /// not changed keeps its `Arc`, and with it the statements prepared for it.
    pub(crate) async fn read_schemas(&mut self, config: &RouterConfig) -> Result<(), DbError> {
        let mut order: Vec<&Arc<Node>> = self
            .nodes
            .values()
            .filter(|node| !self.unreachable.contains_key(&node.name))
            .collect();
        order.sort_by_key(|node| node.name != self.map.home);
        let mut last = None;
        for node in order {
            let instance = node.instance.load_full();
            match Fleet::schemas(config, &self.map, &instance).await {
                Ok(schemas) => {
                    self.schemas = schemas
                        .into_iter()
                        .map(|(feed, schema)| {
                            let same = self.schemas.get(&feed).filter(|known| ***known == schema);
                            let schema = same.cloned().unwrap_or_else(|| Arc::new(schema));
                            (feed, schema)
                        })
                        .collect();
                    return Ok(());
                }
                Err(error) if error.is_transient() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => Err(DbError::new(DbErrorKind::Outage, "no instance answers")),
        }
    }

    pub(crate) fn resolve_owners(&mut self) {
        self.owners = self
            .map
            .feeds
            .iter()
            .map(|(feed, entry)| {
                let reports = self.reports.iter().flat_map(|(name, tables)| {
                    tables
                        .iter()
                        .filter(|table| table.feed == *feed)
                        .map(|table| (*name, table.table, table.state, table.epoch))
                });
                (feed.clone(), resolve(reports, entry.tables))
            })
            .collect();
    }

    pub(crate) fn routing(&self) -> Routing {
        let owner = |owner: &TableOwner| match owner {
            TableOwner::Nobody | TableOwner::Away => Owner::Nobody,
            TableOwner::One { instance, .. } => Owner::One(*instance),
            TableOwner::MovingOut { from, .. } => Owner::Held(*from),
            TableOwner::Conflict(instances) => Owner::Conflict(instances.clone()),
        };
        Routing {
            feeds: self
                .schemas
                .iter()
                .filter_map(|(feed, schema)| {
                    let owners = self.owners.get(feed)?.iter().map(owner).collect();
                    let schema = schema.clone();
                    Some((feed.clone(), FeedRoute { schema, owners }))
                })
                .collect(),
        }
    }

    fn missing(&self, feed: &FeedName) -> Vec<TableToMake> {
        let (Some(owners), Some(entry)) = (self.owners.get(feed), self.map.feeds.get(feed)) else {
            return Vec::new();
        };
        owners
            .iter()
            .zip(&entry.placement)
            .enumerate()
            .filter(|(_, (owner, _))| matches!(owner, TableOwner::Nobody))
            .map(|(number, (_, wanted))| TableToMake {
                table: TableId::new(number as u32),
                instance: *wanted,
            })
            .collect()
    }

    /// Makes the tables that nobody owns, and asks their new owners again.
    pub(crate) async fn make_missing(&mut self, config: &RouterConfig) -> bool {
        let Some(home) = self.nodes.get(&self.map.home).cloned() else {
            return false;
        };
        let mut made_any = false;
        let instances: BTreeMap<InstanceName, _> = self
            .nodes
            .iter()
            .map(|(name, node)| (*name, node.instance.load_full()))
            .collect();
        for (feed, schema) in &self.schemas {
            let missing = self.missing(feed);
            if missing.is_empty() {
                continue;
            }
            let home = home.instance.load_full();
            let making = make_missing(&home, schema, &missing, |name| {
                instances.get(&name).map(AsRef::as_ref)
            });
            let Ok(made) = tokio::time::timeout(MAKE_LIMIT, making).await else {
                warn!(feed = %feed, "tables that nobody owns could not be made within {MAKE_LIMIT:?}");
                continue;
            };
            match made {
                Ok(made) => {
                    for (instance, count) in made {
                        made_any |= count > 0;
                        info!(%instance, feed = %feed, "made {count} tables");
                    }
                }
                Err(error) => {
                    warn!(feed = %feed, "tables that nobody owns could not be made: {error}")
                }
            }
        }
        if made_any {
            self.ask_all(config, None).await;
            self.resolve_owners();
        }
        made_any
    }

    async fn ask_all(&mut self, config: &RouterConfig, cluster: Option<Uuid>) {
        let nodes: Vec<Arc<Node>> = self.nodes.values().cloned().collect();
        let asked = Instant::now();
        let answers = join_all(nodes.iter().map(|node| ask(node, cluster, limit(config)))).await;
        for (node, answer) in nodes.iter().zip(answers) {
            match answer {
                Ok((_, report)) => self.take(node.name, report, asked),
                Err(error) => {
                    let known = self.unreachable.insert(node.name, error.message.clone());
                    if known.is_none() {
                        warn!(instance = %node.name, "can't be asked: {error}");
                    }
                }
            }
        }
    }

    /// Tables that are not where the map wants them, and tables that nobody owns.
    pub(crate) fn drift(&self, feed: &FeedName) -> (u32, u32) {
        let (Some(owners), Some(entry)) = (self.owners.get(feed), self.map.feeds.get(feed)) else {
            return (0, 0);
        };
        let now: Vec<Option<InstanceName>> = owners.iter().map(TableOwner::instance).collect();
        let (mut elsewhere, mut unowned) = (0, 0);
        for one in drift(&entry.placement, &now) {
            match one {
                Drift::Elsewhere { .. } => elsewhere += 1,
                Drift::Unowned { .. } => unowned += 1,
            }
        }
        (elsewhere, unowned)
    }

    pub(crate) fn amiss(&self) -> bool {
        let settled = |owner: &TableOwner| matches!(owner, TableOwner::One { .. });
        !self.unreachable.is_empty()
            || self
                .rules
                .values()
                .any(|version| Some(version) != self.rules.get(&self.map.home))
            || self
                .groups
                .values()
                .any(|version| Some(version) != self.groups.get(&self.map.home))
            || self.owners.values().flatten().any(|owner| !settled(owner))
    }
}

/// Asks the instances again whenever something changed, and every now and then.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut draining = shared.draining.subscribe();
    let mut trouble = String::new();
    let mut renew_from = Instant::now();
    loop {
        let known = shared.topology.load();
        let renew = !known.outdated.is_empty() && renew_from <= Instant::now();
        let wait = if known.amiss() || renew { SOON } else { EVERY };
        drop(known);
        let told = tokio::select! {
            () = shared.refresh.notified() => false,
            () = shared.told.notified() => true,
            () = tokio::time::sleep(wait) => false,
            _ = draining.wait_for(|draining| *draining) => return,
        };
        if told {
            // Many may come while tables move: they share one round.
            tokio::select! {
                () = shared.refresh.notified() => {}
                () = tokio::time::sleep(AFTER_NEWS) => {}
            }
        }
        counter!("pgbraid_ownership_reads_total").increment(1);
        // A reload may have put another map in force meanwhile: its owner does both, in turn.
        let mut topology = Topology::clone(&shared.topology.load());
        let before = topology.owners.clone();
        topology.ask_all(&shared.config, Some(shared.cluster)).await;
        let read = topology.read_schemas(&shared.config).await;
        let now = read.err().map(|error| error.message).unwrap_or_default();
        if now != trouble && !now.is_empty() {
            warn!("the feeds' columns could not be read again: {now}");
        }
        trouble = now;
        topology.resolve_owners();
        topology.settle(&shared.config, &before).await;
        publish(&shared, topology.clone());
        rescue(&shared, &topology).await;
        let made = topology.make_missing(&shared.config).await;
        topology.copy_rules().await;
        if renew_from <= Instant::now() && !topology.renew_triggers().await {
            renew_from = Instant::now() + EVERY;
        }
        crate::groups::follow(&shared, &topology).await;
        if made || topology.rules != shared.topology.load().rules {
            publish(&shared, topology);
        }
        crate::watch::reload_if_asked(&shared);
        // Whatever asks for everything all the time gets it this often.
        tokio::time::sleep(SPACING).await;
    }
}
