//! Limits and timings of moves, and the instances they work on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pgbraid_feed::FeedSchema;
use pgbraid_instance::Instance;
use pgbraid_shardmap::{FeedName, InstanceName};

use crate::MoveError;

/// Limits and timings.
#[derive(Clone, Debug)]
pub struct MoveSettings {
    /// Moves at a time, in all.
    pub at_once: usize,
    /// Moves at a time that an instance takes part in.
    pub per_instance: usize,
    /// No move is started while more than this was moved a second since the beginning.
    pub bytes_per_second: Option<u64>,
    /// A table is cut over once its lag is no more bytes than this.
    pub max_lag: u64,
    /// Longest that a cut-over waits for a table's writers to let it lock the table.
    pub lock_timeout: Duration,
    /// Longest that writers wait for a cut-over before it is undone and tried again.
    pub cutover_timeout: Duration,
    /// First and longest wait between tries of a cut-over, and after an outage.
    pub retry_min: Duration,
    /// See `retry_min`.
    pub retry_max: Duration,
    /// A move that meets outages for longer than this is given up; the next `apply` goes on with it.
    pub patience: Duration,
    /// A mover that was not heard of for this long is taken for dead.
    pub lease: Duration,
    /// What is left of a table is kept for this long.
    pub keep: Duration,
    /// On the instances: a file with passwords, instead of passwords in subscriptions.
    pub passfile: Option<String>,
    /// On the instances: who signs the other instances' certificates.
    pub root_cert: Option<String>,
}

impl Default for MoveSettings {
    fn default() -> Self {
        Self {
            at_once: 4,
            per_instance: 1,
            bytes_per_second: None,
            max_lag: 1 << 20,
            lock_timeout: Duration::from_millis(250),
            cutover_timeout: Duration::from_millis(1000),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
            patience: Duration::from_secs(60),
            lease: Duration::from_secs(15),
            keep: Duration::from_secs(3600),
            passfile: None,
            root_cert: None,
        }
    }
}

/// One instance, under both roles.
#[derive(Clone)]
pub struct Site {
    /// As routers reach it.
    pub instance: Arc<Instance>,
    /// Under a role that may make subscriptions; the same, if that one may.
    pub admin: Arc<Instance>,
}

/// All instances of a map, and the feeds.
#[derive(Clone)]
pub struct Sites {
    /// The instance that keeps the claims.
    pub home: InstanceName,
    /// By name.
    pub by_name: BTreeMap<InstanceName, Site>,
    /// The feeds, as the home has them.
    pub schemas: BTreeMap<FeedName, Arc<FeedSchema>>,
}

impl Sites {
    /// An instance of the map.
    pub(crate) fn site(&self, name: InstanceName) -> Result<&Site, MoveError> {
        self.by_name.get(&name).ok_or(MoveError::NoInstance(name))
    }

    /// The home.
    pub(crate) fn home(&self) -> Result<&Instance, MoveError> {
        Ok(&self.site(self.home)?.instance)
    }

    pub(crate) fn schema(&self, feed: &FeedName) -> Result<&Arc<FeedSchema>, MoveError> {
        self.schemas
            .get(feed)
            .ok_or_else(|| MoveError::NoFeed(feed.clone()))
    }
}
