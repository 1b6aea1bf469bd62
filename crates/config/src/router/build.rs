//! From the raw sections of pgbraid.toml to checked ones: ranges, and what must fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use pgbraid_shardmap::FeedName;

use crate::at::At;
use crate::check::Check;
use crate::error::ConfigError;
use crate::feed::FeedConfig;
use crate::log_filter::first_bad_directive;
use crate::raw::router::{
    RawAlerts, RawFeed, RawGroup, RawGrpc, RawHttp, RawIngest, RawLog, RawMoves, RawPostgres,
};
use crate::sections::{
    AlertsConfig, GroupConfig, GrpcConfig, HttpConfig, IngestConfig, LogConfig, MovesConfig,
    PostgresConfig, RetentionConfig, SslMode, TlsConfig,
};
use crate::units::{Size, Time};

type Result<T> = std::result::Result<T, ConfigError>;

/// The ranges of most settings. Their ends are far from sensible values on both sides: tests and
/// odd machines need room, and a slip of a unit is still caught.
const WAIT: RangeInclusive<Time> = Time::ms(10)..=Time::secs(600);
const FIRST_RETRY: RangeInclusive<Time> = Time::ms(1)..=Time::secs(60);
const LAST_RETRY: RangeInclusive<Time> = Time::ms(1)..=Time::secs(600);
const MESSAGE: RangeInclusive<Size> = Size::kib(1)..=Size::mib(1024);
const QUEUE: RangeInclusive<Size> = Size::kib(1)..=Size::mib(1024 * 1024);

pub(super) fn grpc(check: Check<'_>, raw: &RawGrpc) -> Result<GrpcConfig> {
    let listen = address(check, "grpc.listen", &raw.listen)?;
    if !listen.ip().is_loopback() && raw.tls.is_none() && !raw.allow_plaintext {
        let message = format!("grpc.listen {listen} is not loopback, and grpc.tls is not set");
        let help = "set grpc.tls = { cert = \"..\", key = \"..\" }, or grpc.allow_plaintext = true if the network is trusted";
        return Err(check.refuse(&raw.listen, message, help));
    }
    let tls = raw.tls.as_ref().map(|tls| {
        Ok(TlsConfig {
            cert: check.path("grpc.tls.cert", &tls.cert)?,
            key: check.path("grpc.tls.key", &tls.key)?,
            client_ca: check.optional_path("grpc.tls.client_ca", tls.client_ca.as_ref())?,
        })
    });
    Ok(GrpcConfig {
        listen,
        max_message_bytes: size(
            check,
            "grpc.max_message_bytes",
            &raw.max_message_bytes,
            MESSAGE,
        )?,
        token_file: check.optional_path("grpc.token_file", raw.token_file.as_ref())?,
        allow_plaintext: raw.allow_plaintext,
        tls: tls.transpose()?,
    })
}

pub(super) fn http(check: Check<'_>, raw: &RawHttp, grpc: &GrpcConfig) -> Result<HttpConfig> {
    let listen = address(check, "http.listen", &raw.listen)?;
    if listen == grpc.listen && listen.port() != 0 {
        let message = format!("http.listen and grpc.listen are both {listen}");
        return Err(check.refuse(&raw.listen, message, "give each its own port"));
    }
    Ok(HttpConfig { listen })
}

fn search_path(check: Check<'_>, raw: &At<String>) -> Result<String> {
    if raw.trim().is_empty() || raw.chars().any(char::is_control) {
        let message = format!("postgres.search_path is {:?}", raw.as_str());
        let help = "name schemas as SQL does, with commas between them, such as \"public\"";
        return Err(check.refuse(raw, message, help));
    }
    Ok((**raw).clone())
}

pub(super) fn postgres(check: Check<'_>, raw: &RawPostgres) -> Result<PostgresConfig> {
    if *raw.sslmode == SslMode::VerifyFull && raw.ssl_root_cert.is_none() {
        let message = "postgres.sslmode \"verify-full\" needs postgres.ssl_root_cert";
        let help = "name the file with the certificate of whoever signs the servers' certificates";
        return Err(check.refuse(&raw.sslmode, message, help));
    }
    let root = raw.ssl_root_cert.as_ref();
    let pool = 1..=256;
    Ok(PostgresConfig {
        user: check.name("postgres.user", &raw.user)?,
        dbname: check.name("postgres.dbname", &raw.dbname)?,
        search_path: search_path(check, &raw.search_path)?,
        password_file: check.optional_path("postgres.password_file", raw.password_file.as_ref())?,
        sslmode: *raw.sslmode,
        ssl_root_cert: check.optional_path("postgres.ssl_root_cert", root)?,
        writers: check.count("postgres.writers", &raw.writers, pool.clone())?,
        readers: check.count("postgres.readers", &raw.readers, pool)?,
        connect_timeout: time(
            check,
            "postgres.connect_timeout",
            &raw.connect_timeout,
            Time::ms(10)..=Time::secs(300),
        )?,
        statement_timeout: time(
            check,
            "postgres.statement_timeout",
            &raw.statement_timeout,
            Time::ms(10)..=Time::secs(3600),
        )?,
        lock_timeout: time(
            check,
            "postgres.lock_timeout",
            &raw.lock_timeout,
            Time::ms(1)..=Time::secs(600),
        )?,
        tcp_user_timeout: time(
            check,
            "postgres.tcp_user_timeout",
            &raw.tcp_user_timeout,
            Time::secs(1)..=Time::secs(600),
        )?,
        statement_cache: check.count(
            "postgres.statement_cache",
            &raw.statement_cache,
            1..=65_536,
        )?,
    })
}

pub(super) fn ingest(
    check: Check<'_>,
    raw: &RawIngest,
    max_message_bytes: &At<Size>,
) -> Result<IngestConfig> {
    let config = IngestConfig {
        batch_rows: check.count("ingest.batch_rows", &raw.batch_rows, 1..=100_000)?,
        linger: time(
            check,
            "ingest.linger",
            &raw.linger,
            Time::ms(1)..=Time::secs(10),
        )?,
        request_timeout: time(check, "ingest.request_timeout", &raw.request_timeout, WAIT)?,
        max_request_rows: check.count(
            "ingest.max_request_rows",
            &raw.max_request_rows,
            1..=1_000_000,
        )?,
        max_request_bytes: size(
            check,
            "ingest.max_request_bytes",
            &raw.max_request_bytes,
            MESSAGE,
        )?,
        queue_bytes: size(check, "ingest.queue_bytes", &raw.queue_bytes, QUEUE)?,
        queue_bytes_per_instance: size(
            check,
            "ingest.queue_bytes_per_instance",
            &raw.queue_bytes_per_instance,
            QUEUE,
        )?,
        stream_in_flight: check.count(
            "ingest.stream_in_flight",
            &raw.stream_in_flight,
            1..=65_536,
        )?,
        retry_min: time(check, "ingest.retry_min", &raw.retry_min, FIRST_RETRY)?,
        retry_max: time(check, "ingest.retry_max", &raw.retry_max, LAST_RETRY)?,
        stall_after: time(check, "ingest.stall_after", &raw.stall_after, WAIT)?,
        drain_timeout: time(check, "ingest.drain_timeout", &raw.drain_timeout, WAIT)?,
    };
    let per_instance = (
        "ingest.queue_bytes_per_instance",
        &raw.queue_bytes_per_instance,
    );
    let request = ("ingest.max_request_bytes", &raw.max_request_bytes);
    check.at_most(per_instance, ("ingest.queue_bytes", &raw.queue_bytes))?;
    check.at_most(request, per_instance)?;
    check.at_most(request, ("grpc.max_message_bytes", max_message_bytes))?;
    check.at_most(
        ("ingest.retry_min", &raw.retry_min),
        ("ingest.retry_max", &raw.retry_max),
    )?;
    Ok(config)
}

pub(super) fn alerts(check: Check<'_>, raw: &RawAlerts) -> Result<AlertsConfig> {
    let config = AlertsConfig {
        heartbeat: time(check, "alerts.heartbeat", &raw.heartbeat, WAIT)?,
        reconnect_min: time(
            check,
            "alerts.reconnect_min",
            &raw.reconnect_min,
            FIRST_RETRY,
        )?,
        reconnect_max: time(
            check,
            "alerts.reconnect_max",
            &raw.reconnect_max,
            LAST_RETRY,
        )?,
        ring_alerts: check.count("alerts.ring_alerts", &raw.ring_alerts, 1..=1_048_576)?,
        read_batch: check.count("alerts.read_batch", &raw.read_batch, 1..=100_000)?,
        max_subscribers: check.count(
            "alerts.max_subscribers",
            &raw.max_subscribers,
            1..=1_000_000,
        )?,
        channels: channels(check, &raw.channels)?,
        retention: retention(check, raw)?,
    };
    check.at_most(
        ("alerts.reconnect_min", &raw.reconnect_min),
        ("alerts.reconnect_max", &raw.reconnect_max),
    )?;
    Ok(config)
}

pub(super) fn groups(
    check: Check<'_>,
    raw: &BTreeMap<At<String>, RawGroup>,
) -> Result<Vec<GroupConfig>> {
    let texts = |some: &[At<String>]| some.iter().map(|at| at.to_string()).collect();
    let group = |(at, raw): (&At<String>, &RawGroup)| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if at.is_empty() || at.len() > 63 || !at.chars().all(allowed) {
            let message = format!("groups: '{}' is no name for a group", **at);
            let help = "a name has 1 to 63 letters, digits, '_', '-' or '.'";
            return Err(check.refuse(at, message, help));
        }
        for feed in &raw.feeds {
            FeedName::parse(feed).map_err(|error| check.refuse(feed, error.to_string(), ""))?;
        }
        Ok(GroupConfig {
            name: at.to_string(),
            feeds: texts(&raw.feeds),
            channels: texts(&raw.channels),
            rules: texts(&raw.rules),
            visibility_timeout: time(
                check,
                "groups.visibility_timeout",
                &raw.visibility_timeout,
                Time::ms(100)..=Time::secs(24 * 3600),
            )?,
            max_deliveries: check.count(
                "groups.max_deliveries",
                &raw.max_deliveries,
                1..=10_000,
            )?,
            order_by_key: raw.order_by_key,
        })
    };
    raw.iter().map(group).collect()
}

/// Parts of the outbox at its limits: what is kept exceeds them by one part at most.
const PARTS: u32 = 24;

fn retention(check: Check<'_>, raw: &RawAlerts) -> Result<RetentionConfig> {
    let kept = Time::ms(100)..=Time::secs(3650 * 86_400);
    let bytes = Size::kib(64)..=Size::mib(1 << 30);
    let keep = time(check, "alerts.keep", &raw.keep, kept.clone())?;
    let keep_bytes = size(check, "alerts.keep_bytes", &raw.keep_bytes, bytes.clone())?;
    check.at_most(
        ("alerts.keep", &raw.keep),
        ("alerts.held_keep", &raw.held_keep),
    )?;
    check.at_most(
        ("alerts.keep_bytes", &raw.keep_bytes),
        ("alerts.held_keep_bytes", &raw.held_keep_bytes),
    )?;
    let part_time = match &raw.part_time {
        None => (keep / PARTS).clamp(Duration::from_millis(100), Duration::from_secs(86_400)),
        Some(at) => {
            check.at_most(("alerts.part_time", at), ("alerts.keep", &raw.keep))?;
            let range = Time::ms(100)..=Time::secs(30 * 86_400);
            time(check, "alerts.part_time", at, range)?
        }
    };
    let part_bytes = match &raw.part_bytes {
        None => (keep_bytes / u64::from(PARTS)).max(64 << 10),
        Some(at) => {
            check.at_most(
                ("alerts.part_bytes", at),
                ("alerts.keep_bytes", &raw.keep_bytes),
            )?;
            size(check, "alerts.part_bytes", at, bytes.clone())?
        }
    };
    Ok(RetentionConfig {
        keep,
        keep_bytes,
        held_keep: time(check, "alerts.held_keep", &raw.held_keep, kept)?,
        held_keep_bytes: size(check, "alerts.held_keep_bytes", &raw.held_keep_bytes, bytes)?,
        part_time,
        part_bytes,
    })
}

pub(super) fn log(check: Check<'_>, raw: &RawLog) -> Result<LogConfig> {
    if let Some(directive) = first_bad_directive(&raw.level) {
        let message = format!("log.level: \"{directive}\" is neither a level nor target=level");
        let help = "levels are off, error, warn, info, debug, trace; for parts, write \"info,pgbraid_ingest=debug\"";
        return Err(check.refuse(&raw.level, message, help));
    }
    Ok(LogConfig {
        format: raw.format,
        level: raw.level.to_string(),
    })
}

pub(super) fn moves(check: Check<'_>, raw: &RawMoves) -> Result<MovesConfig> {
    check.at_most(
        ("moves.retry_min", &raw.retry_min),
        ("moves.retry_max", &raw.retry_max),
    )?;
    let user = raw.user.as_ref();
    let rate = raw.bytes_per_second.as_ref();
    let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.to_string());
    Ok(MovesConfig {
        auto: raw.auto,
        user: user.map(|at| check.name("moves.user", at)).transpose()?,
        password_file: check.optional_path("moves.password_file", raw.password_file.as_ref())?,
        passfile: text(&raw.passfile),
        ssl_root_cert: text(&raw.ssl_root_cert),
        at_once: check.count("moves.at_once", &raw.at_once, 1..=256)?,
        per_instance: check.count("moves.per_instance", &raw.per_instance, 1..=64)?,
        bytes_per_second: rate
            .map(|at| size(check, "moves.bytes_per_second", at, QUEUE))
            .transpose()?,
        max_lag: size(check, "moves.max_lag", &raw.max_lag, QUEUE)?,
        lock_timeout: time(
            check,
            "moves.lock_timeout",
            &raw.lock_timeout,
            Time::ms(1)..=Time::secs(60),
        )?,
        // A router takes back a fence that stands for 10 s.
        cutover_timeout: time(
            check,
            "moves.cutover_timeout",
            &raw.cutover_timeout,
            Time::ms(10)..=Time::secs(8),
        )?,
        retry_min: time(check, "moves.retry_min", &raw.retry_min, FIRST_RETRY)?,
        retry_max: time(check, "moves.retry_max", &raw.retry_max, LAST_RETRY)?,
        patience: time(
            check,
            "moves.patience",
            &raw.patience,
            Time::secs(1)..=Time::secs(86_400),
        )?,
        lease: time(
            check,
            "moves.lease",
            &raw.lease,
            Time::secs(2)..=Time::secs(600),
        )?,
        keep: time(
            check,
            "moves.keep",
            &raw.keep,
            Time::ms(0)..=Time::secs(36_000_000),
        )?,
    })
}

type Feeds = BTreeMap<FeedName, FeedConfig>;
type FeedSpans = BTreeMap<FeedName, Option<Range<usize>>>;

pub(super) fn feeds(
    check: Check<'_>,
    raw: &BTreeMap<At<String>, RawFeed>,
) -> Result<(Feeds, FeedSpans)> {
    let mut feeds = BTreeMap::new();
    let mut spans = BTreeMap::new();
    for (at, raw) in raw {
        let name = FeedName::parse(at).map_err(|error| check.refuse(at, error.to_string(), ""))?;
        let feed = FeedConfig::build(check, &name, raw)?;
        spans.insert(name.clone(), at.span());
        feeds.insert(name, feed);
    }
    Ok((feeds, spans))
}

fn channels(check: Check<'_>, raw: &[At<String>]) -> Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    for at in raw {
        let name = check.name("alerts.channels", at)?;
        if name.starts_with("pgbraid_") {
            let message = format!("alerts.channels: '{name}' is one of pgbraid's own channels");
            let help = "alerts arrive without it: list only channels of your own triggers";
            return Err(check.refuse(at, message, help));
        }
        if !seen.insert(name) {
            let message = format!("alerts.channels: '{}' is listed twice", **at);
            return Err(check.refuse(at, message, "remove one of the two"));
        }
    }
    Ok(raw.iter().map(|at| at.to_string()).collect())
}

fn address(check: Check<'_>, key: &str, at: &At<String>) -> Result<SocketAddr> {
    let bad = |_| {
        let message = format!("{key}: '{}' is not an IP address and a port", **at);
        let help = "write one such as 127.0.0.1:7432, 0.0.0.0:7432 or [::1]:7432; names are not resolved here";
        check.refuse(at, message, help)
    };
    at.parse().map_err(bad)
}

fn time(
    check: Check<'_>,
    key: &str,
    at: &At<Time>,
    range: RangeInclusive<Time>,
) -> Result<Duration> {
    check.within(key, at, range).map(|time| time.0)
}

fn size(check: Check<'_>, key: &str, at: &At<Size>, range: RangeInclusive<Size>) -> Result<u64> {
    check.within(key, at, range).map(|size| size.0)
}
