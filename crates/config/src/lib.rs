//! Router settings and shard map: raw file to checked value.
//!
//! Each file has one private raw shape, which refuses unknown keys, and one step that builds the
//! value the rest of pgbraid sees and checks it: a [`ShardMap`] or [`RouterConfig`] that exists can
//! be used as it is. Errors say file, line and column, show the line, and say what to do. No other
//! crate reads a file that the settings name.

mod at;
mod check;
mod error;
mod feed;
mod fingerprint;
mod hosts;
mod log_filter;
mod pins;
mod qualified_name;
mod raw;
mod router;
mod schema;
mod secrets;
mod sections;
mod shardmap;
mod source;
mod units;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub use feed::{Coalesce, FeedConfig, MergePolicy};
pub use hosts::HostPort;
pub use qualified_name::{InvalidName, QualifiedName};
pub use router::RouterConfig;
pub use schema::{router_schema, shardmap_schema};
pub use secrets::{PASSWORD_VARIABLE, SchemaFile, TlsPem};
pub use sections::{
    AlertsConfig, GroupConfig, GrpcConfig, HttpConfig, IngestConfig, LogConfig, LogFormat,
    MapConfig, MovesConfig, PostgresConfig, RetentionConfig, SslMode, TlsConfig,
};
pub use shardmap::{FeedMap, InstanceSpec, MAX_TABLES, ShardMap};
pub use units::Time;
