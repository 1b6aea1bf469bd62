//! Which instance each table is written to, as the instances themselves say.

use std::{collections::HashMap, sync::Arc};

use pgbraid_feed::FeedSchema;
use pgbraid_shardmap::{FeedName, InstanceName};

/// Who takes a table's rows now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// This instance.
    One(InstanceName),
    /// Moving away from this instance: rows wait there until the new owner is known.
    Held(InstanceName),
    /// No instance that can be asked.
    Nobody,
    /// Several instances say that they own it: it is written nowhere.
    Conflict(Vec<InstanceName>),
}

/// A feed and the owners of its tables, by table.
#[derive(Clone, Debug)]
pub struct FeedRoute {
    /// The feed.
    pub schema: Arc<FeedSchema>,
    /// Owner of each table.
    pub owners: Vec<Owner>,
}

/// All feeds.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// By feed.
    pub feeds: HashMap<FeedName, FeedRoute>,
}
