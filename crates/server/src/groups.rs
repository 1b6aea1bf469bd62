//! Consumer groups across the instances: the home's are the truth, the others get copies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures::future::join_all;
use metrics::gauge;
use pgbraid_alerts::{Cursor, Identity, Rewinds, Source, Token, rewind};
use pgbraid_config::GroupConfig;
use pgbraid_instance::{
    DbError, DbErrorKind, GroupChange, GroupRow, GroupSet, GroupSpec, HeadAt, Heads,
};
use pgbraid_shardmap::InstanceName;
use tracing::{info, warn};

use crate::{
    node::{Node, within},
    state::{Shared, Topology},
};

/// Longest wait for an instance.
const LIMIT: Duration = Duration::from_secs(10);
/// Clocks of instances may differ by this much: what was raised that long before a group was made
/// counts as raised after it, on an instance that hears of the group later.
const CLOCKS: Duration = Duration::from_secs(60);
/// As in the settings of the hub: how far a position goes back when a standby was promoted.
const REWIND_XIDS: u64 = 100_000;

/// The groups as last read.
#[derive(Default)]
pub(crate) struct Groups(ArcSwap<GroupSet>);

impl Groups {
    pub fn set(&self) -> Arc<GroupSet> {
        self.0.load_full()
    }

    pub fn find(&self, name: &str) -> Option<GroupRow> {
        let set = self.0.load();
        set.groups.iter().find(|row| row.spec.name == name).cloned()
    }

    /// Takes a set over, unless it is older than the one that is known.
    fn take(&self, set: GroupSet) {
        let set = Arc::new(set);
        self.0.rcu(|known| {
            if known.version > set.version {
                known.clone()
            } else {
                set.clone()
            }
        });
    }
}

/// Where a group starts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Start {
    Now,
    Earliest,
    Time(i64),
    Token(Box<Token>),
}

impl Start {
    /// As kept with the group, for instances that hear of it later.
    fn text(&self, now_us: i64) -> String {
        match self {
            Self::Now => format!("now {now_us}"),
            Self::Earliest => "earliest".into(),
            Self::Time(us) => format!("time {us}"),
            Self::Token(token) => format!("token {}", token.encode()),
        }
    }

    /// What a group starts with on an instance that hears of it only now.
    fn late(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "now" => {
                let us: i64 = rest.parse().ok()?;
                Some(Self::Time(us.saturating_sub(CLOCKS.as_micros() as i64)))
            }
            "earliest" => Some(Self::Earliest),
            "time" => rest.parse().ok().map(Self::Time),
            "token" => Token::decode(rest)
                .ok()
                .map(|token| Self::Token(Box::new(token))),
            _ => None,
        }
    }

    /// The position on one instance.
    pub async fn head(&self, node: &Node) -> Result<HeadAt, DbError> {
        let cursor = match self {
            Self::Now => return Ok(HeadAt::Now),
            Self::Time(us) => {
                let cursor = node.cursor_at_time(*us).await;
                cursor.map_err(|error| DbError::new(DbErrorKind::Outage, error.chain()))?
            }
            Self::Earliest => Cursor::earliest(),
            Self::Token(token) => match token.positions.get(&node.name) {
                // It did not exist then: everything on it is new.
                None => Cursor::earliest(),
                Some(position) => {
                    let instance = node.instance.load_full();
                    let found = within(LIMIT, node.name, instance.server_identity()).await?;
                    let now = Identity {
                        system_id: found.system_id,
                        timeline: found.timeline,
                    };
                    if now == position.identity {
                        position.cursor.clone()
                    } else {
                        let timelines = within(LIMIT, node.name, node.known_timelines()).await?;
                        let rewinds = Rewinds {
                            timelines,
                            margin_xids: REWIND_XIDS,
                        };
                        rewind(&position.cursor, position.identity, now, &rewinds)
                    }
                }
            },
        };
        Ok(HeadAt::Cursor {
            base: cursor.base.to_string(),
            window: cursor
                .page
                .map(|page| (page.upper.to_string(), page.after_seq)),
        })
    }
}

/// What an edit came to.
pub(crate) struct Edited {
    pub set: GroupSet,
    pub created: bool,
    /// Instances that get it when they are back.
    pub pending: Vec<String>,
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

pub(crate) fn home(topology: &Topology) -> Result<Arc<Node>, DbError> {
    let home = topology.map.home;
    topology.nodes.get(&home).cloned().ok_or_else(|| {
        DbError::new(
            DbErrorKind::Contradiction,
            format!("the home {home} is not in the map"),
        )
    })
}

/// Puts a group: on the home, then on all others that can be reached.
pub(crate) async fn put(
    shared: &Shared,
    spec: GroupSpec,
    expected: Option<i64>,
    start: &Start,
) -> Result<Edited, DbError> {
    let topology = shared.topology.load_full();
    let home = home(&topology)?;
    let head = start.head(&home).await?;
    let change = GroupChange::Put {
        spec,
        expected,
        start: start.text(now_us()),
    };
    edit(shared, &topology, &home, &change, &head, start).await
}

/// Removes a group everywhere.
pub(crate) async fn remove(
    shared: &Shared,
    name: String,
    expected: Option<i64>,
) -> Result<Edited, DbError> {
    let topology = shared.topology.load_full();
    let home = home(&topology)?;
    let change = GroupChange::Remove { name, expected };
    edit(shared, &topology, &home, &change, &HeadAt::Now, &Start::Now).await
}

async fn edit(
    shared: &Shared,
    topology: &Topology,
    home: &Arc<Node>,
    change: &GroupChange,
    head: &HeadAt,
    start: &Start,
) -> Result<Edited, DbError> {
    let instance = home.instance.load_full();
    let (set, created) = within(LIMIT, home.name, instance.edit_groups(change, head)).await?;
    shared.groups.take(set.clone());
    let others: Vec<Arc<Node>> = topology
        .nodes
        .values()
        .filter(|node| node.name != home.name)
        .cloned()
        .collect();
    let fresh = match change {
        GroupChange::Put { spec, .. } if created => Some((spec.name.as_str(), start)),
        _ => None,
    };
    let done = install(&set, &others, fresh).await;
    let mut pending = Vec::new();
    for (name, failed) in done {
        if let Some(error) = failed {
            warn!(instance = %name, "groups could not be installed yet: {error}");
            pending.push(name.to_string());
        }
    }
    shared.refresh.notify_one();
    Ok(Edited {
        set,
        created,
        pending,
    })
}

/// Installs a set on several instances; `fresh` is a group that has just been made, with its start.
async fn install(
    set: &GroupSet,
    nodes: &[Arc<Node>],
    fresh: Option<(&str, &Start)>,
) -> Vec<(InstanceName, Option<DbError>)> {
    let installed = nodes.iter().map(|node| async move {
        let install = async {
            let mut heads = Heads::new();
            for row in &set.groups {
                let name = &row.spec.name;
                let head = match fresh {
                    Some((made, start)) if made == name => start.head(node).await?,
                    _ => {
                        let start = Start::late(&row.start).ok_or_else(|| {
                            DbError::new(
                                DbErrorKind::Contradiction,
                                format!("the start of group {name:?} can't be read: {}", row.start),
                            )
                        })?;
                        start.head(node).await?
                    }
                };
                heads.insert(name.clone(), head);
            }
            let instance = node.instance.load_full();
            instance.install_groups(set, &heads).await
        };
        (node.name, within(LIMIT, node.name, install).await.err())
    });
    join_all(installed).await
}

/// Brings the groups of all reachable instances to the home's version, and reads what is new.
pub(crate) async fn follow(shared: &Shared, topology: &Topology) {
    let reachable = |name: &InstanceName| !topology.unreachable.contains_key(name);
    // With the home down, the newest copy serves: nothing can be edited meanwhile.
    let newest = topology
        .groups
        .iter()
        .filter(|(name, _)| reachable(name))
        .max_by_key(|(name, version)| (**version, **name == topology.map.home));
    let Some((from, version)) = newest else {
        return;
    };
    let home = topology.groups.get(&topology.map.home);
    if shared.groups.set().version < *version {
        let Some(node) = topology.nodes.get(from) else {
            return;
        };
        let instance = node.instance.load_full();
        match within(LIMIT, node.name, instance.groups()).await {
            Ok(set) => shared.groups.take(set),
            Err(error) => {
                warn!(instance = %node.name, "the groups can't be read: {error}");
                return;
            }
        }
    }
    let set = shared.groups.set();
    let behind: Vec<Arc<Node>> = topology
        .nodes
        .values()
        .filter(|node| reachable(&node.name) && node.name != topology.map.home)
        .filter(|node| {
            let have = topology.groups.get(&node.name);
            have.is_some_and(|have| *have < set.version) && home.is_some()
        })
        .cloned()
        .collect();
    if behind.is_empty() {
        return;
    }
    for (name, failed) in install(&set, &behind, None).await {
        match failed {
            None => info!(instance = %name, "groups are now of version {}", set.version),
            Some(error) => warn!(instance = %name, "groups could not be installed: {error}"),
        }
    }
}

/// Reads the groups again, from the home, or from whoever answers.
pub(crate) async fn refresh(shared: &Shared) -> Result<(), DbError> {
    let topology = shared.topology.load_full();
    let mut nodes: Vec<&Arc<Node>> = topology.nodes.values().collect();
    nodes.sort_by_key(|node| {
        let down = topology.unreachable.contains_key(&node.name);
        (node.name != topology.map.home, down)
    });
    let mut last = DbError::new(DbErrorKind::Outage, "there is no instance");
    for node in nodes {
        let instance = node.instance.load_full();
        match within(LIMIT, node.name, instance.groups()).await {
            Ok(set) => {
                shared.groups.take(set);
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Makes the groups of the settings that are not there yet. What is stored stays as it is: the
/// settings of several routers may differ, and an edit by hand is not to be undone at a restart.
pub(crate) async fn make_configured(shared: Arc<Shared>) {
    let mut draining = shared.draining.subscribe();
    let mut missing: BTreeMap<String, GroupConfig> = shared
        .config
        .groups
        .iter()
        .map(|group| (group.name.clone(), group.clone()))
        .collect();
    let mut wait = Duration::from_millis(100);
    while !missing.is_empty() {
        let mut failed = None;
        let groups: Vec<GroupConfig> = missing.values().cloned().collect();
        for group in groups {
            let name = group.name.clone();
            match put(&shared, spec(group), Some(0), &Start::Now).await {
                Ok(_) => {
                    info!(group = name, "made the group of the settings");
                    missing.remove(&name);
                }
                Err(error) if error.kind == DbErrorKind::Contradiction => {
                    missing.remove(&name);
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            warn!("groups of the settings could not be made yet: {error}");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = draining.wait_for(|draining| *draining) => return,
            }
            wait = (wait * 2).min(Duration::from_secs(10));
        }
    }
}

fn spec(group: GroupConfig) -> GroupSpec {
    GroupSpec {
        name: group.name,
        feeds: group.feeds,
        channels: group.channels,
        rules: group.rules,
        instances: Vec::new(),
        visibility: group.visibility_timeout,
        max_deliveries: group.max_deliveries,
        order_by_key: group.order_by_key,
        paused: false,
    }
}

/// Exports how the groups stand.
pub(crate) async fn export(shared: &Shared, topology: &Topology) {
    if shared.groups.set().groups.is_empty() {
        return;
    }
    let nodes = topology
        .nodes
        .values()
        .filter(|node| !topology.unreachable.contains_key(&node.name));
    let asked = nodes.map(|node| async move {
        let instance = node.instance.load_full();
        let limit = Duration::from_secs(2);
        let standings = within(limit, node.name, instance.group_standings(None)).await;
        (node.name, standings)
    });
    for (name, standings) in join_all(asked).await {
        let Ok(standings) = standings else { continue };
        for one in standings {
            let set = |metric: &'static str, value: f64| {
                gauge!(metric, "group" => one.name.clone(), "instance" => name.to_string())
                    .set(value);
            };
            set("pgbraid_group_lag_alerts", one.lag_alerts as f64);
            set("pgbraid_group_lag_seconds", one.lag.as_secs_f64());
            set("pgbraid_group_in_flight", one.in_flight as f64);
            set("pgbraid_group_delayed", one.delayed as f64);
            set("pgbraid_group_waiting", one.waiting as f64);
            set("pgbraid_group_dead_letters", one.dead as f64);
            set(
                "pgbraid_group_oldest_unacked_seconds",
                one.oldest_unacked.as_secs_f64(),
            );
            set("pgbraid_group_dropped_alerts", one.dropped as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_kept_as_text() {
        assert_eq!(Start::late("earliest"), Some(Start::Earliest));
        assert_eq!(Start::late(&Start::Time(5).text(0)), Some(Start::Time(5)));
        // Later, now is then; and clocks differ.
        assert_eq!(
            Start::late(&Start::Now.text(100_000_000)),
            Some(Start::Time(40_000_000))
        );
        let token = Token {
            cluster: [7; 16],
            positions: BTreeMap::new(),
        };
        let start = Start::Token(Box::new(token));
        assert_eq!(Start::late(&start.text(0)), Some(start));
        assert_eq!(Start::late("tomorrow"), None);
    }
}
