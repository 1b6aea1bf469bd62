//! What the services share.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pgbraid_alerts::Hub;
use pgbraid_config::{RouterConfig, ShardMap};
use pgbraid_feed::FeedSchema;
use pgbraid_ingest::Ingest;
use pgbraid_instance::OwnedTable;
use pgbraid_shardmap::{FeedName, InstanceName, TableOwner};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{groups::Groups, node::Node};

/// The map and what the instances say, at one moment.
#[derive(Clone)]
pub(crate) struct Topology {
    pub map: Arc<ShardMap>,
    pub nodes: BTreeMap<InstanceName, Arc<Node>>,
    pub schemas: BTreeMap<FeedName, Arc<FeedSchema>>,
    /// The last that each instance said of its tables.
    pub reports: BTreeMap<InstanceName, Vec<OwnedTable>>,
    /// When it was asked for that.
    pub asked: BTreeMap<InstanceName, Instant>,
    pub owners: BTreeMap<FeedName, Vec<TableOwner>>,
    /// Version of the rules that each instance has.
    pub rules: BTreeMap<InstanceName, i64>,
    /// Instances whose rules' triggers an older version has made.
    pub outdated: BTreeSet<InstanceName>,
    /// Version of the consumer groups that each instance has.
    pub groups: BTreeMap<InstanceName, i64>,
    /// Instances that could not be asked when they were asked last, and why.
    pub unreachable: BTreeMap<InstanceName, String>,
    pub versions: BTreeMap<InstanceName, String>,
}

pub(crate) struct Shared {
    pub config: Arc<RouterConfig>,
    pub map_path: PathBuf,
    pub cluster: Uuid,
    pub ingest: Arc<Ingest>,
    pub hub: Arc<Hub>,
    pub groups: Groups,
    pub topology: ArcSwap<Topology>,
    /// Held while the topology is replaced.
    pub publishing: Mutex<()>,
    /// Why the last reload of the map was refused.
    pub map_error: ArcSwap<Option<String>>,
    /// Something changed: ask the instances again.
    pub refresh: Arc<Notify>,
    /// Instances that said so themselves: what they own is read at once.
    pub heard_from: Mutex<BTreeSet<InstanceName>>,
    /// Some did.
    pub news: Notify,
    /// What they said is in force: the rest is to be asked in turn.
    pub told: Notify,
    /// Another map is in force: whoever moves tables looks at it.
    pub map_changed: Notify,
    /// What automatic moves tell.
    pub auto: Arc<crate::auto::Told>,
    /// Read the map again.
    pub reload: Arc<Notify>,
    /// What the outboxes hold.
    pub kept: crate::retention::KeptByInstance,
    pub started: SystemTime,
    pub ready: AtomicBool,
    /// True once the router drains.
    pub draining: watch::Sender<bool>,
}

impl Shared {
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !*self.draining.borrow()
    }

    /// The feed of a request, or the error that names those there are.
    pub fn schema(&self, feed: &str) -> Result<Arc<FeedSchema>, tonic::Status> {
        self.schema_at(feed, "feed")
    }

    /// A feed that stands in `field` of a request.
    pub fn schema_at(&self, feed: &str, field: &str) -> Result<Arc<FeedSchema>, tonic::Status> {
        let topology = self.topology.load();
        FeedName::parse(feed)
            .ok()
            .and_then(|name| topology.schemas.get(&name).cloned())
            .ok_or_else(|| {
                let known: Vec<&str> = topology.schemas.keys().map(FeedName::as_str).collect();
                crate::grpc::status::bad_field(
                    "UNKNOWN_FEED",
                    field,
                    format!(
                        "there is no feed {feed:?}: the shard map has {}",
                        known.join(", ")
                    ),
                )
            })
    }
}
