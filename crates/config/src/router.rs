//! pgbraid.toml, checked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pgbraid_shardmap::FeedName;

use crate::check::Check;
use crate::error::ConfigError;
use crate::feed::FeedConfig;
use crate::raw::router::RawRouter;
use crate::sections::{
    AlertsConfig, GroupConfig, GrpcConfig, HttpConfig, IngestConfig, LogConfig, MapConfig,
    MovesConfig, PostgresConfig,
};
use crate::shardmap::ShardMap;
use crate::source::Source;

mod build;

/// The settings of a router, checked. Paths are joined to the folder of the file.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// The file of the shard map.
    pub shardmap: PathBuf,
    /// Files of SQL that make the parents of the feeds, in order; read them with
    /// [`RouterConfig::read_schema`].
    pub schema: Vec<PathBuf>,
    /// The gRPC services.
    pub grpc: GrpcConfig,
    /// Metrics, health, console.
    pub http: HttpConfig,
    /// Connections to the instances.
    pub postgres: PostgresConfig,
    /// The write path.
    pub ingest: IngestConfig,
    /// The read path of alerts.
    pub alerts: AlertsConfig,
    /// Consumer groups to make, by name.
    pub groups: Vec<GroupConfig>,
    /// Logs.
    pub log: LogConfig,
    /// How the shard map is followed.
    pub map: MapConfig,
    /// How tables are moved between instances.
    pub moves: MovesConfig,
    /// Feeds that the file mentions; see [`RouterConfig::feed`] for the others.
    pub feeds: BTreeMap<FeedName, FeedConfig>,
    /// To point at a feed that the map turns out not to have.
    written: Written,
}

#[derive(Debug, Clone)]
struct Written {
    source: Source,
    feeds: BTreeMap<FeedName, Option<Range<usize>>>,
}

impl RouterConfig {
    /// Reads and checks a file. Its paths become absolute.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML of this shape, or asks for something that cannot be.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let source = Source::read(path, "the router's settings")?;
        let absolute = std::path::absolute(path)
            .map_err(|cause| ConfigError::read(path, "the router's settings", cause))?;
        Self::build(source, absolute.parent().unwrap_or(&absolute))
    }

    /// Checks a text. Errors call it `origin`; paths are relative to the folder of `origin`.
    ///
    /// # Errors
    /// The text is not TOML of this shape, or asks for something that cannot be.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let source = Source {
            origin: origin.to_owned(),
            text: text.to_owned(),
        };
        let folder = Path::new(origin).parent().unwrap_or(Path::new(""));
        Self::build(source, folder)
    }

    /// The settings of a feed of the map, whether the file mentions it or not.
    pub fn feed(&self, feed: &FeedName) -> FeedConfig {
        let written = self.feeds.get(feed).cloned();
        written.unwrap_or_else(|| FeedConfig::default_for(feed))
    }

    /// Checks the two files against each other. Call it whenever either was loaded.
    ///
    /// # Errors
    /// These settings mention a feed that the map does not have, or two feeds share a table.
    pub fn check_map(&self, map: &ShardMap) -> Result<(), ConfigError> {
        for (feed, span) in &self.written.feeds {
            if !map.feeds.contains_key(feed) {
                let known: Vec<_> = map.feeds.keys().map(FeedName::as_str).collect();
                let message = format!("there is no feed {feed} in the shard map");
                let help = format!(
                    "the map has {}: correct the name, or add it there",
                    known.join(", ")
                );
                return Err(self.written.source.error(span.clone(), message, help));
            }
        }
        let mut owners = BTreeMap::new();
        for feed in map.feeds.keys() {
            let table = self.feed(feed).table;
            if let Some(other) = owners.insert(table.clone(), feed) {
                let span = |feed| self.written.feeds.get(feed).cloned().flatten();
                return Err(self.written.source.error(
                    span(feed).or_else(|| span(other)),
                    format!("feeds {other} and {feed} have the same table {table}"),
                    "give each feed its own table",
                ));
            }
        }
        Ok(())
    }

    fn build(source: Source, folder: &Path) -> Result<Self, ConfigError> {
        let raw: RawRouter = source.parse()?;
        let check = Check {
            source: &source,
            folder,
        };
        let (feeds, written) = build::feeds(check, &raw.feeds)?;
        let shardmap = check.optional_path("shardmap", raw.shardmap.as_ref())?;
        let schema = raw.schema.iter().map(|at| check.path("schema", at));
        let grpc = build::grpc(check, &raw.grpc)?;
        Ok(Self {
            shardmap: shardmap.unwrap_or_else(|| folder.join("shardmap.toml")),
            schema: schema.collect::<Result<_, _>>()?,
            http: build::http(check, &raw.http, &grpc)?,
            postgres: build::postgres(check, &raw.postgres)?,
            ingest: build::ingest(check, &raw.ingest, &raw.grpc.max_message_bytes)?,
            alerts: build::alerts(check, &raw.alerts)?,
            groups: build::groups(check, &raw.groups)?,
            log: build::log(check, &raw.log)?,
            map: MapConfig {
                watch: raw.map.watch,
            },
            moves: build::moves(check, &raw.moves)?,
            grpc,
            feeds,
            written: Written {
                feeds: written,
                source,
            },
        })
    }
}
