//! What is accepted, and what it means.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgbraid_shardmap::{FeedName, InstanceName, TableId};

use crate::{Coalesce, HostPort, LogFormat, MergePolicy, RouterConfig, ShardMap, SslMode};

fn db(index: u8) -> InstanceName {
    InstanceName::new(index)
}

fn feed(name: &str) -> FeedName {
    FeedName::parse(name).unwrap()
}

fn host(host: &str, port: u16) -> HostPort {
    HostPort {
        host: host.into(),
        port,
    }
}

const MAP: &str = r#"
home = "db10"
[instances.db10]
hosts = ["A.example", "b.example:5433", "[::1]"]
port = 6000
weight = 3
[instances.db2]
host = "/var/run/postgresql"
dbname = "orders"
[feeds.orders]
tables = 24
[feeds.orders.pins]
db2 = ["0-15", 20, "21"]
db10 = ["16-19"]
[feeds.payments]
tables = 1
"#;

#[test]
fn a_shard_map() {
    let map = ShardMap::parse(MAP, "m.toml").unwrap();
    assert_eq!(map.home, db(10));
    let names: Vec<_> = map.instances.keys().copied().collect();
    assert_eq!(names, [db(2), db(10)], "by number, not by text");

    let db10 = &map.instances[&db(10)];
    let hosts = [
        host("a.example", 6000),
        host("b.example", 5433),
        host("::1", 6000),
    ];
    assert_eq!(db10.hosts, hosts);
    assert_eq!((db10.weight, db10.dbname.as_deref()), (3, None));
    let db2 = &map.instances[&db(2)];
    assert_eq!(db2.hosts, [host("/var/run/postgresql", 5432)]);
    assert_eq!((db2.weight, db2.dbname.as_deref()), (1, Some("orders")));

    let orders = &map.feeds[&feed("orders")];
    assert_eq!((orders.tables, orders.placement.len()), (24, 24));
    assert_eq!(orders.pins.len(), 22);
    for (table, instance) in [(0, 2), (15, 2), (16, 10), (19, 10), (20, 2), (21, 2)] {
        assert_eq!(orders.pins[&TableId::new(table)], db(instance));
        assert_eq!(orders.placement[table as usize], db(instance));
    }
    assert_eq!(map.feeds[&feed("payments")].placement.len(), 1);
}

#[test]
fn the_home_is_the_lowest_instance_by_default() {
    let map = ShardMap::parse(&MAP.replace("home = \"db10\"", ""), "m.toml").unwrap();
    assert_eq!(map.home, db(2));
}

#[test]
fn two_databases_of_one_server_are_two_instances() {
    let text = "
        instances.db0 = { host = 'a', dbname = 'x' }
        instances.db1 = { host = 'a', dbname = 'y' }
        feeds.orders = { tables = 4 }";
    assert_eq!(ShardMap::parse(text, "m.toml").unwrap().instances.len(), 2);
}

#[test]
fn all_256_instances_and_4096_tables() {
    let mut text = "feeds.orders = { tables = 4096 }\n".to_owned();
    for index in 0..=255 {
        text += &format!(
            "[instances.db{index}]\nhost = 'h'\nport = {}\n",
            6000 + index
        );
    }
    let map = ShardMap::parse(&text, "m.toml").unwrap();
    assert_eq!(map.instances.len(), 256);
    assert_eq!(map.feeds[&feed("orders")].placement.len(), 4096);
}

#[test]
fn the_fingerprint_is_of_the_meaning() {
    let map = ShardMap::parse(MAP, "m.toml").unwrap();
    assert_eq!(map.fingerprint, "c2583f1e9ba585d6", "stable over versions");
    let same = [
        MAP.replace("\"0-15\", 20, \"21\"", "\"20-21\", \"8-15\", \"0-7\""),
        MAP.replace("b.example:5433", "B.EXAMPLE:5433"),
        MAP.replace("tables = 1\n", "unpinned = 'hash'\ntables = 0x1\n"),
    ];
    for text in same {
        assert_ne!(text, MAP);
        assert_eq!(ShardMap::parse(&text, "n.toml").unwrap(), map);
    }
    let other = [
        MAP.replace("home = \"db10\"", ""),
        MAP.replace("weight = 3", "weight = 4"),
        MAP.replace("5433", "5434"),
        MAP.replace("dbname = \"orders\"", ""),
        MAP.replace("tables = 1\n", "tables = 2\n"),
        MAP.replace(", \"21\"", ""),
    ];
    for text in other {
        let other = ShardMap::parse(&text, "m.toml").unwrap();
        assert_ne!(other.fingerprint, map.fingerprint, "{text}");
    }
}

#[test]
fn router_defaults() {
    let config = RouterConfig::parse("", "conf/pgbraid.toml").unwrap();
    assert_eq!(config.shardmap, Path::new("conf/shardmap.toml"));
    assert_eq!(config.schema, Vec::<PathBuf>::new());
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(config.grpc.listen, address("127.0.0.1:7432"));
    assert_eq!(config.http.listen, address("127.0.0.1:7433"));
    assert_eq!(config.grpc.max_message_bytes, 32 << 20);
    assert!(config.grpc.tls.is_none() && config.grpc.token_file.is_none());
    assert!(!config.grpc.allow_plaintext);

    let ms = Duration::from_millis;
    let pg = &config.postgres;
    assert_eq!(
        (pg.user.as_str(), pg.dbname.as_str()),
        ("pgbraid", "pgbraid")
    );
    assert_eq!(pg.sslmode, SslMode::Prefer);
    assert_eq!((pg.writers, pg.readers, pg.statement_cache), (4, 2, 1024));
    assert_eq!(pg.search_path, "public");
    assert_eq!(
        (pg.connect_timeout, pg.statement_timeout),
        (ms(5_000), ms(30_000))
    );
    assert_eq!(
        (pg.lock_timeout, pg.tcp_user_timeout),
        (ms(5_000), ms(15_000))
    );
    assert!(pg.password_file.is_none() && pg.ssl_root_cert.is_none());

    let ingest = &config.ingest;
    assert_eq!((ingest.batch_rows, ingest.max_request_rows), (8000, 20_000));
    assert_eq!(
        (ingest.linger, ingest.request_timeout),
        (ms(20), ms(30_000))
    );
    assert_eq!(ingest.max_request_bytes, 16 << 20);
    assert_eq!(ingest.queue_bytes, 512 << 20);
    assert_eq!(ingest.queue_bytes_per_instance, 128 << 20);
    assert_eq!(ingest.stream_in_flight, 1024);
    assert_eq!((ingest.retry_min, ingest.retry_max), (ms(20), ms(2_000)));
    assert_eq!(
        (ingest.stall_after, ingest.drain_timeout),
        (ms(5_000), ms(20_000))
    );

    let alerts = &config.alerts;
    assert_eq!(alerts.heartbeat, ms(5_000));
    assert_eq!(
        (alerts.reconnect_min, alerts.reconnect_max),
        (ms(50), ms(5_000))
    );
    assert_eq!((alerts.ring_alerts, alerts.read_batch), (8192, 1000));
    assert_eq!(alerts.max_subscribers, 10_000);
    assert!(alerts.channels.is_empty());
    let (kept, hour) = (&alerts.retention, ms(3_600_000));
    assert_eq!((kept.keep, kept.held_keep), (hour * 24 * 7, hour * 24 * 30));
    assert_eq!(
        (kept.keep_bytes, kept.held_keep_bytes),
        (16 << 30, 64 << 30)
    );
    assert_eq!(
        (kept.part_time, kept.part_bytes),
        (hour * 7, (16 << 30) / 24)
    );

    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.level, "info");
    assert!(config.map.watch && config.feeds.is_empty());
    let orders = config.feed(&feed("orders"));
    assert_eq!(orders.table.to_string(), "public.orders");
    assert_eq!(orders.coalesce, Coalesce::Disjoint);
    assert_eq!(orders.merge_policy("x"), MergePolicy::Set);
}

#[test]
fn router_settings() {
    let text = r#"
        shardmap = "/etc/map.toml"
        schema = ["a.sql", "sub/b.sql"]
        [grpc]
        listen = "0.0.0.0:0"
        tls = { cert = "c.pem", key = "k.pem" }
        token_file = "token"
        [postgres]
        sslmode = "verify-full"
        ssl_root_cert = "ca.pem"
        [ingest]
        max_request_bytes = 65536
        [alerts]
        channels = ["channel_1", "Two"]
        [log]
        format = "json"
        level = "info,pgbraid_ingest=debug"
        [map]
        watch = false
        [feeds.orders]
        table = '"Sales"."Orders Wide"'
        coalesce = "last"
        version_column = "version"
        overflow = "attrs"
        merge = { paid_total = "max", note = "keep_first", attrs = "json_merge" }
    "#;
    let config = RouterConfig::parse(text, "conf/r.toml").unwrap();
    assert_eq!(config.shardmap, Path::new("/etc/map.toml"));
    assert_eq!(config.schema[1], Path::new("conf/sub/b.sql"));
    let tls = config.grpc.tls.as_ref().unwrap();
    assert_eq!(tls.key, Path::new("conf/k.pem"));
    assert_eq!(config.postgres.sslmode, SslMode::VerifyFull);
    assert_eq!(config.ingest.max_request_bytes, 65_536);
    assert_eq!(config.alerts.channels, ["channel_1", "Two"]);
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(!config.map.watch);
    let orders = config.feed(&feed("orders"));
    assert_eq!(orders.table.name, "Orders Wide");
    assert_eq!(orders.coalesce, Coalesce::Last);
    assert_eq!(orders.version_column.as_deref(), Some("version"));
    assert_eq!(orders.overflow.as_deref(), Some("attrs"));
    assert_eq!(orders.merge_policy("paid_total"), MergePolicy::Max);
    assert_eq!(orders.merge_policy("note"), MergePolicy::KeepFirst);
    assert_eq!(orders.merge_policy("attrs"), MergePolicy::JsonMerge);
    assert_eq!(orders.merge_policy("other"), MergePolicy::Set);
}

#[test]
fn plaintext_beyond_loopback_when_it_is_allowed() {
    let text = "[grpc]\nlisten = '[::]:7432'\nallow_plaintext = true\n";
    let grpc = RouterConfig::parse(text, "r.toml").unwrap().grpc;
    assert!(grpc.allow_plaintext && grpc.listen.is_ipv6());
}

/// The examples load, fit together, and show the defaults, so that they cannot go stale.
#[test]
fn the_examples_show_the_defaults() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let config = RouterConfig::load(deploy.join("pgbraid.toml")).unwrap();
    assert!(config.shardmap.is_absolute());
    let map = ShardMap::load(&config.shardmap).unwrap();
    config.check_map(&map).unwrap();

    let default = RouterConfig::parse("", "pgbraid.toml").unwrap();
    assert_eq!(config.schema, default.schema);
    assert_eq!(config.grpc, default.grpc);
    assert_eq!(config.http, default.http);
    assert_eq!(config.postgres, default.postgres);
    assert_eq!(config.ingest, default.ingest);
    assert_eq!(config.alerts, default.alerts);
    assert_eq!(config.log, default.log);
    assert_eq!(config.map, default.map);
}

/// Every key of the router's file stands in its example, if only in a comment.
#[test]
fn the_examples_name_every_key() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for (file, schema) in [
        ("pgbraid.toml", crate::router_schema()),
        ("shardmap.toml", crate::shardmap_schema()),
    ] {
        let text = std::fs::read_to_string(deploy.join(file)).unwrap();
        for (section, shape) in schema["$defs"].as_object().unwrap() {
            let properties = shape["properties"].as_object();
            for key in properties.into_iter().flat_map(|keys| keys.keys()) {
                let named =
                    text.contains(&format!("{key} = ")) || text.contains(&format!("{key}]"));
                assert!(named, "deploy/{file} does not name {key} of {section}");
            }
        }
    }
}
