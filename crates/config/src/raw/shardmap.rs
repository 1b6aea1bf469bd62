//! `shardmap.toml` as it is written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::at::At;
use crate::units::Size;

/// Which instances there are, and where each table of each feed should live. The file is a wish:
/// which instance owns a table is kept in the instances.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename = "shardmap.toml")]
pub(crate) struct RawShardMap {
    /// The instance that keeps the claims of the cluster. Default: the one with the lowest number.
    pub home: Option<At<String>>,
    /// The instances, db0 to db255.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": "^db(0|[1-9][0-9]{0,2})$" }))]
    pub instances: BTreeMap<At<String>, RawInstance>,
    /// The feeds.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z_][a-z0-9_]{0,39}$" }))]
    pub feeds: BTreeMap<At<String>, RawFeedMap>,
}

/// One PostgreSQL with its standbys. It has either `host` or `hosts`.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename = "Instance")]
pub(crate) struct RawInstance {
    /// A name, an address ("[::1]" for IPv6), or the absolute path of the folder of a Unix socket;
    /// ":port" may follow a name or address.
    pub host: Option<At<String>>,
    /// The primary and its standbys, each as in `host`; the writable one is used.
    pub hosts: Option<At<Vec<At<String>>>>,
    /// The port of hosts without their own. Default: 5432.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<At<i64>>,
    /// The share of the tables without a pin, relative to the other instances; 0 takes none.
    /// Default: 1.
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<At<i64>>,
    /// The database, where it is not `postgres.dbname` of pgbraid.toml.
    pub dbname: Option<At<String>>,
    /// The room that the database may take: a plan that would fill more is refused. Default: not
    /// looked at, as PostgreSQL does not tell how much is free.
    pub disk: Option<At<Size>>,
}

/// The tables of one feed.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename = "Feed")]
pub(crate) struct RawFeedMap {
    /// The number of tables (hash partitions), fixed for the life of the feed.
    #[schemars(range(min = 1, max = 4096))]
    pub tables: At<i64>,
    /// What becomes of tables that no pin names. Default: "hash".
    #[serde(default)]
    pub unpinned: RawUnpinned,
    /// Whether the feed tells of its inserts, updates and deletes: the change stream. A fact of the
    /// instances, where it is triggers: `pgbraid migrate` puts it into force. Default: false.
    #[serde(default)]
    pub changes: bool,
    /// Whether it also tells which columns an update changed: both copies of every updated row are
    /// compared then. Asks for `changes = true`. Put into force by `pgbraid migrate`. Default: false.
    #[serde(default)]
    pub change_columns: Option<At<bool>>,
    /// Whether `I<key>`, `U<key>` or `D<key>` is notified of every row on the PostgreSQL channel
    /// `<table>_chan`, for listeners of that form. It takes about half of the write throughput. Put
    /// into force by `pgbraid migrate`. Default: false.
    #[serde(default)]
    pub table_channel: bool,
    /// Tables that belong to an instance, by its name.
    #[serde(default)]
    pub pins: BTreeMap<At<String>, Vec<At<PinItem>>>,
}

/// What becomes of tables that no pin names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", rename = "Unpinned")]
pub(crate) enum RawUnpinned {
    /// They are spread over the instances by consistent hashing.
    #[default]
    Hash,
    /// The map is refused.
    Refuse,
}

/// A table's number, or a range of them with both ends in it; not yet in order or in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PinItem {
    pub first: u32,
    pub last: u32,
}

struct PinItemVisitor;

impl PinItemVisitor {
    fn number(text: &str) -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    }
}

impl Visitor<'_> for PinItemVisitor {
    type Value = PinItem;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table's number such as 20, or a range such as \"0-15\"")
    }

    fn visit_i64<E: de::Error>(self, table: i64) -> Result<PinItem, E> {
        let bad = |_| E::custom(format!("{table} is no table's number"));
        let table = u32::try_from(table).map_err(bad)?;
        Ok(PinItem {
            first: table,
            last: table,
        })
    }

    fn visit_u64<E: de::Error>(self, table: u64) -> Result<PinItem, E> {
        self.visit_i64(i64::try_from(table).unwrap_or(i64::MAX))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PinItem, E> {
        let ends = match text.split_once('-') {
            Some((first, last)) => (Self::number(first), Self::number(last)),
            None => (Self::number(text), Self::number(text)),
        };
        match ends {
            (Some(first), Some(last)) => Ok(PinItem { first, last }),
            _ => Err(E::custom(format!(
                "\"{text}\" is neither a table's number such as 20 nor a range such as \"0-15\""
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for PinItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PinItemVisitor)
    }
}

impl JsonSchema for PinItem {
    fn schema_name() -> Cow<'static, str> {
        "Pin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": 0,
            "maximum": 4095,
            "pattern": "^[0-9]+(-[0-9]+)?$",
            "description": "A table's number, or a range such as \"0-15\" with both ends in it.",
        })
    }
}
