//! Asks all instances what a plan needs to know.

use std::collections::BTreeMap;

use futures::future::{join_all, try_join, try_join3};
use pgbraid_instance::{
    ColumnShape, DbError, Leftover, MoveFacts, MoveRecord, OwnedTable, TableSize,
};
use pgbraid_shardmap::{FeedName, InstanceName, TableId, TableOwner, resolve};
use uuid::Uuid;

use crate::{
    MoveError,
    estimate::Pace,
    settings::{Site, Sites},
};

/// What the instances say.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The cluster.
    pub cluster: Uuid,
    /// Owners by feed and table.
    pub owners: BTreeMap<FeedName, Vec<TableOwner>>,
    /// Moves under way.
    pub open: Vec<MoveRecord>,
    /// How fast the moves were that have ended.
    pub pace: Pace,
    pub(crate) by_instance: BTreeMap<InstanceName, Facts>,
    /// Tables that the home gives to each instance, whether the map has it or not.
    pub claims: Vec<(String, i64)>,
    /// Instances that do not answer, and why.
    pub silent: BTreeMap<InstanceName, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub facts: MoveFacts,
    pub may_replicate: bool,
    pub sizes: BTreeMap<FeedName, Vec<TableSize>>,
    pub shapes: BTreeMap<FeedName, Vec<ColumnShape>>,
    pub leftovers: BTreeMap<FeedName, Vec<Leftover>>,
}

impl Survey {
    /// Forgets what is on other instances, but not what they own.
    pub fn keep_only(&mut self, wanted: impl Fn(InstanceName) -> bool) {
        self.by_instance.retain(|name, _| wanted(*name));
    }

    pub(crate) fn size(
        &self,
        feed: &FeedName,
        instance: InstanceName,
        table: TableId,
    ) -> Option<TableSize> {
        let sizes = self.by_instance.get(&instance)?.sizes.get(feed)?;
        sizes.iter().find(|size| size.table == table).copied()
    }
}

/// So many of the last moves say how fast they are.
const RECENT: i64 = 100;

/// Asks.
///
/// # Errors
/// If the home does not answer, or an instance is not what the map says. Others that do not answer
/// are noted.
pub async fn survey(sites: &Sites, tables: &BTreeMap<FeedName, u32>) -> Result<Survey, MoveError> {
    let home = sites.home()?;
    let of_home = |error| MoveError::of(home.name(), error);
    let cluster = home.verify_cluster(None).await.map_err(of_home)?;
    for site in sites.by_name.values() {
        site.instance.expect_cluster(cluster);
        site.admin.expect_cluster(cluster);
    }
    let moves = home.moves(RECENT).await.map_err(of_home)?;
    let (ended, open): (Vec<_>, Vec<_>) = moves
        .into_iter()
        .partition(|record| record.outcome.is_some());
    let mut seen = Survey {
        cluster,
        open,
        pace: Pace::of(&ended),
        claims: home.claims().await.map_err(of_home)?,
        ..Survey::default()
    };
    let answers = join_all(sites.by_name.values().map(|site| ask(site, sites, cluster))).await;
    let mut reports = Vec::new();
    for (name, answer) in sites.by_name.keys().zip(answers) {
        match answer {
            Ok((owned, stored, facts)) => {
                same_count(tables, *name, &stored)?;
                reports.extend(owned.into_iter().map(|table| (*name, table)));
                seen.by_instance.insert(*name, facts);
            }
            Err(error) if error.is_transient() => {
                seen.silent.insert(*name, error.message);
            }
            Err(error) => return Err(MoveError::of(*name, error)),
        }
    }
    for (feed, tables) in tables {
        let of_feed = (reports.iter())
            .filter(|(_, table)| table.feed == *feed)
            .map(|(name, table)| (*name, table.table, table.state, table.epoch));
        seen.owners.insert(feed.clone(), resolve(of_feed, *tables));
    }
    Ok(seen)
}

/// Refuses a feed whose number of tables in the map is not the one it was made with: each key would
/// belong to another table, and the partitions would not fit together.
fn same_count(
    tables: &BTreeMap<FeedName, u32>,
    instance: InstanceName,
    stored: &[(String, u32)],
) -> Result<(), MoveError> {
    for (feed, made) in stored {
        let wanted = FeedName::parse(feed)
            .ok()
            .and_then(|feed| tables.get(&feed));
        if let Some(wanted) = wanted.filter(|wanted| *wanted != made) {
            return Err(MoveError::Refused(format!(
                "feed {feed} was made with {made} tables on {instance}, but the shard map says \
                 {wanted}: the number of tables never changes; put {made} back"
            )));
        }
    }
    Ok(())
}

async fn ask(
    site: &Site,
    sites: &Sites,
    cluster: Uuid,
) -> Result<(Vec<OwnedTable>, Vec<(String, u32)>, Facts), DbError> {
    let instance = &site.instance;
    instance.verify_cluster(Some(cluster)).await?;
    let owned = instance.ownership().await?;
    let stored = instance.stored_feeds().await?;
    let (facts, may_replicate) =
        try_join(site.admin.move_facts(), instance.may_replicate()).await?;
    let mut all = Facts {
        facts,
        may_replicate,
        sizes: BTreeMap::new(),
        shapes: BTreeMap::new(),
        leftovers: BTreeMap::new(),
    };
    for (feed, schema) in &sites.schemas {
        let (sizes, shapes, leftovers) = try_join3(
            instance.table_sizes(schema),
            instance.column_shapes(schema),
            instance.leftovers(schema),
        )
        .await?;
        all.sizes.insert(feed.clone(), sizes);
        all.shapes.insert(feed.clone(), shapes);
        all.leftovers.insert(feed.clone(), leftovers);
    }
    Ok((owned, stored, all))
}
