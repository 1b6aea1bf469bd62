//! Makes the tables that the map wants and nobody owns.
//!
//! Two routers with different files may want to make the same table in two places. So each table
//! is claimed in the home first, for good: the first claim wins, and whoever comes second makes the
//! table where the claim says, or finds it made.

use std::collections::BTreeMap;

use futures::future::join_all;
use pgbraid_feed::FeedSchema;
use pgbraid_instance::{Instance, TableToMake};
use pgbraid_shardmap::{InstanceName, TableId};

use super::FleetError;

/// Tables made, by instance.
pub(crate) type Made = Vec<(InstanceName, usize)>;

/// Claims tables and makes those whose claim names an instance of this map.
pub(crate) async fn make_missing<'a>(
    home: &Instance,
    schema: &FeedSchema,
    missing: &[TableToMake],
    instance: impl Fn(InstanceName) -> Option<&'a Instance>,
) -> Result<Made, FleetError> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let claims = home
        .claim(&schema.feed, missing)
        .await
        .map_err(|error| FleetError::of(home.name(), error))?;
    let mut by_instance: BTreeMap<InstanceName, Vec<TableId>> = BTreeMap::new();
    for claim in claims {
        by_instance
            .entry(claim.instance)
            .or_default()
            .push(claim.table);
    }
    let made = join_all(by_instance.iter().filter_map(|(name, tables)| {
        let instance = instance(*name)?;
        Some(async move { (*name, instance.make_tables(schema, tables).await) })
    }))
    .await;
    let mut report = Vec::new();
    let mut errors = Vec::new();
    for (name, result) in made {
        match result {
            Ok(count) => report.push((name, count)),
            Err(error) => errors.push(FleetError::of(name, error)),
        }
    }
    FleetError::all(errors)?;
    Ok(report)
}
