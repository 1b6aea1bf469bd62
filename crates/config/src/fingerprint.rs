//! A short name for what a shard map means.

use std::collections::BTreeMap;
use std::fmt::Write;

use pgbraid_shardmap::{FeedName, InstanceName, hash};

use crate::shardmap::{FeedMap, InstanceSpec};

/// 16 hexadecimal digits that are equal for equal maps, on every platform and in every version.
///
/// The parts are written one after the other, free text with its length before it so that no two
/// maps are written alike, and hashed with the one hash here that never changes, PostgreSQL's.
pub(crate) fn fingerprint(
    home: InstanceName,
    instances: &BTreeMap<InstanceName, InstanceSpec>,
    feeds: &BTreeMap<FeedName, FeedMap>,
) -> String {
    let mut text = format!("1 home {home}");
    // Writing to a String cannot fail.
    for (name, spec) in instances {
        let InstanceSpec {
            hosts,
            weight,
            dbname,
            disk,
        } = spec;
        let _ = write!(text, "\ninstance {name} weight {weight}");
        if let Some(dbname) = dbname {
            let _ = write!(text, " dbname {}:{dbname}", dbname.len());
        }
        if let Some(disk) = disk {
            let _ = write!(text, " disk {disk}");
        }
        for host in hosts {
            let _ = write!(
                text,
                " host {}:{} {}",
                host.host.len(),
                host.host,
                host.port
            );
        }
    }
    for (name, feed) in feeds {
        let FeedMap {
            tables,
            pins,
            placement,
            changes,
            change_columns,
            table_channel,
        } = feed;
        let _ = write!(text, "\nfeed {name} tables {tables} pins");
        for (table, instance) in pins {
            let _ = write!(text, " {table} {instance}");
        }
        text.push_str(" placement");
        for instance in placement {
            let _ = write!(text, " {instance}");
        }
        for (told, what) in [
            (changes, " changes"),
            (change_columns, " change_columns"),
            (table_channel, " table_channel"),
        ] {
            if *told {
                text.push_str(what);
            }
        }
    }
    format!("{:016x}", hash::bytes(text.as_bytes()))
}
