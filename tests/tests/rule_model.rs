//! Random writes by any writer against a model of what rules tell: starts, ends, cool-downs, keys
//! that change, rows that are deleted, statements of many rows, transactions rolled back.

use std::collections::BTreeMap;

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router,
    rules::{Outbox, cooling, edge, hour, put, resolving},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

const KEYS: i64 = 6;
const STEPS: u32 = 1500;

type Rows = BTreeMap<i64, Option<i32>>;
/// A key, and its row from then on; None is no row.
type Change = (i64, Option<Option<i32>>);

/// A rule as it is meant.
struct Meant {
    name: String,
    resolve: bool,
    cooldown: bool,
    kind: Kind,
    matches: Matches,
    /// By key: whether an hour has passed since it was told, and whether a start was kept back.
    cools: BTreeMap<i64, (bool, bool)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Edge,
    Level,
    Rise,
}

/// An expression, and what it says of a value of c1 that is not NULL.
type Matches = (&'static str, fn(i32) -> bool);

const HIGH: Matches = ("c1 > 10", |c1| c1 > 10);
/// NULL is no match, and neither is its negation.
const NOT_LOW: Matches = ("not (c1 <= 10)", |c1| c1 > 10);

/// Conditions that have something in common, which PostgreSQL is asked of first.
const ALIKE: [Matches; 8] = [
    ("c1 = 8", |c1| c1 == 8),
    ("c1 in (12)", |c1| c1 == 12),
    ("13.0 = c1", |c1| c1 == 13),
    ("c1 in (9, 11) or c1 = 13", |c1| [9, 11, 13].contains(&c1)),
    ("c1 > 11", |c1| c1 > 11),
    ("c1 > 11.5", |c1| c1 > 11),
    ("c1 > 12 and c1 % 2 = 1", |c1| c1 > 12 && c1 % 2 == 1),
    ("c1 between 9 and 12", |c1| (9..=12).contains(&c1)),
];

impl Meant {
    fn new(name: &str, resolve: bool, cooldown: bool, kind: Kind) -> Self {
        let matches = if name == "not_low" { NOT_LOW } else { HIGH };
        Self {
            name: name.to_owned(),
            resolve,
            cooldown,
            kind,
            matches,
            cools: BTreeMap::new(),
        }
    }

    /// Rules of each kind with conditions that are alike.
    fn alike() -> impl Iterator<Item = Self> {
        let kinds = [
            (false, false, Kind::Edge),
            (true, false, Kind::Edge),
            (false, true, Kind::Edge),
            (true, true, Kind::Edge),
            (false, false, Kind::Level),
        ];
        kinds
            .into_iter()
            .enumerate()
            .flat_map(|(of, (resolve, cooldown, kind))| {
                ALIKE
                    .into_iter()
                    .enumerate()
                    .map(move |(at, matches)| Self {
                        matches,
                        ..Self::new(&format!("alike_{of}{at}"), resolve, cooldown, kind)
                    })
            })
    }

    fn wire(&self) -> v1::Rule {
        let rule = match self.kind {
            Kind::Edge if self.resolve => resolving(&self.name, self.matches.0),
            Kind::Edge => edge(&self.name, self.matches.0),
            Kind::Level => v1::Rule {
                mode: v1::RuleMode::Level.into(),
                ..edge(&self.name, self.matches.0)
            },
            Kind::Rise => edge(&self.name, "old.c1 < c1"),
        };
        if self.cooldown { cooling(rule) } else { rule }
    }

    /// What it says when the row of `key` goes from `old` to `new`; None is no row.
    fn tell(
        &mut self,
        key: i64,
        old: Option<Option<i32>>,
        new: Option<Option<i32>>,
        told: &mut Vec<String>,
    ) {
        let high = |row: Option<Option<i32>>| row.flatten().is_some_and(self.matches.1);
        let show = |c1: Option<i32>| c1.map_or("null".to_owned(), |c1| c1.to_string());
        let (lasted, lasts) = (high(old), high(new));
        let fires = match self.kind {
            Kind::Edge => lasts && !lasted,
            Kind::Level => lasts,
            Kind::Rise => matches!((old, new), (Some(Some(a)), Some(Some(b))) if a < b),
        };
        if self.kind == Kind::Edge && self.resolve && lasted && !lasts {
            let kept_back = self
                .cools
                .get_mut(&key)
                .map(|state| std::mem::take(&mut state.1));
            if kept_back != Some(true) {
                let row = new.or(old).flatten();
                told.push(format!("-{} {key} {}", self.name, show(row)));
            }
        }
        let state = self.cools.get(&key).copied();
        let free = state.is_none_or(|(passed, _)| passed);
        let late = self.kind == Kind::Edge && lasted && lasts && state.is_some_and(|s| s.1);
        if !self.cooldown {
            if fires {
                told.push(format!("{} {key} {}", self.name, show(new.flatten())));
            }
        } else if free && (fires || late) {
            told.push(format!("{} {key} {}", self.name, show(new.flatten())));
            self.cools.insert(key, (false, false));
        } else if fires && self.kind == Kind::Edge {
            self.cools.entry(key).and_modify(|state| state.1 = true);
        }
    }
}

fn meant() -> Vec<Meant> {
    let mut rules = vec![
        Meant::new("plain", false, false, Kind::Edge),
        Meant::new("ends", true, false, Kind::Edge),
        Meant::new("rare", false, true, Kind::Edge),
        Meant::new("rare_ends", true, true, Kind::Edge),
        Meant::new("not_low", true, true, Kind::Edge),
        Meant::new("level", false, false, Kind::Level),
        Meant::new("rare_level", false, true, Kind::Level),
        Meant::new("rise", false, false, Kind::Rise),
        Meant::new("rare_rise", false, true, Kind::Rise),
    ];
    rules.extend(Meant::alike());
    rules
}

fn value(random: &mut StdRng) -> Option<i32> {
    let some = random.random_bool(0.85);
    some.then(|| {
        if random.random_bool(0.5) {
            random.random_range(11..14)
        } else {
            random.random_range(8..11)
        }
    })
}

/// A statement, and the rows after it with the keys that it touches.
fn statement(random: &mut StdRng, rows: &Rows) -> (String, Vec<Change>) {
    let key = random.random_range(0..KEYS);
    let c1 = value(random);
    let text = c1.map_or("null".to_owned(), |c1| c1.to_string());
    match random.random_range(0..10) {
        0..=4 => (
            format!(
                "insert into feed (id, c1) values ({key}, {text}) on conflict (id) do update set c1 = excluded.c1"
            ),
            vec![(key, Some(c1))],
        ),
        5 => {
            let text = format!("update feed set c1 = {text} where id < 3");
            (
                text,
                rows.range(..3).map(|(key, _)| (*key, Some(c1))).collect(),
            )
        }
        6 | 7 => {
            let there = rows.contains_key(&key).then_some((key, None));
            (
                format!("delete from feed where id = {key}"),
                there.into_iter().collect(),
            )
        }
        // The key changes: within its partition or to another one.
        8 => {
            let other = random.random_range(0..KEYS);
            match rows.get(&key) {
                Some(row) if !rows.contains_key(&other) => (
                    format!("update feed set id = {other} where id = {key}"),
                    vec![(key, None), (other, Some(*row))],
                ),
                _ => ("select".into(), Vec::new()),
            }
        }
        _ => {
            let text = format!(
                "insert into feed (id, c1) values ({key}, {text}) on conflict (id) do nothing"
            );
            let new = !rows.contains_key(&key);
            (text, new.then_some((key, Some(c1))).into_iter().collect())
        }
    }
}

async fn start() -> (Cluster, Router, Client) {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        feeds: vec![("feed".into(), 2)],
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    let sql = cluster.sql(0).await;
    (cluster, router, sql)
}

#[tokio::test]
async fn rules_tell_what_the_model_tells() {
    let (_cluster, router, sql) = start().await;
    let mut rules = meant();
    put(&router, rules.iter().map(Meant::wire))
        .await
        .expect("the rules are taken");
    let mut outbox = Outbox::new();
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    let mut rows = Rows::new();
    let mut history = Vec::new();
    let mut counts = BTreeMap::new();
    for step in 0..STEPS {
        if random.random_bool(0.1) {
            hour(&sql).await;
            history.push("an hour passes".to_owned());
            for state in rules.iter_mut().flat_map(|rule| rule.cools.values_mut()) {
                state.0 = true;
            }
        }
        let (text, changes) = statement(&mut random, &rows);
        if random.random_bool(0.1) {
            history.push(format!("begin; {text}; rollback"));
            let undone = format!("begin; {text}; rollback");
            sql.batch_execute(&undone).await.expect("it is rolled back");
            assert_eq!(
                outbox.lines(&sql).await,
                [""; 0],
                "seed {seed}: {history:#?}"
            );
            continue;
        }
        history.push(text.clone());
        sql.batch_execute(&text).await.expect("it is written");
        let mut expected = Vec::new();
        for (key, new) in changes {
            let old = rows.get(&key).copied();
            for rule in &mut rules {
                rule.tell(key, old, new, &mut expected);
            }
            match new {
                Some(row) => rows.insert(key, row),
                None => rows.remove(&key),
            };
        }
        let mut told = outbox.lines(&sql).await;
        for line in &told {
            let rule = line.split(' ').next().unwrap_or_default().to_owned();
            *counts.entry(rule).or_insert(0) += 1;
        }
        told.sort();
        expected.sort();
        let last = &history[history.len().saturating_sub(30)..];
        assert_eq!(told, expected, "step {step} of seed {seed}: {last:#?}");
    }
    for rule in [
        "plain",
        "-ends",
        "rare",
        "rare_ends",
        "-rare_ends",
        "-not_low",
        "rare_level",
        "rare_rise",
        "alike_01",
        "-alike_13",
        "alike_26",
        "-alike_37",
        "alike_45",
    ] {
        assert!(
            counts.get(rule).is_some_and(|count| *count > 10),
            "seed {seed}: {rule}: {counts:?}"
        );
    }
}
