//! `pgbraid migrate`: the schema `pgbraid`, the user's SQL, the missing tables and the rules, on
//! every instance.

use std::time::Duration;

use futures::future::join_all;
use pgbraid_instance::{ChangeFeed, RuleChange, SchemaFile, TableToMake};
use pgbraid_moves::Lease;
use pgbraid_shardmap::{FeedName, InstanceName, TableId, TableOwner, resolve};
use serde::Serialize;
use uuid::Uuid;

use super::{Fleet, FleetError, make_missing};

/// How far a migration is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MigrateEvent {
    /// An instance has the schema `pgbraid` and the user's SQL.
    InstanceDone {
        instance: InstanceName,
        applied: Vec<String>,
        skipped: usize,
    },
    /// Tables of a feed were made on an instance.
    TablesMade {
        feed: FeedName,
        instance: InstanceName,
        made: usize,
    },
}

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigrateSummary {
    /// The cluster.
    pub cluster_id: String,
    /// Instances brought up to date.
    pub instances: usize,
    /// Steps applied now, over all instances.
    pub steps_applied: usize,
    /// Tables made now.
    pub tables_made: usize,
}

/// Another migration may well take this long.
const LOCK_WAIT: Duration = Duration::from_secs(60);

impl Fleet {
    /// Brings every instance up to date. The home goes first: it has the cluster's id.
    ///
    /// # Errors
    /// If tables are being moved, an instance can't be reached, or a step fails; the others are brought up to date all the
    /// same, and a second run goes on where this one stopped.
    pub async fn migrate(
        &self,
        progress: &(dyn Fn(MigrateEvent) + Sync),
    ) -> Result<MigrateSummary, FleetError> {
        let files: Vec<SchemaFile> = self
            .config
            .read_schema()?
            .into_iter()
            .map(|file| SchemaFile {
                name: file
                    .path
                    .file_name()
                    .unwrap_or(file.path.as_os_str())
                    .to_string_lossy()
                    .into_owned(),
                sql: file.sql,
            })
            .collect();
        let lease = self.keep_movers_out(&files).await?;
        let done = self.migrate_alone(&files, lease.as_ref(), progress).await;
        if let Some(lease) = lease {
            lease.release().await;
        }
        done
    }

    /// The same, while nobody moves tables.
    async fn migrate_alone(
        &self,
        files: &[SchemaFile],
        lease: Option<&Lease>,
        progress: &(dyn Fn(MigrateEvent) + Sync),
    ) -> Result<MigrateSummary, FleetError> {
        let home = &self.instances[&self.map.home];
        let of_home = |error| FleetError::of(home.name(), error);
        let found = home.cluster_identity().await.map_err(of_home)?;
        let cluster = match found {
            Some(found) => found.cluster_id,
            None => self.known_cluster().await?.unwrap_or_else(Uuid::new_v4),
        };
        let mut applied = self
            .migrate_one(home.name(), cluster, files, progress)
            .await?;
        if let Some(lease) = lease {
            lease
                .check()
                .map_err(|error| FleetError::Moves(error.to_string()))?;
        }
        let others = self.instances.keys().filter(|name| **name != self.map.home);
        let results =
            join_all(others.map(|name| self.migrate_one(*name, cluster, files, progress))).await;
        let mut errors = Vec::new();
        for result in results {
            match result {
                Ok(steps) => applied += steps,
                Err(error) => errors.push(error),
            }
        }
        FleetError::all(errors)?;
        let tables_made = self.make_tables(progress).await?;
        self.set_changes().await?;
        self.copy_rules().await?;
        if applied > 0 {
            // Routers read the feeds' columns anew.
            home.tell_routers().await.map_err(of_home)?;
        }
        Ok(MigrateSummary {
            cluster_id: cluster.to_string(),
            instances: self.instances.len(),
            steps_applied: applied,
            tables_made,
        })
    }

    /// A cluster whose home is new here: an instance that was migrated before knows its id.
    async fn known_cluster(&self) -> Result<Option<Uuid>, FleetError> {
        let all = join_all(self.instances.values().map(|one| one.cluster_identity())).await;
        for (name, found) in self.instances.keys().zip(all) {
            if let Some(found) = found.map_err(|error| FleetError::of(*name, error))? {
                return Ok(Some(found.cluster_id));
            }
        }
        Ok(None)
    }

    async fn migrate_one(
        &self,
        name: InstanceName,
        cluster: Uuid,
        files: &[SchemaFile],
        progress: &(dyn Fn(MigrateEvent) + Sync),
    ) -> Result<usize, FleetError> {
        let report = self.instances[&name]
            .migrate(cluster, &self.map.home.to_string(), files, LOCK_WAIT)
            .await
            .map_err(|error| FleetError::of(name, error))?;
        let steps = report.applied.len();
        progress(MigrateEvent::InstanceDone {
            instance: name,
            applied: report.applied,
            skipped: report.skipped,
        });
        Ok(steps)
    }

    async fn make_tables(
        &self,
        progress: &(dyn Fn(MigrateEvent) + Sync),
    ) -> Result<usize, FleetError> {
        let home = &self.instances[&self.map.home];
        let of_home = |error| FleetError::of(home.name(), error);
        let schemas = Self::schemas(&self.config, &self.map, home)
            .await
            .map_err(of_home)?;
        let mut reports = Vec::new();
        for (name, instance) in &self.instances {
            let owned = instance
                .ownership()
                .await
                .map_err(|error| FleetError::of(*name, error))?;
            reports.extend(owned.into_iter().map(|table| (*name, table)));
        }
        let mut total = 0;
        for (feed, entry) in &self.map.feeds {
            let of_feed = reports
                .iter()
                .filter(|(_, table)| table.feed == *feed)
                .map(|(name, table)| (*name, table.table, table.state, table.epoch));
            let missing: Vec<TableToMake> = resolve(of_feed, entry.tables)
                .into_iter()
                .zip(&entry.placement)
                .enumerate()
                .filter(|(_, (owner, _))| matches!(owner, TableOwner::Nobody))
                .map(|(number, (_, wanted))| TableToMake {
                    table: TableId::new(number as u32),
                    instance: *wanted,
                })
                .collect();
            let made = make_missing(home, &schemas[feed], &missing, |name| {
                self.instances.get(&name).map(AsRef::as_ref)
            })
            .await?;
            for (instance, made) in made {
                total += made;
                progress(MigrateEvent::TablesMade {
                    feed: feed.clone(),
                    instance,
                    made,
                });
            }
        }
        Ok(total)
    }

    /// Puts into force in the home what the map says of changes; the others copy it.
    async fn set_changes(&self) -> Result<(), FleetError> {
        let home = &self.instances[&self.map.home];
        let of_home = |error| FleetError::of(home.name(), error);
        let told = self.map.feeds.iter().map(|(feed, entry)| ChangeFeed {
            feed: feed.to_string(),
            stream: entry.changes,
            columns: entry.change_columns,
            table_channel: entry.table_channel,
        });
        let told = told.filter(|feed| feed.stream || feed.table_channel);
        let change = RuleChange {
            changes: Some(told.collect()),
            ..RuleChange::default()
        };
        let schemas = Self::schemas(&self.config, &self.map, home).await;
        let schemas = schemas.map_err(of_home)?.into_iter();
        let schemas = schemas
            .map(|(feed, schema)| (feed.to_string(), std::sync::Arc::new(schema)))
            .collect();
        home.edit_rules(&change, &schemas).await.map_err(of_home)?;
        Ok(())
    }

    /// New instances get the rules before their first row. Triggers that an older program has made
    /// are made anew.
    async fn copy_rules(&self) -> Result<(), FleetError> {
        let home = &self.instances[&self.map.home];
        let of = |instance: &pgbraid_instance::Instance| {
            let name = instance.name();
            move |error| FleetError::of(name, error)
        };
        let set = home.rules().await.map_err(of(home))?;
        let schemas = Self::schemas(&self.config, &self.map, home)
            .await
            .map_err(of(home))?;
        let schemas = schemas
            .into_iter()
            .map(|(feed, schema)| (feed.to_string(), std::sync::Arc::new(schema)))
            .collect();
        for instance in self.instances.values() {
            if instance.name() != home.name() {
                let installed = instance.install_rules(&set, &schemas).await;
                installed.map_err(of(instance))?;
            }
            let renewed = instance.renew_triggers(&schemas).await;
            renewed.map_err(of(instance))?;
        }
        Ok(())
    }
}
