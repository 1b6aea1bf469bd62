//! `pgbraid.toml` as it is written, with every default.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::at::At;
use crate::feed::{Coalesce, MergePolicy};
use crate::sections::{LogFormat, SslMode};
use crate::units::{Size, Time};

/// The settings of a router. Durations are texts such as "250ms", "5s" or "2m"; sizes are texts
/// such as "16MiB" or "64kB", or numbers of bytes; paths are relative to the file.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "pgbraid.toml")]
pub(crate) struct RawRouter {
    /// The shard map. Default: shardmap.toml.
    pub shardmap: Option<At<String>>,
    /// Files of SQL that make the parents of the feeds, applied to every instance in this order.
    pub schema: Vec<At<String>>,
    /// The gRPC services.
    pub grpc: RawGrpc,
    /// Metrics, health, console.
    pub http: RawHttp,
    /// Connections to the instances.
    pub postgres: RawPostgres,
    /// The write path.
    pub ingest: RawIngest,
    /// The read path of alerts.
    pub alerts: RawAlerts,
    /// Consumer groups that are made if they are not there, by name. Change them with
    /// `pgbraid alerts groups`.
    #[schemars(extend("propertyNames" = { "pattern": "^[A-Za-z0-9_.-]{1,63}$" }))]
    pub groups: BTreeMap<At<String>, RawGroup>,
    /// Logs.
    pub log: RawLog,
    /// How the shard map is followed.
    pub map: RawMap,
    /// How tables are moved between instances.
    pub moves: RawMoves,
    /// Feeds of the shard map that need more than the defaults.
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z_][a-z0-9_]{0,39}$" }))]
    pub feeds: BTreeMap<At<String>, RawFeed>,
}

/// The gRPC services.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Grpc")]
pub(crate) struct RawGrpc {
    /// An IP address and a port.
    pub listen: At<String>,
    /// The largest message taken.
    pub max_message_bytes: At<Size>,
    /// A file with the token that clients must send. Default: none is asked for.
    pub token_file: Option<At<String>>,
    /// Listen without TLS on an address that is not loopback.
    pub allow_plaintext: bool,
    /// Default: no TLS.
    pub tls: Option<RawTls>,
}

impl Default for RawGrpc {
    fn default() -> Self {
        Self {
            listen: At::nowhere("127.0.0.1:7432".into()),
            max_message_bytes: At::nowhere(Size::mib(32)),
            token_file: None,
            allow_plaintext: false,
            tls: None,
        }
    }
}

/// Files in PEM form.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename = "Tls")]
pub(crate) struct RawTls {
    /// The server's certificate and its chain.
    pub cert: At<String>,
    /// The private key of the certificate.
    pub key: At<String>,
    /// Who signs clients' certificates; clients must then have one.
    pub client_ca: Option<At<String>>,
}

/// Metrics, health, console.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Http")]
pub(crate) struct RawHttp {
    /// An IP address and a port.
    pub listen: At<String>,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            listen: At::nowhere("127.0.0.1:7433".into()),
        }
    }
}

/// Connections to the instances. The password comes from the variable PGBRAID_PG_PASSWORD, or else
/// from `password_file`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Postgres")]
pub(crate) struct RawPostgres {
    /// The role.
    pub user: At<String>,
    /// The database, unless the instance has its own in the shard map.
    pub dbname: At<String>,
    /// Where names without a schema are looked up, by the user's SQL and triggers.
    pub search_path: At<String>,
    /// A file with the password and nothing else.
    pub password_file: Option<At<String>>,
    /// Whether and how TLS is used.
    pub sslmode: At<SslMode>,
    /// Who signs the servers' certificates, in PEM form; required by verify-full.
    pub ssl_root_cert: Option<At<String>>,
    /// Connections for writing, to each instance: 1 to 256.
    pub writers: At<i64>,
    /// Connections for reading, to each instance: 1 to 256.
    pub readers: At<i64>,
    /// 10ms to 5m.
    pub connect_timeout: At<Time>,
    /// The server ends a statement after this time: 10ms to 1h.
    pub statement_timeout: At<Time>,
    /// The server gives up waiting for a lock after this time: 1ms to 10m.
    pub lock_timeout: At<Time>,
    /// The kernel gives up a connection whose data is not acknowledged for this time: 1s to 10m.
    pub tcp_user_timeout: At<Time>,
    /// Prepared statements kept on each connection: 1 to 65536.
    pub statement_cache: At<i64>,
}

impl Default for RawPostgres {
    fn default() -> Self {
        Self {
            user: At::nowhere("pgbraid".into()),
            dbname: At::nowhere("pgbraid".into()),
            search_path: At::nowhere("public".into()),
            password_file: None,
            sslmode: At::nowhere(SslMode::Prefer),
            ssl_root_cert: None,
            writers: At::nowhere(4),
            readers: At::nowhere(2),
            connect_timeout: At::nowhere(Time::secs(5)),
            statement_timeout: At::nowhere(Time::secs(30)),
            lock_timeout: At::nowhere(Time::secs(5)),
            tcp_user_timeout: At::nowhere(Time::secs(15)),
            statement_cache: At::nowhere(1024),
        }
    }
}

/// The write path.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Ingest")]
pub(crate) struct RawIngest {
    /// The most rows of one batch: 1 to 100000.
    pub batch_rows: At<i64>,
    /// The longest that a row waits for its batch to fill while the writers are busy: 1ms to 10s.
    pub linger: At<Time>,
    /// The deadline of requests that come without one: 10ms to 10m.
    pub request_timeout: At<Time>,
    /// The most rows of one request: 1 to 1000000.
    pub max_request_rows: At<i64>,
    /// The most bytes of one request.
    pub max_request_bytes: At<Size>,
    /// The most bytes queued in all.
    pub queue_bytes: At<Size>,
    /// The most bytes queued for one instance.
    pub queue_bytes_per_instance: At<Size>,
    /// The most requests of one stream that are not acked yet: 1 to 65536.
    pub stream_in_flight: At<i64>,
    /// The first wait before a batch is tried again: 1ms to 1m.
    pub retry_min: At<Time>,
    /// The longest wait before a batch is tried again: 1ms to 10m.
    pub retry_max: At<Time>,
    /// An instance that finishes nothing for this time is reported as stalled: 10ms to 10m.
    pub stall_after: At<Time>,
    /// What was accepted must be written within this time of SIGTERM: 10ms to 10m.
    pub drain_timeout: At<Time>,
}

impl Default for RawIngest {
    fn default() -> Self {
        Self {
            batch_rows: At::nowhere(8000),
            linger: At::nowhere(Time::ms(20)),
            request_timeout: At::nowhere(Time::secs(30)),
            max_request_rows: At::nowhere(20_000),
            max_request_bytes: At::nowhere(Size::mib(16)),
            queue_bytes: At::nowhere(Size::mib(512)),
            queue_bytes_per_instance: At::nowhere(Size::mib(128)),
            stream_in_flight: At::nowhere(1024),
            retry_min: At::nowhere(Time::ms(20)),
            retry_max: At::nowhere(Time::secs(2)),
            stall_after: At::nowhere(Time::secs(5)),
            drain_timeout: At::nowhere(Time::secs(20)),
        }
    }
}

/// The read path of alerts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Alerts")]
pub(crate) struct RawAlerts {
    /// How often each instance is read and reported even when nothing wakes us: 10ms to 10m.
    pub heartbeat: At<Time>,
    /// The first wait before connecting again: 1ms to 1m.
    pub reconnect_min: At<Time>,
    /// The longest wait before connecting again: 1ms to 10m.
    pub reconnect_max: At<Time>,
    /// Alerts kept in memory for all subscribers: 1 to 1048576.
    pub ring_alerts: At<i64>,
    /// The most alerts of one read: 1 to 100000.
    pub read_batch: At<i64>,
    /// The most subscribers at once: 1 to 1000000.
    pub max_subscribers: At<i64>,
    /// Plain `pg_notify` channels that join the stream.
    pub channels: Vec<At<String>>,
    /// Alerts are kept for this time on each instance: 100ms to 3650d.
    pub keep: At<Time>,
    /// Beyond this size on an instance the oldest are dropped earlier.
    pub keep_bytes: At<Size>,
    /// Alerts that a group still needs are kept on, but no longer than this: 100ms to 3650d.
    pub held_keep: At<Time>,
    /// Nor beyond this size on an instance.
    pub held_keep_bytes: At<Size>,
    /// Alerts are dropped by parts; a new one begins after this time: 100ms to 30d. Default: a 24th of
    /// `keep`, a day at most.
    pub part_time: Option<At<Time>>,
    /// Or when a part takes this much. Default: a 24th of `keep_bytes`.
    pub part_bytes: Option<At<Size>>,
}

impl Default for RawAlerts {
    fn default() -> Self {
        Self {
            heartbeat: At::nowhere(Time::secs(5)),
            reconnect_min: At::nowhere(Time::ms(50)),
            reconnect_max: At::nowhere(Time::secs(5)),
            ring_alerts: At::nowhere(8192),
            read_batch: At::nowhere(1000),
            max_subscribers: At::nowhere(10_000),
            channels: Vec::new(),
            keep: At::nowhere(Time::secs(7 * 86_400)),
            keep_bytes: At::nowhere(Size::mib(16 << 10)),
            held_keep: At::nowhere(Time::secs(30 * 86_400)),
            held_keep_bytes: At::nowhere(Size::mib(64 << 10)),
            part_time: None,
            part_bytes: None,
        }
    }
}

/// A consumer group.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Group")]
pub(crate) struct RawGroup {
    /// Only alerts of these feeds. Default: all.
    pub feeds: Vec<At<String>>,
    /// Only alerts of these channels. Default: all.
    pub channels: Vec<At<String>>,
    /// Only alerts of these rules. Default: all.
    pub rules: Vec<At<String>>,
    /// A delivery that was not settled for this long goes to another member: 100ms to 24h.
    pub visibility_timeout: At<Time>,
    /// After this many deliveries an alert is a dead letter: 1 to 10000.
    pub max_deliveries: At<i64>,
    /// An alert waits until the one before it of the same key was acked.
    pub order_by_key: bool,
}

impl Default for RawGroup {
    fn default() -> Self {
        Self {
            feeds: Vec::new(),
            channels: Vec::new(),
            rules: Vec::new(),
            visibility_timeout: At::nowhere(Time::secs(30)),
            max_deliveries: At::nowhere(5),
            order_by_key: false,
        }
    }
}

/// Logs.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Log")]
pub(crate) struct RawLog {
    /// For people or for machines.
    pub format: LogFormat,
    /// A level (off, error, warn, info, debug, trace), and levels of parts after commas:
    /// "info,pgbraid_ingest=debug".
    pub level: At<String>,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: At::nowhere("info".into()),
        }
    }
}

/// How the shard map is followed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Map")]
pub(crate) struct RawMap {
    /// Load the shard map again when its file changes, not only on SIGHUP.
    pub watch: bool,
}

impl Default for RawMap {
    fn default() -> Self {
        Self { watch: true }
    }
}

/// How tables are moved between instances.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "Moves")]
pub(crate) struct RawMoves {
    /// After an edit of the shard map one of the routers with this setting moves the tables by itself,
    /// within the limits below. Nothing is dropped: `pgbraid map clean` is left to you.
    pub auto: bool,
    /// A role that may make subscriptions: a superuser before PostgreSQL 16, from 16 on a member of
    /// pg_create_subscription. Default: `postgres.user`.
    pub user: Option<At<String>>,
    /// A file with the password of `moves.user` and nothing else.
    pub password_file: Option<At<String>>,
    /// A file on the instances with passwords, as libpq reads it. Default: the target keeps the
    /// password of `postgres.user` in its subscription while the move lasts, where only superusers
    /// can read it.
    pub passfile: Option<At<String>>,
    /// A file on the instances with who signs the servers' certificates. Default: none is checked,
    /// unless `postgres.sslmode` is verify-full.
    pub ssl_root_cert: Option<At<String>>,
    /// The most moves at a time: 1 to 256.
    pub at_once: At<i64>,
    /// The most moves at a time that an instance takes part in: 1 to 64.
    pub per_instance: At<i64>,
    /// No move is started while more than this was moved a second. Default: no limit.
    pub bytes_per_second: Option<At<Size>>,
    /// A table is cut over once its copy lags behind by no more than this.
    pub max_lag: At<Size>,
    /// The longest that a cut-over waits for the table's writers: 1ms to 1m.
    pub lock_timeout: At<Time>,
    /// The longest that writers wait for a cut-over before it is undone and tried again: 10ms to 8s.
    pub cutover_timeout: At<Time>,
    /// The first wait before a cut-over is tried again: 1ms to 1m.
    pub retry_min: At<Time>,
    /// The longest wait before a cut-over is tried again: 1ms to 10m.
    pub retry_max: At<Time>,
    /// A move that meets outages for longer is left for the next run: 1s to 24h.
    pub patience: At<Time>,
    /// A mover that was not heard of for this long is taken for dead: 2s to 10m.
    pub lease: At<Time>,
    /// What is left of a table that moved is kept for this long: 0ms to 10000h.
    pub keep: At<Time>,
}

impl Default for RawMoves {
    fn default() -> Self {
        Self {
            auto: false,
            user: None,
            password_file: None,
            passfile: None,
            ssl_root_cert: None,
            at_once: At::nowhere(4),
            per_instance: At::nowhere(1),
            bytes_per_second: None,
            max_lag: At::nowhere(Size::mib(1)),
            lock_timeout: At::nowhere(Time::ms(250)),
            cutover_timeout: At::nowhere(Time::secs(1)),
            retry_min: At::nowhere(Time::ms(100)),
            retry_max: At::nowhere(Time::secs(5)),
            patience: At::nowhere(Time::secs(60)),
            lease: At::nowhere(Time::secs(15)),
            keep: At::nowhere(Time::secs(3600)),
        }
    }
}

/// What a feed needs beyond the defaults.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "FeedSettings")]
pub(crate) struct RawFeed {
    /// The parent table as SQL writes it: public.orders or "Sales"."Orders Wide". Default: the
    /// feed's name in the schema public.
    pub table: Option<At<String>>,
    /// Which writes of one key are merged into one.
    pub coalesce: Coalesce,
    /// A column by which an older version of a row never overwrites a newer one.
    pub version_column: Option<At<String>>,
    /// A jsonb column that takes unknown columns. Default: they are refused.
    pub overflow: Option<At<String>>,
    /// What becomes of a column's stored value when a new one comes. Default: set.
    pub merge: BTreeMap<At<String>, MergePolicy>,
}
