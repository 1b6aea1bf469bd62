//! What PostgreSQL asks of each row before it calls the rules' function says, of any two rows, what
//! the rules say one by one: random sets of rules over random values, NULL, NaN, values that are
//! equal and not the same.

use pgbraid_proto::v1;
use pgbraid_rules::check;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router,
    rows::admin,
    rules::{cooling, edge, resolving},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio_postgres::Client;

const SCHEMA: &str = r#"
create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create table feed (
    id int8 primary key, i2 int2, i4 int4, i8 int8, num numeric, price numeric(12,2), f4 float4,
    f8 float8, note text, code varchar(9), name text collate nocase, flag bool, day date,
    at timestamptz, took interval, doc jsonb
) partition by hash (id);
"#;

/// Columns, and what a random row has in them.
const VALUES: [(&str, &[&str]); 15] = [
    ("i2", &["-1", "0", "1", "2", "7", "32767"]),
    ("i4", &["-1", "0", "1", "2", "7", "2147483647"]),
    ("i8", &["-1", "0", "1", "2", "7", "9223372036854775807"]),
    (
        "num",
        &[
            "-1",
            "0",
            "1",
            "1.0",
            "1.00",
            "0.1",
            "7.5",
            "'NaN'",
            "'infinity'",
            "'-infinity'",
            "1e30",
        ],
    ),
    ("price", &["-1", "0", "1", "1.5", "7.25", "'NaN'"]),
    (
        "f4",
        &["-1", "'-0'", "0", "1", "0.1", "7.5", "'NaN'", "'infinity'"],
    ),
    (
        "f8",
        &["-1", "'-0'", "0", "1", "0.1", "7.5", "'NaN'", "'-infinity'"],
    ),
    (
        "note",
        &[
            "''",
            "'a'",
            "'A'",
            "'b'",
            "'it''s'",
            r"'a\b'",
            "'{\"x\"}'",
            "'12'",
            "'7'",
            "'null'",
        ],
    ),
    ("code", &["''", "'a'", "'A'", "'b'", "'a '", "'12'"]),
    ("name", &["''", "'a'", "'A'", "'b'", "'B'", "'c'"]),
    ("flag", &["true", "false"]),
    (
        "day",
        &[
            "'2024-01-01'",
            "'2024-06-01'",
            "'infinity'",
            "'0044-03-15 BC'",
        ],
    ),
    (
        "at",
        &[
            "'2024-01-01 00:00+00'",
            "'2024-01-01 01:00+01'",
            "'2024-06-01 12:00+00'",
        ],
    ),
    ("took", &["'1 mon'", "'30 days'", "'1 day'", "'24 hours'"]),
    (
        "doc",
        &[
            r#"'{"a": 1.0}'"#,
            r#"'{"a": 1.00}'"#,
            r#"'{"a": null}'"#,
            "'[]'",
        ],
    ),
];

const NUMBERS: [&str; 7] = ["i2", "i4", "i8", "num", "price", "f4", "f8"];

/// One value in many spellings, values beyond the types, fractions between whole numbers.
const CONSTANTS: [&str; 20] = [
    "-1",
    "-0.5",
    "0",
    "0.0",
    "0.1",
    ".10",
    "1",
    "1.0",
    "1.00",
    "1e0",
    "10e-1",
    "1.5",
    "2",
    "7",
    "7.5",
    "7.25",
    "32768",
    "2147483648",
    "9223372036854775808",
    "1e30",
];

/// Conditions that are no plain comparison with a constant.
const ODD: [&str; 42] = [
    "1 < 2",
    "null = 1",
    "num::text = '1.00'",
    "length(num::text) > 3",
    "num / 3 > 0.333333333333333333333",
    "num * 3 > 2",
    "round(num, 1) = 1.0",
    "abs(num) >= 1",
    "price::text = '1.00'",
    "price / 3 > 0.5",
    "f8::text = '-0'",
    "f4::text || 'x' = '-0x'",
    "f8 * 2 = 0",
    "-f4 < 1",
    "coalesce(i4, i2, 0) > 1",
    "i4 % 5 + i8 % 5 > 3::int8 - i2 % 5",
    "nullif(i4, 1) is null",
    "greatest(num, f8::numeric) > 1",
    "md5(name) = md5('A')",
    "lower(name) = 'a'",
    "name = 'a'",
    "name in ('a', 'B')",
    "name <> 'b'",
    "name > 'a'",
    "note > 'a'",
    "note like '%a%'",
    "note ~ '^[0-9]+$' and note::int > 7",
    "case when note ~ '^[0-9]+$' then note::int = 12 else false end",
    "code = 'a '",
    "code in ('a', 'A', '12')",
    "flag",
    "not flag",
    "flag is not true",
    "flag is unknown",
    "day > '2024-01-01'",
    "day = date '2024-06-01'",
    "at < timestamptz '2024-03-01 00:00+00'",
    "extract(day from took) > 1",
    "took = interval '1 mon'",
    "doc ->> 'a' = '1.0'",
    "doc @> '{\"a\": 1}'",
    "date_trunc('day', at) = at",
];

const CHANGES: [&str; 7] = [
    "old.i4 < i4",
    "old.note = 'a' and note = 'b'",
    "old.i4 = 1 and i4 > 1",
    "old.num is null",
    "old.name is distinct from name",
    "old.i8 > 1 and num > 1",
    "old.note in ('a', 'b')",
];

fn one<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of.choose(random).expect("there are some")
}

fn plain(random: &mut StdRng, numbers: &[&str]) -> String {
    let number = one(random, numbers);
    let mut constant = || one(random, &CONSTANTS);
    let (a, b) = (constant(), constant());
    let op = one(random, &["=", "=", "<", "<=", ">", ">=", "<>"]);
    let text = one(random, &["note", "code", "name"]);
    let mut literal = || {
        one(
            random,
            &[
                "''",
                "'a'",
                "'A'",
                "'b'",
                "'it''s'",
                r"'a\b'",
                "'{\"x\"}'",
                "'null'",
            ],
        )
    };
    let (x, y) = (literal(), literal());
    match random.random_range(0..8) {
        0..=2 => format!("{number} {op} {a}"),
        3 => format!("{a} {op} {number}"),
        4 => format!("{number} in ({a}, {b})"),
        5 => format!("{number} between {a} and {b}"),
        6 => format!("{text} = {x}"),
        _ => format!("{text} in ({x}, {y})"),
    }
}

fn expression(random: &mut StdRng, numbers: &[&str], depth: u32) -> String {
    let part = |random: &mut StdRng| expression(random, numbers, depth + 1);
    match random.random_range(0..if depth < 2 { 14 } else { 8 }) {
        0..=4 => plain(random, numbers),
        5 | 6 => one(random, &ODD).to_owned(),
        7 => {
            let (column, _) = VALUES.choose(random).expect("there are some");
            let test = one(random, &["is null", "is not null"]);
            format!("{column} {test}")
        }
        8..=10 => format!("({}) and ({})", part(random), part(random)),
        11 => format!("({}) or ({})", part(random), part(random)),
        12 => format!("not ({})", part(random)),
        _ => format!("({}) is true", part(random)),
    }
}

/// A rule, and when it concerns an insert, an update, a delete: each by itself and as it is meant.
struct Meant {
    rule: v1::Rule,
    insert: Option<String>,
    update: String,
    delete: Option<String>,
}

fn meant(random: &mut StdRng, name: &str, numbers: &[&str], columns: &[String]) -> Meant {
    let kind = random.random_range(0..9);
    let expression = match kind {
        0 => one(random, &CHANGES).to_owned(),
        _ => expression(random, numbers, 0),
    };
    let checked = check(&expression, columns).unwrap_or_else(|e| panic!("{expression}: {e}"));
    let new = format!("(({}) is true)", checked.new_sql());
    let old = checked.old_sql().map(|old| format!("(({old}) is true)"));
    let plain = edge(name, &expression);
    let Some(old) = old else {
        return Meant {
            rule: plain,
            insert: None,
            update: new,
            delete: None,
        };
    };
    let (rule, update) = match kind {
        1 => {
            let mode = v1::RuleMode::Level.into();
            (v1::Rule { mode, ..plain }, new.clone())
        }
        2 => (resolving(name, &expression), format!("({new} <> {old})")),
        3 => (cooling(plain), new.clone()),
        4 => (
            cooling(resolving(name, &expression)),
            format!("({new} or {old})"),
        ),
        _ => (plain, format!("({new} and not {old})")),
    };
    let delete = rule.resolve.then_some(old);
    Meant {
        rule,
        insert: Some(new),
        update,
        delete,
    }
}

async fn put(router: &Router, rules: &[Meant]) {
    let rules = rules.iter().map(|meant| v1::RulePut {
        rule: Some(meant.rule.clone()),
        expected_version: None,
    });
    let request = v1::PutRulesRequest {
        rules: rules.collect(),
        prune: true,
        dry_run: false,
    };
    let put = admin(router).await.put_rules(request).await;
    put.expect("the rules are taken");
}

/// The WHEN of a trigger on the parent, as PostgreSQL has it.
async fn when(sql: &Client, trigger: &str) -> Option<String> {
    let query = "select pg_get_triggerdef(oid) from pg_trigger \
                 where tgrelid = 'public.feed'::regclass and tgname = $1";
    let row = sql.query_opt(query, &[&trigger]).await.expect("a query");
    let text: String = row?.get(0);
    let (_, when) = text.split_once(" WHEN (").expect("it has a WHEN");
    let (when, _) = when.rsplit_once(") EXECUTE FUNCTION").expect("and an end");
    Some(when.to_owned())
}

/// Stores random rows in a table like the feed, one of them with NULL everywhere.
async fn sample(sql: &Client, random: &mut StdRng, rows: usize) {
    let columns = VALUES.map(|(name, _)| name).join(", ");
    let mut all = vec![format!("(0, {})", ["null"; VALUES.len()].join(", "))];
    for id in 1..rows {
        let values = VALUES.map(|(_, some)| match random.random_bool(0.15) {
            true => "null",
            false => one(random, some),
        });
        all.push(format!("({id}, {})", values.join(", ")));
    }
    let all = all.join(", ");
    let text = format!(
        "drop table if exists sample; create table sample (like feed);
         insert into sample (id, {columns}) values {all}; update sample set id = 0;"
    );
    sql.batch_execute(&text).await.expect("rows are stored");
}

/// Rows, or pairs of rows, of which `when` and the rules say different things.
async fn differences(sql: &Client, from: &str, when: &str, meant: &[&str]) -> i64 {
    let meant = meant.join(" or ");
    let query = format!("select count(*) from {from} where (({when}) is true) <> ({meant})");
    let counted = sql.query_one(&query, &[]).await;
    let row = counted.unwrap_or_else(|error| panic!("{error:?}\n{query}"));
    row.get(0)
}

#[tokio::test]
async fn when_says_what_the_rules_say() {
    let sets = std::env::var("PGBRAID_RULE_SETS").map_or(40, |n| n.parse().expect("a number"));
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        schema: SCHEMA.into(),
        feeds: vec![("feed".into(), 1)],
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    let sql = cluster.sql(0).await;
    let columns: Vec<String> = std::iter::once("id")
        .chain(VALUES.map(|(name, _)| name))
        .map(str::to_owned)
        .collect();
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    // What may stand in front of rules: it says nothing of what it has not seen.
    let mut unseen = vec![
        "= any",
        "is distinct from",
        "collate \"c\"",
        ") is true) or ((",
    ];
    for set in 0.. {
        // Random sets may lack one of them for long.
        if set >= sets && (unseen.is_empty() || set >= sets + 1000) {
            break;
        }
        let count = random.random_range(2..30);
        // Few, so that rules have much in common.
        let numbers: Vec<&str> = NUMBERS.sample(&mut random, 2).copied().collect();
        let rules: Vec<Meant> = (0..count)
            .map(|number| meant(&mut random, &format!("r{number}"), &numbers, &columns))
            .collect();
        put(&router, &rules).await;
        sample(&sql, &mut random, 50).await;
        let inserts: Vec<&str> = rules.iter().filter_map(|r| r.insert.as_deref()).collect();
        let updates: Vec<&str> = rules.iter().map(|r| r.update.as_str()).collect();
        let deletes: Vec<&str> = rules.iter().filter_map(|r| r.delete.as_deref()).collect();
        for (event, from, meant) in [
            ("insert", "sample new", inserts),
            ("update", "sample old, sample new", updates),
            ("delete", "sample old", deletes),
        ] {
            let Some(when) = when(&sql, &format!("pgbraid_rules_{event}")).await else {
                assert!(meant.is_empty(), "there is no trigger for {event}");
                continue;
            };
            let texts: Vec<&str> = rules.iter().map(|r| r.rule.expression.as_str()).collect();
            assert_eq!(
                differences(&sql, from, &when, &meant).await,
                0,
                "set {set} of seed {seed}, {event}: {when}\n{texts:#?}\n{meant:#?}"
            );
            let when = when.to_lowercase();
            unseen.retain(|text| !when.contains(text));
        }
    }
    assert!(
        unseen.is_empty(),
        "no trigger of seed {seed} has {unseen:?}"
    );
}
