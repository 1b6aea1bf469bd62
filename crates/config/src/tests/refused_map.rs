//! Every shard map that is refused for its text or its instances.

use super::brief;
use crate::ShardMap;

/// What is wrong, the file, and the error without the lines that show the place.
const CASES: &[(&str, &str, &str)] = &[
    (
        "not TOML",
        "home = ",
        "m.toml:1:8: string values must be quoted, expected literal string",
    ),
    (
        "duplicate table",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[instances.db0]
host = "c"
"#,
        "m.toml:7:12: duplicate key 'db0'
help: each key and each table may stand once: merge the two, or rename one",
    ),
    (
        "duplicate key",
        r#"[instances.db0]
host = "a"
host = "b"
"#,
        "m.toml:3:1: duplicate key 'host'
help: each key and each table may stand once: merge the two, or rename one",
    ),
    (
        "unknown key",
        r#"[instances.db0]
hots = "a"
"#,
        "m.toml:2:1: unknown field `hots`, expected one of `host`, `hosts`, `port`, `weight`, `dbname`, `disk`
help: correct the spelling, or remove the key",
    ),
    (
        "unknown section",
        "instance = 1\n",
        "m.toml:1:1: unknown field `instance`, expected one of `home`, `instances`, `feeds`
help: correct the spelling, or remove the key",
    ),
    (
        "no instances",
        "[feeds.orders]
tables = 8
",
        r#"m.toml: there are no instances
help: add one: [instances.db0] with host = "127.0.0.1""#,
    ),
    (
        "no feeds",
        r#"[instances.db0]
host = "a"
"#,
        "m.toml: there are no feeds
help: add one: [feeds.orders] with tables = 64",
    ),
    (
        "nothing",
        "",
        r#"m.toml: there are no instances
help: add one: [instances.db0] with host = "127.0.0.1""#,
    ),
    (
        "257th instance",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[instances.db256]
host = "c"
"#,
        "m.toml:7:12: 'db256': instances are named db0 to db255 (no leading zeros), at most 256",
    ),
    (
        "leading zero",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[instances.db01]
host = "c"
"#,
        "m.toml:7:12: 'db01': instances are named db0 to db255 (no leading zeros), at most 256",
    ),
    (
        "feed name",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.Orders]
tables = 8
"#,
        "m.toml:7:8: 'Orders': a feed's name has 1 to 40 of the characters a-z, 0-9 and _, and does not start with a digit",
    ),
    (
        "unknown home",
        r#"home = "db7"
[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
"#,
        "m.toml:1:8: home: there is no instance db7
help: add [instances.db7], or correct the name",
    ),
    (
        "home is no name",
        r#"home = "main"
[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
"#,
        "m.toml:1:8: 'main': instances are named db0 to db255 (no leading zeros), at most 256",
    ),
    (
        "host missing",
        "[instances.db0]
port = 1
",
        r#"m.toml:1:12: db0 has no host
help: add host = "..", or hosts = ["..", ".."] for a primary and its standbys"#,
    ),
    (
        "host and hosts",
        r#"[instances.db0]
host = "a"
hosts = ["a"]
"#,
        "m.toml:3:9: db0 has both host and hosts
help: keep one of the two",
    ),
    (
        "hosts empty",
        "[instances.db0]
hosts = []
",
        "m.toml:2:9: db0: hosts is empty
help: list the primary and its standbys",
    ),
    (
        "host twice",
        r#"[instances.db0]
hosts = ["a", "A:5432"]
"#,
        "m.toml:1:12: db0: host a:5432 is listed twice
help: list each host once",
    ),
    (
        "same database",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[instances.db2]
host = "a"
"#,
        "m.toml:7:12: db0 and db2 are the same database at a:5432
help: each instance is a PostgreSQL of its own: correct the host or port, or set another dbname",
    ),
    (
        "same database by a standby",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[instances.db2]
hosts = ["c", "[::1]", "b:5432"]
"#,
        "m.toml:7:12: db1 and db2 are the same database at b:5432
help: each instance is a PostgreSQL of its own: correct the host or port, or set another dbname",
    ),
    (
        "bad host",
        r#"[instances.db0]
host = "a b"
"#,
        "m.toml:2:8: db0: not a host: write a name, an IPv4 address, an IPv6 address in brackets, or the path of a socket's folder",
    ),
    (
        "URL",
        r#"[instances.db0]
host = "postgres://u:hunter2@a"
"#,
        "m.toml:2:8: db0: a host is not a URL: write the name or address only, such as pg1.example:5432",
    ),
    (
        "bare IPv6",
        r#"[instances.db0]
host = "::1"
"#,
        "m.toml:2:8: db0: write IPv6 addresses in brackets, such as [::1] or [::1]:5432",
    ),
    (
        "port",
        r#"[instances.db0]
host = "a"
port = 70000
"#,
        "m.toml:3:8: db0: port is 70000, allowed are 1 to 65535",
    ),
    (
        "port zero",
        r#"[instances.db0]
host = "a:0"
"#,
        "m.toml:2:8: db0: the port is not a number from 1 to 65535",
    ),
    (
        "weight",
        r#"[instances.db0]
host = "a"
weight = 101
"#,
        "m.toml:3:10: db0: weight is 101, allowed are 0 to 100",
    ),
    (
        "weight negative",
        r#"[instances.db0]
host = "a"
weight = -1
"#,
        "m.toml:3:10: db0: weight is -1, allowed are 0 to 100",
    ),
    (
        "dbname",
        r#"[instances.db0]
host = "a"
dbname = ""
"#,
        "m.toml:3:10: db0: dbname: a name of 0 bytes, allowed are 1 to 63 bytes without NUL",
    ),
];

#[test]
fn each_is_refused_in_these_words() {
    for (what, text, expected) in CASES {
        let error = ShardMap::parse(text, "m.toml").unwrap_err();
        assert_eq!(brief(&error), *expected, "{what}");
    }
}

#[test]
fn the_place_is_shown() {
    let text = "[instances.db0]\nhost = \"a\"\n[feeds.orders]\ntables = 8\npins = { db7 = [1] }\n";
    let error = ShardMap::parse(text, "m.toml").unwrap_err();
    assert_eq!(
        error.to_string(),
        "\
m.toml:5:10: feeds.orders.pins: there is no instance db7
  |
5 | pins = { db7 = [1] }
  |          ^^^
help: add [instances.db7], or correct the name"
    );
    assert_eq!(error.position(), Some((5, 10)));
    assert_eq!(
        error.message(),
        "feeds.orders.pins: there is no instance db7"
    );
}

#[test]
fn a_missing_file_says_what_it_is_for() {
    let error = ShardMap::load("/nowhere/shardmap.toml").unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("cannot read /nowhere/shardmap.toml (the shard map): "),
        "{text}"
    );
    assert_eq!(error.position(), None);
}
