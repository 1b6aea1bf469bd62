//! The instances as moves see them, and the settings of moves.

use std::{collections::BTreeMap, sync::Arc};

use pgbraid_config::{RouterConfig, ShardMap};
use pgbraid_moves::{MoveSettings, Site, Sites, Wish};
use pgbraid_shardmap::FeedName;

use super::{Fleet, FleetError, instance_as};

/// Connections of a mover to an instance, beside those of each move. Several moves note how far
/// they are at once.
const READERS: u32 = 4;

impl Fleet {
    /// The instances, each also under the role that makes subscriptions, and the feeds as the home
    /// has them.
    ///
    /// # Errors
    /// If the home does not answer, or a password can't be read.
    pub async fn sites(&self) -> Result<Sites, FleetError> {
        let home = &self.instances[&self.map.home];
        let schemas = Self::schemas(&self.config, &self.map, home)
            .await
            .map_err(|error| FleetError::of(home.name(), error))?;
        let schemas = schemas
            .into_iter()
            .map(|(feed, schema)| (feed, Arc::new(schema)))
            .collect();
        let by_name = sites(&self.config, &self.map)?;
        Ok(Sites {
            home: self.map.home,
            by_name,
            schemas,
        })
    }

    /// What the map wants.
    pub fn wish(&self) -> Wish {
        Self::wish_of(&self.map)
    }

    /// What a map wants.
    pub(crate) fn wish_of(map: &ShardMap) -> Wish {
        let placement = |feed: &pgbraid_config::FeedMap| feed.placement.clone();
        Wish {
            fingerprint: map.fingerprint.clone(),
            disk: (map.instances.iter())
                .filter_map(|(name, spec)| Some((*name, spec.disk?)))
                .collect(),
            placement: (map.feeds.iter())
                .map(|(name, feed)| (name.clone(), placement(feed)))
                .collect(),
        }
    }

    /// Number of tables of each feed.
    pub fn tables(&self) -> BTreeMap<FeedName, u32> {
        let feeds = self.map.feeds.iter();
        feeds
            .map(|(name, feed)| (name.clone(), feed.tables))
            .collect()
    }

    /// The settings of moves.
    pub fn move_settings(&self) -> MoveSettings {
        let moves = &self.config.moves;
        MoveSettings {
            at_once: moves.at_once,
            per_instance: moves.per_instance,
            bytes_per_second: moves.bytes_per_second,
            max_lag: moves.max_lag,
            lock_timeout: moves.lock_timeout,
            cutover_timeout: moves.cutover_timeout,
            retry_min: moves.retry_min,
            retry_max: moves.retry_max,
            patience: moves.patience,
            lease: moves.lease,
            keep: moves.keep,
            passfile: moves.passfile.clone(),
            root_cert: moves.ssl_root_cert.clone(),
        }
    }
}

fn sites(
    config: &RouterConfig,
    map: &ShardMap,
) -> Result<BTreeMap<pgbraid_shardmap::InstanceName, Site>, FleetError> {
    let password = config.postgres.password()?;
    let admin_password = config.moves.password()?;
    let mut by_name = BTreeMap::new();
    for name in map.instances.keys() {
        let user = &config.postgres.user;
        let size = (1, READERS);
        let one = instance_as(config, map, *name, user, password.as_deref(), size)?;
        let admin = match &config.moves.user {
            Some(user) => instance_as(config, map, *name, user, admin_password.as_deref(), size)?,
            None => one.clone(),
        };
        by_name.insert(
            *name,
            Site {
                instance: one,
                admin,
            },
        );
    }
    Ok(by_name)
}
