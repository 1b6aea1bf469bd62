//! Pins: which tables the file gives to which instance.

use std::collections::BTreeMap;

use pgbraid_shardmap::{FeedName, InstanceName, TableId};

use crate::at::At;
use crate::check::Check;
use crate::error::ConfigError;
use crate::raw::shardmap::PinItem;
use crate::shardmap::{InstanceSpec, known_instance};

/// Every pinned table with its instance; each table once.
pub(crate) fn build(
    check: Check<'_>,
    feed: &FeedName,
    tables: u32,
    raw: &BTreeMap<At<String>, Vec<At<PinItem>>>,
    instances: &BTreeMap<InstanceName, InstanceSpec>,
) -> Result<BTreeMap<TableId, InstanceName>, ConfigError> {
    let mut items = Vec::new();
    for (at, pinned) in raw {
        let instance = known_instance(check, &format!("feeds.{feed}.pins"), at, instances)?;
        items.extend(pinned.iter().map(|item| (instance, item)));
    }
    // In the order of the file, so that of two that overlap the later one is pointed at.
    items.sort_by_key(|(_, item)| item.span().map(|span| span.start));

    let mut pins: BTreeMap<TableId, (InstanceName, &At<PinItem>)> = BTreeMap::new();
    for (instance, item) in items {
        let PinItem { first, last } = **item;
        if first > last {
            let help = format!("write \"{last}-{first}\"");
            return Err(check.refuse(item, format!("the range {first}-{last} is reversed"), help));
        }
        if last >= tables {
            let message = format!(
                "feed {feed} has {tables} tables: there is no {}",
                TableId::new(last)
            );
            let help = format!("its tables are 0 to {}", tables - 1);
            return Err(check.refuse(item, message, help));
        }
        for table in (first..=last).map(TableId::new) {
            if let Some((other, before)) = pins.insert(table, (instance, item)) {
                let line = before
                    .span()
                    .map_or(0, |span| check.source.line_of(span.start));
                let message = format!(
                    "{table} of feed {feed} is pinned twice: to {other} (line {line}) and to {instance}"
                );
                return Err(check.refuse(item, message, "pin each table once"));
            }
        }
    }
    let pins = pins.into_iter();
    Ok(pins
        .map(|(table, (instance, _))| (table, instance))
        .collect())
}

/// How many missing tables an error names.
const NAMED: usize = 8;

/// For `unpinned = "refuse"`: every table must be pinned.
pub(crate) fn refuse_holes(
    check: Check<'_>,
    at: &At<String>,
    feed: &FeedName,
    tables: u32,
    pins: &BTreeMap<TableId, InstanceName>,
) -> Result<(), ConfigError> {
    let missing: Vec<_> = (0..tables)
        .map(TableId::new)
        .filter(|table| !pins.contains_key(table))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let named: Vec<_> = missing.iter().take(NAMED).map(TableId::to_string).collect();
    let more = match missing.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "feed {feed}: {} of {tables} tables are pinned to no instance: {}{more}",
        missing.len(),
        named.join(", ")
    );
    let help = "pin them, or set unpinned = \"hash\" to have them spread";
    Err(check.refuse(at, message, help))
}
