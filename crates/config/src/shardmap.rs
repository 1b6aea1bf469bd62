//! shardmap.toml, checked.

use std::collections::BTreeMap;
use std::path::Path;

use pgbraid_shardmap::{FeedName, InstanceName, MAX_WEIGHT, PlacementError, TableId, place};

use crate::at::At;
use crate::check::Check;
use crate::error::ConfigError;
use crate::fingerprint::fingerprint;
use crate::hosts::HostPort;
use crate::pins;
use crate::raw::shardmap::{RawFeedMap, RawInstance, RawShardMap, RawUnpinned};
use crate::source::Source;
use crate::units::Size;

/// The most tables of one feed.
pub const MAX_TABLES: u32 = 4096;

/// The instances, and where each table of each feed should live: the wish, not the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    /// The instance that keeps the claims of the cluster; one of `instances`.
    pub home: InstanceName,
    /// At least one.
    pub instances: BTreeMap<InstanceName, InstanceSpec>,
    /// At least one.
    pub feeds: BTreeMap<FeedName, FeedMap>,
    /// 16 hexadecimal digits of what the map means: equal maps have equal ones, however written.
    pub fingerprint: String,
}

/// One instance: a PostgreSQL with its standbys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// At least one, each once; the writable one is used.
    pub hosts: Vec<HostPort>,
    /// The share of the tables without a pin, relative to the other instances.
    pub weight: u32,
    /// The database, where it is not the router's `postgres.dbname`.
    pub dbname: Option<String>,
    /// Bytes that the database may take, if that is told.
    pub disk: Option<u64>,
}

/// The tables of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedMap {
    /// The number of tables, 1 to [`MAX_TABLES`].
    pub tables: u32,
    /// The tables that the file pins.
    pub pins: BTreeMap<TableId, InstanceName>,
    /// The wanted instance of every table: element `i` is that of table `i`.
    pub placement: Vec<InstanceName>,
    /// Whether it is to tell of its changes.
    pub changes: bool,
    /// Whether it is to tell which columns an update changed.
    pub change_columns: bool,
    /// Whether it is to notify `<table>_chan` of every row.
    pub table_channel: bool,
}

impl ShardMap {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML of this shape, or describes a map that cannot be.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::build(&Source::read(path.as_ref(), "the shard map")?)
    }

    /// Checks a text. Errors call it `origin`.
    ///
    /// # Errors
    /// The text is not TOML of this shape, or describes a map that cannot be.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        Self::build(&Source {
            origin: origin.to_owned(),
            text: text.to_owned(),
        })
    }

    fn build(source: &Source) -> Result<Self, ConfigError> {
        let raw: RawShardMap = source.parse()?;
        let check = Check {
            source,
            folder: Path::new(""),
        };
        let instances = instances(check, &raw.instances)?;
        let Some(&lowest) = instances.keys().next() else {
            let help = "add one: [instances.db0] with host = \"127.0.0.1\"";
            return Err(source.error(None, "there are no instances", help));
        };
        let home = match &raw.home {
            Some(at) => known_instance(check, "home", at, &instances)?,
            None => lowest,
        };
        let mut feeds = BTreeMap::new();
        for (at, raw) in &raw.feeds {
            let name =
                FeedName::parse(at).map_err(|error| check.refuse(at, error.to_string(), ""))?;
            let feed = feed(check, at, &name, raw, &instances)?;
            feeds.insert(name, feed);
        }
        if feeds.is_empty() {
            let help = "add one: [feeds.orders] with tables = 64";
            return Err(source.error(None, "there are no feeds", help));
        }
        let fingerprint = fingerprint(home, &instances, &feeds);
        Ok(Self {
            home,
            instances,
            feeds,
            fingerprint,
        })
    }
}

type Instances = BTreeMap<InstanceName, InstanceSpec>;

/// An instance of the map by its name.
pub(crate) fn known_instance(
    check: Check<'_>,
    what: &str,
    at: &At<String>,
    instances: &Instances,
) -> Result<InstanceName, ConfigError> {
    let name = instance_name(check, at)?;
    if instances.contains_key(&name) {
        return Ok(name);
    }
    let help = format!("add [instances.{name}], or correct the name");
    Err(check.refuse(at, format!("{what}: there is no instance {name}"), help))
}

fn instance_name(check: Check<'_>, at: &At<String>) -> Result<InstanceName, ConfigError> {
    at.parse()
        .map_err(|error: pgbraid_shardmap::NameError| check.refuse(at, error.to_string(), ""))
}

fn instances(
    check: Check<'_>,
    raw: &BTreeMap<At<String>, RawInstance>,
) -> Result<Instances, ConfigError> {
    let mut instances = BTreeMap::new();
    let mut taken: BTreeMap<(HostPort, Option<String>), InstanceName> = BTreeMap::new();
    // In the order of the file, so that of two that clash the later one is pointed at.
    let mut in_order: Vec<_> = raw.iter().collect();
    in_order.sort_by_key(|(at, _)| at.span().map(|span| span.start));
    for (at, raw) in in_order {
        let name = instance_name(check, at)?;
        let spec = instance(check, name, at, raw)?;
        for host in &spec.hosts {
            let place = (host.clone(), spec.dbname.clone());
            if let Some(other) = taken.insert(place, name) {
                let (message, help) = if other == name {
                    let message = format!("{name}: host {host} is listed twice");
                    (message, "list each host once")
                } else {
                    let message = format!("{other} and {name} are the same database at {host}");
                    (
                        message,
                        "each instance is a PostgreSQL of its own: correct the host or port, or set another dbname",
                    )
                };
                return Err(check.refuse(at, message, help));
            }
        }
        instances.insert(name, spec);
    }
    Ok(instances)
}

fn instance(
    check: Check<'_>,
    name: InstanceName,
    at: &At<String>,
    raw: &RawInstance,
) -> Result<InstanceSpec, ConfigError> {
    let port = match &raw.port {
        Some(at) => check.count(&format!("{name}: port"), at, 1..=65_535)?,
        None => 5432,
    };
    let parse = |at: &At<String>| {
        let bad = |why| check.refuse(at, format!("{name}: {why}"), "");
        HostPort::parse(at, port).map_err(bad)
    };
    let hosts = match (&raw.host, &raw.hosts) {
        (Some(host), None) => vec![parse(host)?],
        (None, Some(hosts)) if !hosts.is_empty() => {
            hosts.iter().map(parse).collect::<Result<_, _>>()?
        }
        (None, Some(hosts)) => {
            let help = "list the primary and its standbys";
            return Err(check.refuse(hosts, format!("{name}: hosts is empty"), help));
        }
        (Some(_), Some(hosts)) => {
            let message = format!("{name} has both host and hosts");
            return Err(check.refuse(hosts, message, "keep one of the two"));
        }
        (None, None) => {
            let message = format!("{name} has no host");
            let help =
                "add host = \"..\", or hosts = [\"..\", \"..\"] for a primary and its standbys";
            return Err(check.refuse(at, message, help));
        }
    };
    let weight = match &raw.weight {
        Some(at) => check.count(&format!("{name}: weight"), at, 0..=i64::from(MAX_WEIGHT))?,
        None => 1,
    };
    let dbname = raw.dbname.as_ref();
    let dbname = dbname.map(|at| check.name(&format!("{name}: dbname"), at));
    let range = Size::mib(1)..=Size::mib(1 << 40);
    let disk = raw.disk.as_ref();
    let disk = disk.map(|at| check.within(&format!("{name}: disk"), at, range));
    Ok(InstanceSpec {
        hosts,
        weight,
        dbname: dbname.transpose()?,
        disk: disk.transpose()?.map(|size| size.0),
    })
}

fn feed(
    check: Check<'_>,
    at: &At<String>,
    name: &FeedName,
    raw: &RawFeedMap,
    instances: &Instances,
) -> Result<FeedMap, ConfigError> {
    let key = format!("feeds.{name}.tables");
    let tables = check.count(&key, &raw.tables, 1..=i64::from(MAX_TABLES))?;
    let pins = pins::build(check, name, tables, &raw.pins, instances)?;
    if raw.unpinned == RawUnpinned::Refuse {
        pins::refuse_holes(check, at, name, tables, &pins)?;
    }
    let weights: Vec<_> = instances
        .iter()
        .map(|(&instance, spec)| (instance, spec.weight))
        .collect();
    let placement = place(name, tables, &weights, &pins).map_err(|error| match error {
        PlacementError::NoWeight { unpinned, .. } => check.refuse(
            at,
            format!(
                "{unpinned} of {tables} tables of feed {name} are not pinned, and every weight is 0"
            ),
            "pin them, or give an instance a weight above 0",
        ),
        other => check.refuse(at, other.to_string(), ""),
    })?;
    let change_columns = raw.change_columns.as_ref().filter(|at| ***at);
    if let (Some(at), false) = (change_columns, raw.changes) {
        return Err(check.refuse(
            at,
            format!("feed {name} is to tell which columns change, and not of changes"),
            "write `changes = true` as well",
        ));
    }
    let change_columns = change_columns.is_some();
    Ok(FeedMap {
        tables,
        pins,
        placement,
        changes: raw.changes,
        change_columns,
        table_channel: raw.table_channel,
    })
}
