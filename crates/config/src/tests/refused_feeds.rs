//! Every shard map that is refused for its feeds or pins.

use super::brief;
use crate::ShardMap;

/// What is wrong, the file, and the error without the lines that show the place.
const CASES: &[(&str, &str, &str)] = &[
    (
        "no tables",
        r#"[instances.db0]
host = "a"
[feeds.orders]
"#,
        "m.toml:3:1: missing field `tables`
help: add the key",
    ),
    (
        "zero tables",
        r#"[instances.db0]
host = "a"
[feeds.orders]
tables = 0
"#,
        "m.toml:4:10: feeds.orders.tables is 0, allowed are 1 to 4096",
    ),
    (
        "too many tables",
        r#"[instances.db0]
host = "a"
[feeds.orders]
tables = 4097
"#,
        "m.toml:4:10: feeds.orders.tables is 4097, allowed are 1 to 4096",
    ),
    (
        "tables is text",
        r#"[instances.db0]
host = "a"
[feeds.orders]
tables = "8"
"#,
        r#"m.toml:4:10: invalid type: string "8", expected a whole number
help: see the commented examples deploy/pgbraid.toml and deploy/shardmap.toml"#,
    ),
    (
        "unpinned",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
unpinned = "spread"
"#,
        "m.toml:7:12: unknown variant `spread`, expected `hash` or `refuse`",
    ),
    (
        "overlap",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = ["0-3"]
db1 = [5, "3-4"]
"#,
        "m.toml:9:11: tbl3 of feed orders is pinned twice: to db0 (line 8) and to db1
help: pin each table once",
    ),
    (
        "overlap in the order of the file",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db1 = ["0-3"]
db0 = [2]
"#,
        "m.toml:9:8: tbl2 of feed orders is pinned twice: to db1 (line 8) and to db0
help: pin each table once",
    ),
    (
        "overlap in one instance",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = ["0-3", 1]
"#,
        "m.toml:8:15: tbl1 of feed orders is pinned twice: to db0 (line 8) and to db0
help: pin each table once",
    ),
    (
        "unknown instance",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db7 = [1]
"#,
        "m.toml:8:1: feeds.orders.pins: there is no instance db7
help: add [instances.db7], or correct the name",
    ),
    (
        "pin to no name",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db256 = [1]
"#,
        "m.toml:8:1: 'db256': instances are named db0 to db255 (no leading zeros), at most 256",
    ),
    (
        "pin out of range",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = ["6-8"]
"#,
        "m.toml:8:8: feed orders has 8 tables: there is no tbl8
help: its tables are 0 to 7",
    ),
    (
        "pin out of range, plain",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = [8]
"#,
        "m.toml:8:8: feed orders has 8 tables: there is no tbl8
help: its tables are 0 to 7",
    ),
    (
        "reversed",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = ["3-1"]
"#,
        r#"m.toml:8:8: the range 3-1 is reversed
help: write "1-3""#,
    ),
    (
        "pin of nonsense",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = ["a-b"]
"#,
        r#"m.toml:8:8: "a-b" is neither a table's number such as 20 nor a range such as "0-15""#,
    ),
    (
        "open range",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = ["3-"]
"#,
        r#"m.toml:8:8: "3-" is neither a table's number such as 20 nor a range such as "0-15""#,
    ),
    (
        "pin is negative",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = [-1]
"#,
        "m.toml:8:8: -1 is no table's number",
    ),
    (
        "pin is a boolean",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
[feeds.orders.pins]
db0 = [true]
"#,
        r#"m.toml:8:8: invalid type: boolean `true`, expected a table's number such as 20, or a range such as "0-15"
help: see the commented examples deploy/pgbraid.toml and deploy/shardmap.toml"#,
    ),
    (
        "hole",
        r#"[instances.db0]
host = "a"
[instances.db1]
host = "b"
[feeds.orders]
tables = 8
unpinned = "refuse"
[feeds.orders.pins]
db0 = ["0-5"]
"#,
        r#"m.toml:5:8: feed orders: 2 of 8 tables are pinned to no instance: tbl6, tbl7
help: pin them, or set unpinned = "hash" to have them spread"#,
    ),
    (
        "long hole",
        r#"[instances.db0]
host = "a"
[feeds.orders]
tables = 64
unpinned = "refuse"
"#,
        r#"m.toml:3:8: feed orders: 64 of 64 tables are pinned to no instance: tbl0, tbl1, tbl2, tbl3, tbl4, tbl5, tbl6, tbl7 and 56 more
help: pin them, or set unpinned = "hash" to have them spread"#,
    ),
    (
        "columns without changes",
        r#"[instances.db0]
host = "a"
[feeds.orders]
tables = 8
change_columns = true
"#,
        "m.toml:5:18: feed orders is to tell which columns change, and not of changes
help: write `changes = true` as well",
    ),
    (
        "all weights 0",
        r#"[instances.db0]
host = "a"
weight = 0
[feeds.orders]
tables = 64
"#,
        "m.toml:4:8: 64 of 64 tables of feed orders are not pinned, and every weight is 0
help: pin them, or give an instance a weight above 0",
    ),
];

#[test]
fn each_is_refused_in_these_words() {
    for (what, text, expected) in CASES {
        let error = ShardMap::parse(text, "m.toml").unwrap_err();
        assert_eq!(brief(&error), *expected, "{what}");
    }
}
