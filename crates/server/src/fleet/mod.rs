//! The instances of a map, for commands and for the router: connecting, migrating, checking.

mod check;
mod migrate;
mod no_moves;
mod sites;
mod tables;

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use pgbraid_config::{RouterConfig, ShardMap, SslMode};
use pgbraid_feed::FeedSchema;
use pgbraid_instance::{Connector, ConnectorSettings, DbError, Instance};
use pgbraid_shardmap::{FeedName, InstanceName};
use thiserror::Error;

pub use check::{Finding, Level};
pub use migrate::{MigrateEvent, MigrateSummary};
pub(crate) use tables::make_missing;

/// Why something could not be done to the fleet.
#[derive(Debug, Error)]
pub enum FleetError {
    /// A settings file.
    #[error(transparent)]
    Config(#[from] pgbraid_config::ConfigError),
    /// An instance.
    #[error("{instance}: {source}")]
    Instance {
        /// Which.
        instance: InstanceName,
        /// What.
        source: DbError,
    },
    /// Tables are being moved.
    #[error("{0}")]
    Moves(String),
    /// Several instances.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<FleetError>),
}

impl FleetError {
    pub(crate) fn of(instance: InstanceName, source: DbError) -> Self {
        Self::Instance { instance, source }
    }

    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

/// The instances of a map.
pub struct Fleet {
    /// Settings.
    pub config: Arc<RouterConfig>,
    /// The map.
    pub map: Arc<ShardMap>,
    /// By name.
    pub instances: BTreeMap<InstanceName, Arc<Instance>>,
}

/// Makes the instance of a name; connects when first used.
pub(crate) fn instance(
    config: &RouterConfig,
    map: &ShardMap,
    name: InstanceName,
    password: Option<&str>,
) -> Result<Arc<Instance>, FleetError> {
    let postgres = &config.postgres;
    let size = (postgres.writers, postgres.readers);
    instance_as(config, map, name, &postgres.user, password, size)
}

/// The same, under some role, with so many writers and readers.
fn instance_as(
    config: &RouterConfig,
    map: &ShardMap,
    name: InstanceName,
    user: &str,
    password: Option<&str>,
    (writers, readers): (u32, u32),
) -> Result<Arc<Instance>, FleetError> {
    let spec = &map.instances[&name];
    let postgres = &config.postgres;
    let settings = ConnectorSettings {
        user: user.to_owned(),
        dbname: postgres.dbname.clone(),
        search_path: postgres.search_path.clone(),
        ssl_mode: match postgres.sslmode {
            SslMode::Disable => pgbraid_instance::SslMode::Disable,
            SslMode::Prefer => pgbraid_instance::SslMode::Prefer,
            SslMode::Require => pgbraid_instance::SslMode::Require,
            SslMode::VerifyFull => pgbraid_instance::SslMode::VerifyFull,
        },
        ssl_root_cert: postgres.ssl_root_cert.clone(),
        connect_timeout: postgres.connect_timeout,
        statement_timeout: postgres.statement_timeout,
        lock_timeout: postgres.lock_timeout,
        tcp_user_timeout: postgres.tcp_user_timeout,
    };
    let hosts: Vec<(String, u16)> = spec
        .hosts
        .iter()
        .map(|host| (host.host.clone(), host.port))
        .collect();
    let connector = Connector::new(name, &hosts, &settings, spec.dbname.as_deref(), password)
        .map_err(|error| FleetError::of(name, error))?;
    Ok(Instance::new(
        connector,
        writers,
        readers,
        postgres.statement_cache,
        postgres.connect_timeout,
    ))
}

impl Fleet {
    /// The instances of a map. Nothing is connected yet.
    ///
    /// # Errors
    /// If the password or certificates can't be read.
    pub fn new(config: Arc<RouterConfig>, map: Arc<ShardMap>) -> Result<Self, FleetError> {
        let password = config.postgres.password()?;
        let instances = map
            .instances
            .keys()
            .map(|name| Ok((*name, instance(&config, &map, *name, password.as_deref())?)))
            .collect::<Result<_, FleetError>>()?;
        Ok(Self {
            config,
            map,
            instances,
        })
    }

    /// Alerts kept, over all instances.
    ///
    /// # Errors
    /// If one of them can't be asked.
    pub async fn count_alerts(&self) -> Result<i64, FleetError> {
        let counts = join_all(self.instances.values().map(|one| one.count_alerts())).await;
        let mut total = 0;
        for (name, count) in self.instances.keys().zip(counts) {
            total += count.map_err(|error| FleetError::of(*name, error))?;
        }
        Ok(total)
    }

    /// The feeds as an instance has them, completed by the settings.
    pub(crate) async fn schemas(
        config: &RouterConfig,
        map: &ShardMap,
        instance: &Instance,
    ) -> Result<BTreeMap<FeedName, FeedSchema>, DbError> {
        let mut schemas = BTreeMap::new();
        for (feed, entry) in &map.feeds {
            let settings = config.feed(feed);
            let table = &settings.table;
            let schema = instance
                .feed_schema(feed, &table.schema, &table.name, entry.tables)
                .await?;
            schemas.insert(feed.clone(), crate::schema::apply(schema, &settings)?);
        }
        Ok(schemas)
    }
}
