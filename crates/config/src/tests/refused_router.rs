//! Every pgbraid.toml that is refused.

use super::brief;
use crate::{RouterConfig, ShardMap};

/// What is wrong, the file, and the error without the lines that show the place.
const CASES: &[(&str, &str, &str)] = &[
    (
        "not TOML",
        "[grpc\n",
        "r.toml:1:6: unclosed table, expected `]`",
    ),
    (
        "unknown key",
        r#"[ingest]
lingr = "1ms"
"#,
        "r.toml:2:1: unknown field `lingr`, expected one of `batch_rows`, `linger`, `request_timeout`, `max_request_rows`, `max_request_bytes`, `queue_bytes`, `queue_bytes_per_instance`, `stream_in_flight`, `retry_min`, `retry_max`, `stall_after`, `drain_timeout`
help: correct the spelling, or remove the key",
    ),
    (
        "unknown section",
        "[ingst]\n",
        "r.toml:1:2: unknown field `ingst`, expected one of `shardmap`, `schema`, `grpc`, `http`, `postgres`, `ingest`, `alerts`, `groups`, `log`, `map`, `moves`, `feeds`
help: correct the spelling, or remove the key",
    ),
    (
        "duplicate key",
        "[map]
watch = true
watch = false
",
        "r.toml:3:1: duplicate key 'watch'
help: each key and each table may stand once: merge the two, or rename one",
    ),
    (
        "password in the file",
        r#"[postgres]
password = "hunter2"
"#,
        "r.toml:2:1: unknown field `password`, expected one of `user`, `dbname`, `search_path`, `password_file`, `sslmode`, `ssl_root_cert`, `writers`, `readers`, `connect_timeout`, `statement_timeout`, `lock_timeout`, `tcp_user_timeout`, `statement_cache`
help: put the password in a file that postgres.password_file names, or in the variable PGBRAID_PG_PASSWORD",
    ),
    (
        "no time",
        r#"[ingest]
linger = "20"
"#,
        r#"r.toml:2:10: "20" is no duration: write a whole number with ms, s, m, h or d, such as "250ms" or "5s""#,
    ),
    (
        "time is a number",
        "[ingest]
linger = 20
",
        r#"r.toml:2:10: invalid type: integer `20`, expected a duration such as "250ms", "5s" or "2m"
help: see the commented examples deploy/pgbraid.toml and deploy/shardmap.toml"#,
    ),
    (
        "zero time",
        r#"[ingest]
linger = "0ms"
"#,
        "r.toml:2:10: ingest.linger is 0ms, allowed are 1ms to 10s",
    ),
    (
        "absurd time",
        r#"[ingest]
linger = "1h"
"#,
        "r.toml:2:10: ingest.linger is 1h, allowed are 1ms to 10s",
    ),
    (
        "no size",
        r#"[ingest]
queue_bytes = "1 GiB"
"#,
        r#"r.toml:2:15: "1 GiB" is no size: write a whole number with B, kB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024), such as "16MiB", or a plain number of bytes"#,
    ),
    (
        "negative size",
        "[ingest]
queue_bytes = -1
",
        "r.toml:2:15: -1 is no size: it is negative",
    ),
    (
        "zero size",
        "[ingest]
queue_bytes = 0
",
        "r.toml:2:15: ingest.queue_bytes is 0B, allowed are 1KiB to 1024GiB",
    ),
    (
        "absurd size",
        r#"[ingest]
queue_bytes = "2000GiB"
"#,
        "r.toml:2:15: ingest.queue_bytes is 2000GiB, allowed are 1KiB to 1024GiB",
    ),
    (
        "zero count",
        "[ingest]
batch_rows = 0
",
        "r.toml:2:14: ingest.batch_rows is 0, allowed are 1 to 100000",
    ),
    (
        "absurd count",
        "[postgres]
writers = 257
",
        "r.toml:2:11: postgres.writers is 257, allowed are 1 to 256",
    ),
    (
        "negative count",
        "[postgres]
readers = -1
",
        "r.toml:2:11: postgres.readers is -1, allowed are 1 to 256",
    ),
    (
        "count is text",
        r#"[postgres]
readers = "2"
"#,
        r#"r.toml:2:11: invalid type: string "2", expected a whole number
help: see the commented examples deploy/pgbraid.toml and deploy/shardmap.toml"#,
    ),
    (
        "plaintext",
        r#"[grpc]
listen = "0.0.0.0:7432"
"#,
        r#"r.toml:2:10: grpc.listen 0.0.0.0:7432 is not loopback, and grpc.tls is not set
help: set grpc.tls = { cert = "..", key = ".." }, or grpc.allow_plaintext = true if the network is trusted"#,
    ),
    (
        "listen is a name",
        r#"[grpc]
listen = "localhost:7432"
"#,
        "r.toml:2:10: grpc.listen: 'localhost:7432' is not an IP address and a port
help: write one such as 127.0.0.1:7432, 0.0.0.0:7432 or [::1]:7432; names are not resolved here",
    ),
    (
        "same port",
        r#"[http]
listen = "127.0.0.1:7432"
"#,
        "r.toml:2:10: http.listen and grpc.listen are both 127.0.0.1:7432
help: give each its own port",
    ),
    (
        "tls without key",
        r#"[grpc]
tls = { cert = "c" }
"#,
        "r.toml:2:7: missing field `key`
help: add the key",
    ),
    (
        "empty path",
        r#"[grpc]
token_file = ""
"#,
        "r.toml:2:14: grpc.token_file is not a path
help: name a file, relative to the folder of this one, or remove the key",
    ),
    (
        "schema is a text",
        r#"schema = "a.sql"
"#,
        r#"r.toml:1:10: invalid type: string "a.sql", expected a list in brackets
help: see the commented examples deploy/pgbraid.toml and deploy/shardmap.toml"#,
    ),
    (
        "verify-full without root",
        r#"[postgres]
sslmode = "verify-full"
"#,
        r#"r.toml:2:11: postgres.sslmode "verify-full" needs postgres.ssl_root_cert
help: name the file with the certificate of whoever signs the servers' certificates"#,
    ),
    (
        "sslmode",
        r#"[postgres]
sslmode = "verify-ca"
"#,
        "r.toml:2:11: unknown variant `verify-ca`, expected one of `disable`, `prefer`, `require`, `verify-full`",
    ),
    (
        "user",
        r#"[postgres]
user = ""
"#,
        "r.toml:2:8: postgres.user: a name of 0 bytes, allowed are 1 to 63 bytes without NUL",
    ),
    (
        "instance queue over all",
        r#"[ingest]
queue_bytes_per_instance = "1GiB"
"#,
        "r.toml:2:28: ingest.queue_bytes_per_instance (1GiB) must be at most ingest.queue_bytes (512MiB, its default)
help: lower ingest.queue_bytes_per_instance or raise ingest.queue_bytes",
    ),
    (
        "all under instance queue",
        r#"[ingest]
queue_bytes = "64MiB"
"#,
        "r.toml:2:15: ingest.queue_bytes_per_instance (128MiB, its default) must be at most ingest.queue_bytes (64MiB)
help: lower ingest.queue_bytes_per_instance or raise ingest.queue_bytes",
    ),
    (
        "request over instance queue",
        r#"[ingest]
queue_bytes_per_instance = "8MiB"
"#,
        "r.toml:2:28: ingest.max_request_bytes (16MiB, its default) must be at most ingest.queue_bytes_per_instance (8MiB)
help: lower ingest.max_request_bytes or raise ingest.queue_bytes_per_instance",
    ),
    (
        "request over message",
        r#"[ingest]
max_request_bytes = "33MiB"
"#,
        "r.toml:2:21: ingest.max_request_bytes (33MiB) must be at most grpc.max_message_bytes (32MiB, its default)
help: lower ingest.max_request_bytes or raise grpc.max_message_bytes",
    ),
    (
        "message under request",
        r#"[grpc]
max_message_bytes = "8MiB"
"#,
        "r.toml:2:21: ingest.max_request_bytes (16MiB, its default) must be at most grpc.max_message_bytes (8MiB)
help: lower ingest.max_request_bytes or raise grpc.max_message_bytes",
    ),
    (
        "retry",
        r#"[ingest]
retry_min = "3s"
"#,
        "r.toml:2:13: ingest.retry_min (3s) must be at most ingest.retry_max (2s, its default)
help: lower ingest.retry_min or raise ingest.retry_max",
    ),
    (
        "reconnect",
        r#"[alerts]
reconnect_min = "2s"
reconnect_max = "1s"
"#,
        "r.toml:2:17: alerts.reconnect_min (2s) must be at most alerts.reconnect_max (1s)
help: lower alerts.reconnect_min or raise alerts.reconnect_max",
    ),
    (
        "own channel",
        r#"[alerts]
channels = ["a", "pgbraid_alert"]
"#,
        "r.toml:2:18: alerts.channels: 'pgbraid_alert' is one of pgbraid's own channels
help: alerts arrive without it: list only channels of your own triggers",
    ),
    (
        "channel twice",
        r#"[alerts]
channels = ["a", "b", "a"]
"#,
        "r.toml:2:23: alerts.channels: 'a' is listed twice
help: remove one of the two",
    ),
    (
        "channel too long",
        r#"[alerts]
channels = ["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]
"#,
        "r.toml:2:13: alerts.channels: a name of 64 bytes, allowed are 1 to 63 bytes without NUL",
    ),
    (
        "channel empty",
        r#"[alerts]
channels = [""]
"#,
        "r.toml:2:13: alerts.channels: a name of 0 bytes, allowed are 1 to 63 bytes without NUL",
    ),
    (
        "level",
        r#"[log]
level = "inof"
"#,
        r#"r.toml:2:9: log.level: "inof" is neither a level nor target=level
help: levels are off, error, warn, info, debug, trace; for parts, write "info,pgbraid_ingest=debug""#,
    ),
    (
        "log format",
        r#"[log]
format = "xml"
"#,
        "r.toml:2:10: unknown variant `xml`, expected `text` or `json`",
    ),
    (
        "feed name",
        "[feeds.Orders]\n",
        "r.toml:1:8: 'Orders': a feed's name has 1 to 40 of the characters a-z, 0-9 and _, and does not start with a digit",
    ),
    (
        "table",
        r#"[feeds.orders]
table = "Sales.orders"
"#,
        "r.toml:2:9: feeds.orders.table: 'Sales.orders': PostgreSQL folds names without quotes to lower case: write it in lower case or in double quotes",
    ),
    (
        "table name too long",
        r#"[feeds.orders]
table = "public.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
"#,
        "r.toml:2:9: feeds.orders.table: the table's name has 59 bytes, allowed are 1 to 58
help: its leaves are named after it, such as orders_4095, and PostgreSQL cuts names after 63 bytes",
    ),
    (
        "table quoting",
        r#"[feeds.orders]
table = '"Sales.orders'
"#,
        r#"r.toml:2:9: feeds.orders.table: the closing quote of "Sales.orders is missing"#,
    ),
    (
        "coalesce",
        r#"[feeds.orders]
coalesce = "first"
"#,
        "r.toml:2:12: unknown variant `first`, expected `disjoint` or `last`",
    ),
    (
        "merge policy",
        r#"[feeds.orders]
merge = { a = "sum" }
"#,
        "r.toml:2:15: unknown variant `sum`, expected one of `set`, `keep_first`, `json_merge`, `max`, `min`",
    ),
    (
        "overflow is the version",
        r#"[feeds.orders]
version_column = "v"
overflow = "v"
"#,
        "r.toml:3:12: feeds.orders.overflow is also the version column
help: name a column of type jsonb that is used for nothing else",
    ),
    (
        "column name",
        r#"[feeds.orders]
overflow = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
"#,
        "r.toml:2:12: feeds.orders.overflow: a name of 64 bytes, allowed are 1 to 63 bytes without NUL",
    ),
];

#[test]
fn each_is_refused_in_these_words() {
    for (what, text, expected) in CASES {
        let error = RouterConfig::parse(text, "r.toml").unwrap_err();
        assert_eq!(brief(&error), *expected, "{what}");
    }
}

#[test]
fn no_error_carries_a_secret() {
    for text in [
        "[postgres]\npassword = \"hunter2\"\n",
        "postgres = { password = \"hunter2\" }\n",
        "[postgres]\npassword = \"hunter2\n",
        "[grpc]\ntoken = \"hunter2\"\n",
    ] {
        let error = RouterConfig::parse(text, "r.toml").unwrap_err();
        assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
    }
}

const MAP: &str = "\
[instances.db0]
host = \"a\"
[feeds.orders]
tables = 8
[feeds.payments]
tables = 8
";

#[test]
fn the_two_files_must_fit() {
    let map = ShardMap::parse(MAP, "m.toml").unwrap();
    let refused = |text| {
        let router = RouterConfig::parse(text, "r.toml").unwrap();
        brief(&router.check_map(&map).unwrap_err())
    };
    assert_eq!(
        refused("[feeds.order]\n"),
        "r.toml:1:8: there is no feed order in the shard map\n\
         help: the map has orders, payments: correct the name, or add it there"
    );
    assert_eq!(
        refused("[feeds.orders]\ntable = \"payments\"\n"),
        "r.toml:1:8: feeds orders and payments have the same table public.payments\n\
         help: give each feed its own table"
    );
    let good = RouterConfig::parse("[feeds.orders]\ntable = \"o\"\n", "r.toml").unwrap();
    assert!(good.check_map(&map).is_ok());
}
