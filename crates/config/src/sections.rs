//! The checked sections of pgbraid.toml.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The gRPC services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The largest message taken, in bytes.
    pub max_message_bytes: u64,
    /// The file of the token that clients must send; read it with [`GrpcConfig::token`].
    pub token_file: Option<PathBuf>,
    /// The operator accepts plaintext on an address that is not loopback.
    pub allow_plaintext: bool,
    /// Files for TLS; without it, plaintext.
    pub tls: Option<TlsConfig>,
}

/// Files in PEM form; read them with [`TlsConfig::read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate and its chain.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// Who signs clients' certificates; clients must then have one.
    pub client_ca: Option<PathBuf>,
}

/// Metrics, health, console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
}

/// Connections to the instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// The role.
    pub user: String,
    /// The database, unless the instance has its own in the shard map.
    pub dbname: String,
    /// The `search_path` of all sessions.
    pub search_path: String,
    /// The file of the password; read it with [`PostgresConfig::password`].
    pub password_file: Option<PathBuf>,
    /// Whether and how TLS is used.
    pub sslmode: SslMode,
    /// Who signs the servers' certificates; always there with [`SslMode::VerifyFull`]. Read it with
    /// [`PostgresConfig::ssl_root_pem`].
    pub ssl_root_cert: Option<PathBuf>,
    /// Connections for writing, to each instance.
    pub writers: u32,
    /// Connections for reading, to each instance.
    pub readers: u32,
    /// For connecting and logging in.
    pub connect_timeout: Duration,
    /// The server's `statement_timeout`.
    pub statement_timeout: Duration,
    /// The server's `lock_timeout`.
    pub lock_timeout: Duration,
    /// `TCP_USER_TIMEOUT` of our sockets and the server's `tcp_user_timeout`.
    pub tcp_user_timeout: Duration,
    /// Prepared statements kept on each connection.
    pub statement_cache: usize,
}

/// Whether and how TLS is used to an instance, as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it; certificates are not checked.
    Prefer,
    /// Always; certificates are not checked.
    Require,
    /// Always; certificate and host name are checked.
    VerifyFull,
}

/// The write path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestConfig {
    /// The most rows of one batch.
    pub batch_rows: usize,
    /// The longest that a row waits for its batch to fill while the writers are busy.
    pub linger: Duration,
    /// The deadline of requests that come without one.
    pub request_timeout: Duration,
    /// The most rows of one request.
    pub max_request_rows: usize,
    /// The most bytes of one request; at most `grpc.max_message_bytes`.
    pub max_request_bytes: u64,
    /// The most bytes queued in all.
    pub queue_bytes: u64,
    /// The most bytes queued for one instance; at most `queue_bytes`, at least `max_request_bytes`.
    pub queue_bytes_per_instance: u64,
    /// The most requests of one stream that are not acked yet.
    pub stream_in_flight: usize,
    /// The first wait before a batch is tried again.
    pub retry_min: Duration,
    /// The longest wait before a batch is tried again; at least `retry_min`.
    pub retry_max: Duration,
    /// An instance that finishes nothing for this time is reported as stalled.
    pub stall_after: Duration,
    /// What was accepted must be written within this time of SIGTERM.
    pub drain_timeout: Duration,
}

/// The read path of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertsConfig {
    /// How often each instance is read and reported even when nothing wakes us.
    pub heartbeat: Duration,
    /// The first wait before connecting again.
    pub reconnect_min: Duration,
    /// The longest wait before connecting again; at least `reconnect_min`.
    pub reconnect_max: Duration,
    /// Alerts kept in memory for all subscribers.
    pub ring_alerts: usize,
    /// The most alerts of one read.
    pub read_batch: usize,
    /// The most subscribers at once.
    pub max_subscribers: usize,
    /// Plain `pg_notify` channels that join the stream: each once, none of pgbraid's own.
    pub channels: Vec<String>,
    /// How much of the outbox is kept.
    pub retention: RetentionConfig,
}

/// How much of the outbox is kept, on each instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Alerts are kept for this time.
    pub keep: Duration,
    /// Beyond this size the oldest are dropped earlier.
    pub keep_bytes: u64,
    /// What a group still needs is kept on, but no longer than this; at least `keep`.
    pub held_keep: Duration,
    /// Nor beyond this size; at least `keep_bytes`.
    pub held_keep_bytes: u64,
    /// A new part begins after this time; at most `keep`.
    pub part_time: Duration,
    /// Or when a part takes this much; at most `keep_bytes`.
    pub part_bytes: u64,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// Directives of a tracing `EnvFilter`, each with a level.
    pub level: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the shard map is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapConfig {
    /// Load the map again when its file changes, not only on SIGHUP.
    pub watch: bool,
}

/// A consumer group that the router makes if it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// 1 to 63 letters, digits, '_', '-' or '.'.
    pub name: String,
    /// Only alerts of these feeds; empty is all. So with the next two.
    pub feeds: Vec<String>,
    /// Channels.
    pub channels: Vec<String>,
    /// Rules.
    pub rules: Vec<String>,
    /// A delivery that was not settled for this long goes to another member.
    pub visibility_timeout: Duration,
    /// After this many deliveries an alert is a dead letter.
    pub max_deliveries: u32,
    /// One alert of a key at a time.
    pub order_by_key: bool,
}

/// How tables are moved between instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovesConfig {
    /// The router carries out the map by itself.
    pub auto: bool,
    /// The role that makes subscriptions, where it is not `postgres.user`.
    pub user: Option<String>,
    /// The file of its password; read it with [`MovesConfig::password`].
    pub password_file: Option<PathBuf>,
    /// On the instances: a file with passwords.
    pub passfile: Option<String>,
    /// On the instances: who signs the servers' certificates.
    pub ssl_root_cert: Option<String>,
    /// The most moves at a time.
    pub at_once: usize,
    /// The most moves at a time that an instance takes part in.
    pub per_instance: usize,
    /// No move is started while more than this was moved a second.
    pub bytes_per_second: Option<u64>,
    /// A table is cut over once its copy lags behind by no more bytes than this.
    pub max_lag: u64,
    /// The longest that a cut-over waits for the table's writers.
    pub lock_timeout: Duration,
    /// The longest that writers wait for a cut-over before it is undone.
    pub cutover_timeout: Duration,
    /// The first wait before a cut-over is tried again.
    pub retry_min: Duration,
    /// The longest wait before a cut-over is tried again; at least `retry_min`.
    pub retry_max: Duration,
    /// A move that meets outages for longer is left for the next run.
    pub patience: Duration,
    /// A mover that was not heard of for this long is taken for dead.
    pub lease: Duration,
    /// What is left of a table that moved is kept for this long.
    pub keep: Duration,
}
