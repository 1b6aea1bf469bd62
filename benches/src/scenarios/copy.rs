//! How fast the copy of a table that moves is, beside PostgreSQL's own initial copy: a publication
//! and a subscription made by hand, of the same table between the same servers.
//!
//! Both are seen by the same eyes: from when the target has the subscription until the table is
//! ready. The whole `map apply` stands beside it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_postgres::Client;

use super::{
    Plan,
    fixture::{FEED, Fleet, QUICK_SUBSCRIPTIONS, Router, Tables},
    in_turns,
    load::Load,
    outcome::{Outcome, Target},
    say,
};

/// Large ones: what a copy costs by its rows is to be seen.
const TABLES: u32 = 4;
const MOVED: u32 = 0;
const POLL: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(300);
const BY_HAND: &str = "by_hand";

/// A steady load that leaves room: how long the copy takes is not to be the load's tide.
const ROWS_PER_SECOND: u64 = 40_000;

/// As `pgbraid` makes the partition.
const TABLE: &str = "create table public.feed_0 (id int8 primary key, c1 int, c2 int, c3 int, \
     c4 int, c5 int, c6 int, c7 int, c8 int, c9 int, c10 int, c11 int, c12 int) \
     with (fillfactor = 85)";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    ByHand,
    Move,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::ByHand => BY_HAND,
            Self::Move => "move",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::ByHand => "by hand",
            Self::Move => "pgbraid",
        }
    }
}

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let fleet = Fleet::with(2, "", Tables::Pinned(TABLES), &QUICK_SUBSCRIPTIONS).await?;
    let router = fleet.serve(&[]).await?;
    // A million rows in the table that moves, by default.
    let stored = plan.stored * 2;
    fleet.store(&router, stored).await?;
    let mut outcome = Outcome::new("copy", fleet.setting(plan));
    let mut owner = 0;
    for (name, loaded) in [("quiet", false), ("load", true)] {
        for round in 1..=plan.rounds {
            for case in in_turns(&[Case::ByHand, Case::Move], round) {
                let load = loaded.then(|| start_load(&router, stored)).transpose()?;
                let taken = take(&fleet, case, &mut owner).await?;
                if let Some(load) = load {
                    load.stop().await?;
                }
                let (label, key) = (case.label(), case.name());
                say(format_args!(
                    "copy, {name}, round {round}, {label}: {:.0} rows/s, {:.2} s in all",
                    taken.rows_per_second(),
                    taken.whole.as_secs_f64()
                ));
                outcome.add(
                    format!("rows_per_second.{name}.{key}"),
                    &format!("{label}, {name}: rows/s"),
                    0,
                    taken.rows_per_second(),
                );
                outcome.add(
                    format!("whole_seconds.{name}.{key}"),
                    &format!("{label}, {name}: seconds in all"),
                    2,
                    taken.whole.as_secs_f64(),
                );
            }
        }
        let of = |case: Case| format!("rows_per_second.{name}.{}", case.name());
        let ratio = format!("ratio.{name}");
        let label = format!("pgbraid to by hand, {name}");
        outcome.ratio(&ratio, &label, &of(Case::Move), &of(Case::ByHand))?;
        outcome.target(&ratio, Target::AtLeast(0.9));
    }
    outcome.note("From the subscription to the table's being ready. In all: the whole map apply;");
    outcome.note("by hand publication, subscription and copy, and no cut-over.");
    Ok(outcome)
}

fn start_load(router: &Router, stored: u64) -> Result<super::load::Running> {
    let load = Load {
        rate: Some(ROWS_PER_SECOND),
        ..Load::random(stored)
    };
    load.start(&router.grpc, Duration::from_secs(3600))
}

struct Taken {
    rows: f64,
    copy: Duration,
    whole: Duration,
}

impl Taken {
    fn rows_per_second(&self) -> f64 {
        self.rows / self.copy.as_secs_f64()
    }
}

/// One copy of the table from its owner to the other instance. A move changes the owner.
async fn take(fleet: &Fleet, case: Case, owner: &mut usize) -> Result<Taken> {
    let (source, target) = (*owner, 1 - *owner);
    fleet.checkpoint().await?;
    let at_source = fleet.cluster().connect(source, true, "pgbraid").await?;
    let rows = at_source
        .query_one(&format!("select count(*) from public.feed_{MOVED}"), &[])
        .await?
        .get::<_, i64>(0) as f64;
    let started = Instant::now();
    let (copy, whole) = match case {
        Case::Move => {
            pin(fleet, target)?;
            let at_target = fleet.cluster().connect(target, true, "pgbraid").await?;
            let apply = async {
                fleet.command(&["map", "apply"]).await?;
                Ok(started.elapsed())
            };
            let both = tokio::try_join!(watch(&at_target), apply)?;
            *owner = target;
            let name = fleet.cluster().instances()[source].name().to_owned();
            let clean = ["map", "clean", "--older-than", "0", "--confirm", &name];
            fleet.command(&clean).await?;
            both
        }
        Case::ByHand => by_hand(fleet, source, target, &at_source, started).await?,
    };
    Ok(Taken { rows, copy, whole })
}

async fn by_hand(
    fleet: &Fleet,
    source: usize,
    target: usize,
    at_source: &Client,
    started: Instant,
) -> Result<(Duration, Duration)> {
    let maintenance = fleet.cluster().connect(target, true, "postgres").await?;
    maintenance
        .batch_execute(&format!("create database {BY_HAND}"))
        .await?;
    let at_target = fleet.cluster().connect(target, true, BY_HAND).await?;
    let eyes = fleet.cluster().connect(target, true, BY_HAND).await?;
    at_target.batch_execute(TABLE).await?;
    at_source
        .batch_execute(&format!(
            "create publication {BY_HAND} for table only public.feed_{MOVED}"
        ))
        .await?;
    let port = fleet.cluster().instances()[source].port();
    let password = fleet.cluster().superuser_password();
    let subscribe = format!(
        "create subscription {BY_HAND} connection 'host=127.0.0.1 port={port} user=postgres \
         password={password} dbname=pgbraid' publication {BY_HAND}"
    );
    let (copy, ()) = tokio::try_join!(watch(&eyes), async {
        Ok(at_target.batch_execute(&subscribe).await?)
    })?;
    let whole = started.elapsed();
    at_target
        .batch_execute(&format!("drop subscription {BY_HAND}"))
        .await?;
    at_source
        .batch_execute(&format!("drop publication {BY_HAND}"))
        .await?;
    maintenance
        .batch_execute(&format!("drop database {BY_HAND} with (force)"))
        .await?;
    Ok((copy, whole))
}

/// From when the database has a subscription until its table is ready.
async fn watch(eyes: &Client) -> Result<Duration> {
    let look = eyes
        .prepare(
            "select coalesce((select srsubstate = 'r' from pg_subscription_rel \
             where srsubid = s.oid), false) from pg_subscription s \
             where subdbid = (select oid from pg_database where datname = current_database())",
        )
        .await?;
    let (started, mut seen) = (Instant::now(), None);
    while started.elapsed() < LIMIT {
        if let Some(row) = eyes.query_opt(&look, &[]).await? {
            let since = *seen.get_or_insert_with(Instant::now);
            if row.get(0) {
                return Ok(since.elapsed());
            }
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("the copy is not ready after {LIMIT:?}")
}

/// Pins the one table to an instance, and the others where they are.
fn pin(fleet: &Fleet, to: usize) -> Result<()> {
    use std::fmt::Write as _;

    let mut map = fleet.instances_text();
    write!(
        map,
        "[feeds.{FEED}]\ntables = {TABLES}\n[feeds.{FEED}.pins]\n"
    )?;
    for (index, instance) in fleet.cluster().instances().iter().enumerate() {
        let evenly = |table: u32| usize::from(table >= TABLES / 2);
        let owner = |table: u32| if table == MOVED { to } else { evenly(table) };
        let own: Vec<u32> = (0..TABLES).filter(|table| owner(*table) == index).collect();
        writeln!(map, "{} = {own:?}", instance.name())?;
    }
    fleet.write_map_text(&map).context("the map")
}
