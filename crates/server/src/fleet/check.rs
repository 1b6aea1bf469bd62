//! `pgbraid check --online`: what the files say against what is there.

use std::collections::BTreeMap;

use futures::future::join_all;
use pgbraid_feed::FeedSchema;
use pgbraid_instance::{DbError, Instance, OwnedTable, Probe};
use pgbraid_shardmap::{Drift, FeedName, InstanceName, TableOwner, drift, resolve};
use serde::Serialize;

use super::Fleet;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The router won't work, or not for all rows.
    Error,
    /// Works, but not for long, or not for everything.
    Warning,
    /// Good to know.
    Info,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Where, if it is about one instance.
    pub instance: Option<String>,
    /// What it is, and what to do.
    pub message: String,
}

const OLDEST_SERVER: i32 = 140_000;

struct Seen {
    probe: Probe,
    owned: Vec<OwnedTable>,
    stored: Vec<(String, u32)>,
    claims: Vec<(String, i64)>,
    schemas: BTreeMap<FeedName, FeedSchema>,
    partitions: BTreeMap<FeedName, usize>,
    rules: i64,
    cluster: uuid::Uuid,
}

impl Fleet {
    /// Compares files and instances.
    pub async fn check_online(&self) -> Vec<Finding> {
        let mut findings = Findings(Vec::new());
        let all = join_all(self.instances.values().map(|one| self.look(one))).await;
        let mut seen: BTreeMap<InstanceName, Seen> = BTreeMap::new();
        for (name, result) in self.instances.keys().zip(all) {
            match result {
                Ok(found) => {
                    self.judge(*name, &found, &mut findings);
                    seen.insert(*name, found);
                }
                Err(error) => findings.add(Level::Error, Some(*name), error.to_string()),
            }
        }
        self.compare(&seen, &mut findings);
        findings.0.sort_by_key(|finding| finding.level);
        findings.0
    }

    async fn look(&self, instance: &Instance) -> Result<Seen, DbError> {
        let probe = instance.probe().await?;
        let cluster = instance.verify_cluster(None).await?;
        let schemas = Self::schemas(&self.config, &self.map, instance).await?;
        let mut partitions = BTreeMap::new();
        for (feed, schema) in &schemas {
            partitions.insert(feed.clone(), instance.partitions(schema).await?.len());
        }
        Ok(Seen {
            probe,
            cluster,
            owned: instance.ownership().await?,
            stored: instance.stored_feeds().await?,
            claims: instance.claims().await?,
            rules: instance.rules().await?.version,
            schemas,
            partitions,
        })
    }

    fn judge(&self, name: InstanceName, seen: &Seen, findings: &mut Findings) {
        let probe = &seen.probe;
        let mut add = |level, message| findings.add(level, Some(name), message);
        if probe.server_version_num < OLDEST_SERVER {
            add(
                Level::Error,
                format!(
                    "PostgreSQL {} is too old: 14 or newer is needed",
                    probe.server_version
                ),
            );
        }
        if probe.encoding != "UTF8" {
            add(
                Level::Error,
                format!(
                    "the database's encoding is {}: it must be UTF8",
                    probe.encoding
                ),
            );
        }
        if !probe.may_create {
            add(
                Level::Error,
                format!(
                    "the role {} may not create schemas in the database: grant create on database {} to it",
                    self.config.postgres.user, self.config.postgres.dbname
                ),
            );
        }
        if probe.wal_level != "logical" {
            add(
                Level::Info,
                format!(
                    "wal_level is {}: moving tables between instances needs wal_level = logical (and a restart)",
                    probe.wal_level
                ),
            );
        }
        let needed = i64::from(self.config.postgres.writers + self.config.postgres.readers + 2);
        let free = i64::from(probe.max_connections) - probe.connections;
        if free < needed {
            add(
                Level::Warning,
                format!(
                    "{free} of {} connections are free, but a router takes up to {needed}",
                    probe.max_connections
                ),
            );
        }
        if probe.superuser {
            add(
                Level::Warning,
                format!(
                    "the role {} is a superuser: pgbraid needs no more than an owner of its database",
                    self.config.postgres.user
                ),
            );
        }
        for (feed, schema) in &seen.schemas {
            let strict: Vec<&str> = schema
                .columns
                .iter()
                .filter(|column| column.not_null && !column.generated)
                .map(|column| column.name.as_str())
                .collect();
            if !strict.is_empty() && name == self.map.home {
                add(
                    Level::Warning,
                    format!(
                        "feed {feed}: {} NOT NULL: PostgreSQL checks that before it merges, so \
                         writes that leave such a column out are refused unless it has a default",
                        match strict.as_slice() {
                            [one] => format!("column {one} is"),
                            more => format!("columns {} are", more.join(", ")),
                        }
                    ),
                );
            }
        }
    }

    /// Instances that are missing from the map, and feeds of another number of tables.
    fn compare_counts(
        &self,
        first: InstanceName,
        reference: &Seen,
        seen: &BTreeMap<InstanceName, Seen>,
        findings: &mut Findings,
    ) {
        let claims = reference.claims.iter().filter(|_| first == self.map.home);
        for (instance, tables) in claims {
            let there = |name: &InstanceName| name.to_string() == *instance;
            if !self.map.instances.keys().any(there) {
                findings.add(
                    Level::Error,
                    None,
                    format!(
                        "{instance} holds {tables} tables, but is not in the shard map: put it \
                         back, or its rows can't be written or read"
                    ),
                );
            }
        }
        for (name, seen) in seen {
            for (feed, entry) in &self.map.feeds {
                let stored = seen
                    .stored
                    .iter()
                    .find(|(stored, _)| stored == feed.as_str());
                if let Some((_, tables)) = stored.filter(|(_, tables)| *tables != entry.tables) {
                    findings.add(
                        Level::Error,
                        Some(*name),
                        format!(
                            "feed {feed} was made with {tables} tables, but the shard map says \
                             {}: the number of tables never changes; put {tables} back",
                            entry.tables
                        ),
                    );
                }
            }
        }
    }

    fn compare(&self, seen: &BTreeMap<InstanceName, Seen>, findings: &mut Findings) {
        let Some((first, reference)) = seen
            .get(&self.map.home)
            .map(|seen| (self.map.home, seen))
            .or_else(|| seen.iter().next().map(|(name, seen)| (*name, seen)))
        else {
            return;
        };
        for (name, other) in seen {
            if other.cluster != reference.cluster {
                findings.add(
                    Level::Error,
                    Some(*name),
                    format!(
                        "belongs to cluster {}, but {first} to {}",
                        other.cluster, reference.cluster
                    ),
                );
            }
            if other.rules != reference.rules {
                findings.add(
                    Level::Warning,
                    Some(*name),
                    format!("has rules of version {}, {first} has {}: a running router or `pgbraid migrate` copies them", other.rules, reference.rules),
                );
            }
            for (feed, schema) in &other.schemas {
                if reference
                    .schemas
                    .get(feed)
                    .is_some_and(|one| one.columns != schema.columns || one.key != schema.key)
                {
                    findings.add(
                        Level::Error,
                        Some(*name),
                        format!("feed {feed} has other columns than on {first}: apply the same DDL everywhere with `pgbraid migrate`"),
                    );
                }
            }
        }
        self.compare_counts(first, reference, seen, findings);
        for (feed, entry) in &self.map.feeds {
            let reports = seen.iter().flat_map(|(name, seen)| {
                seen.owned
                    .iter()
                    .filter(|table| table.feed == *feed)
                    .map(|table| (*name, table.table, table.state, table.epoch))
            });
            let owners = resolve(reports, entry.tables);
            for (number, owner) in owners.iter().enumerate() {
                if let TableOwner::Conflict(instances) = owner {
                    findings.add(
                        Level::Error,
                        None,
                        format!("feed {feed}: tbl{number} is owned by {instances:?} at once: it is written nowhere"),
                    );
                }
            }
            let now: Vec<Option<InstanceName>> = owners.iter().map(TableOwner::instance).collect();
            let (mut unowned, mut elsewhere) = (0, 0);
            for one in drift(&entry.placement, &now) {
                match one {
                    Drift::Unowned { .. } => unowned += 1,
                    Drift::Elsewhere { .. } => elsewhere += 1,
                }
            }
            let silent = self.instances.len() - seen.len();
            if unowned > 0 && silent > 0 {
                findings.add(
                    Level::Warning,
                    None,
                    format!(
                        "feed {feed}: {unowned} of {} tables are on instances that do not answer, or not made yet",
                        entry.tables
                    ),
                );
            } else if unowned > 0 {
                findings.add(
                    Level::Warning,
                    None,
                    format!("feed {feed}: {unowned} of {} tables are not made yet: a router makes them at its start, or `pgbraid migrate` does", entry.tables),
                );
            }
            if elsewhere > 0 {
                findings.add(
                    Level::Info,
                    None,
                    format!("feed {feed}: {elsewhere} of {} tables are not where the map wants them (drift); rows go where the tables are", entry.tables),
                );
            }
        }
        let tables: usize = seen
            .values()
            .flat_map(|seen| seen.partitions.values())
            .sum();
        findings.add(
            Level::Info,
            None,
            format!("{} instances answer, with {tables} tables", seen.len()),
        );
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, instance: Option<InstanceName>, message: String) {
        self.0.push(Finding {
            level,
            instance: instance.map(|name| name.to_string()),
            message,
        });
    }
}
