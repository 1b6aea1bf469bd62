//! Four instances become six and then three by edits of the map, while eight producers write
//! through two routers.
//!
//! In an open loop at a quarter of the top rate, as a fleet runs that has room to spare; at half of
//! it, where batches are so much smaller that the processors are nearly busy; and in a closed loop as
//! fast as acks allow: there whatever moves waits in the same queues as the rows.

mod pauses;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{
    Plan,
    fixture::{Fleet, QUICK_SUBSCRIPTIONS, Router, Tables},
    in_turns,
    latencies::Latencies,
    load::{Load, Loaded, Running},
    outcome::{Outcome, Target},
    say,
};
use pauses::{Prober, pause_at};

const INSTANCES: u16 = 6;
const ROUTERS: usize = 2;
const PRODUCERS: u32 = 8;
const TABLES: u32 = 32;

/// Longer than any rebalance here.
const LONG: Duration = Duration::from_secs(3600);

/// How much is written meanwhile.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// An open loop at a quarter of the top rate
    Quarter,
    /// An open loop at half of the top rate
    Half,
    /// A closed loop
    Full,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Quarter => "quarter",
            Self::Half => "half",
            Self::Full => "full",
        }
    }

    /// Part of the top rate, if it is an open loop.
    fn part(self) -> Option<f64> {
        match self {
            Self::Quarter => Some(0.25),
            Self::Half => Some(0.5),
            Self::Full => None,
        }
    }

    fn key(self, name: &str) -> String {
        format!("{}.{name}", self.name())
    }

    fn label(self, what: &str) -> String {
        format!("{} load: {what}", self.name())
    }
}

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let settings = format!("writers = {}\n", plan.writers);
    let fleet = Fleet::with(
        INSTANCES,
        &settings,
        Tables::On(TABLES, 4),
        &QUICK_SUBSCRIPTIONS,
    )
    .await?;
    fleet.add_moves_settings(&format!("per_instance = {}\n", plan.per_instance))?;
    let mut routers = Vec::new();
    for _ in 0..ROUTERS {
        routers.push(fleet.serve(&[]).await?);
    }
    fleet.store(&routers[0], plan.stored).await?;
    let mut outcome = Outcome::new("moves", fleet.setting(plan));
    let cases = [Case::Quarter, Case::Half, Case::Full];
    let cases: Vec<Case> = (cases.into_iter())
        .filter(|case| plan.only.is_none_or(|only| only == *case))
        .collect();
    let mut rebalanced = false;
    for round in 1..=plan.rounds {
        back(&fleet, &mut rebalanced).await?;
        let top = quiet(&fleet, &routers, &load(plan, None), plan.time).await?;
        say(format_args!(
            "moves, round {round}: {:.0} rows/s at the most",
            top.rows_per_second
        ));
        for case in in_turns(&cases, round) {
            back(&fleet, &mut rebalanced).await?;
            let rate = case.part().map(|part| (top.rows_per_second * part) as u64);
            let before = match rate {
                Some(_) => quiet(&fleet, &routers, &load(plan, rate), plan.time).await?,
                None => top,
            };
            let moved = rebalance(&fleet, &routers, &load(plan, rate)).await?;
            rebalanced = true;
            note(&mut outcome, case, before, &moved)?;
            say(format_args!(
                "moves, round {round}, {} moves in {:.0} s: writers waited {:.0} ms in the \
                 median, {:.0} at the most",
                moved.by_mover.count(),
                moved.took.as_secs_f64(),
                moved.by_writers.quantile_ms(0.5),
                moved.by_writers.max_ms()
            ));
        }
    }
    for case in cases {
        outcome.ratio(
            &case.key("ack_p99_ratio"),
            &case.label("ack p99, moving to quiet"),
            &case.key("ack_p99_ms.moving"),
            &case.key("ack_p99_ms.quiet"),
        )?;
        outcome.ratio(
            &case.key("rows_ratio"),
            &case.label("rows/s, moving to quiet"),
            &case.key("rows_per_second.moving"),
            &case.key("rows_per_second.quiet"),
        )?;
        for by in ["writers", "mover"] {
            let key = |name: &str| case.key(&format!("pause_ms.{by}.{name}"));
            outcome.target(&key("p50"), Target::AtMost(50.0));
            outcome.target(&key("p99"), Target::AtMost(250.0));
        }
        outcome.target(&case.key("ack_p99_ratio"), Target::AtMost(5.0));
    }
    outcome.note("4 to 6 to 3 instances, 32 tables, 8 producers over 2 routers. Quarter and half:");
    outcome
        .note("open loops at parts of the top rate; full: a closed loop. In a closed loop writers");
    outcome.note("wait as long for every row: what a cut-over adds is what the mover measures.");
    Ok(outcome)
}

/// To where it began.
async fn back(fleet: &Fleet, rebalanced: &mut bool) -> Result<()> {
    if std::mem::take(rebalanced) {
        move_to(fleet, 4).await?;
    }
    Ok(())
}

/// A producer's share is the same at each router.
fn load(plan: &Plan, rate: Option<u64>) -> Load {
    Load {
        producers: PRODUCERS / ROUTERS as u32,
        rate: rate.map(|rate| (rate / ROUTERS as u64).max(1)),
        in_flight: if rate.is_some() { 256 } else { 16 },
        ..Load::random(plan.stored)
    }
}

/// What both routers' producers found together. The p50 and p99 are those of the slower half.
fn together(loaded: &[Loaded]) -> Loaded {
    let sum = |of: fn(&Loaded) -> f64| loaded.iter().map(of).sum();
    let max = |of: fn(&Loaded) -> f64| loaded.iter().map(of).fold(0.0, f64::max);
    Loaded {
        rows: sum(|one| one.rows),
        rows_per_second: sum(|one| one.rows_per_second),
        ack_p50_ms: max(|one| one.ack_p50_ms),
        ack_p99_ms: max(|one| one.ack_p99_ms),
    }
}

fn start(routers: &[Router], load: &Load, time: Duration) -> Result<Vec<Running>> {
    (routers.iter())
        .map(|router| load.start(&router.grpc, time))
        .collect()
}

async fn quiet(fleet: &Fleet, routers: &[Router], load: &Load, time: Duration) -> Result<Loaded> {
    fleet.checkpoint().await?;
    let mut loaded = Vec::new();
    for running in start(routers, load, time)? {
        loaded.push(running.finish().await?);
    }
    Ok(together(&loaded))
}

/// What a rebalance under load came to.
struct Moved {
    during: Loaded,
    by_writers: Latencies,
    by_mover: Latencies,
    /// Of probes that were in flight at no cut-over.
    probes: Latencies,
    took: Duration,
}

async fn rebalance(fleet: &Fleet, routers: &[Router], load: &Load) -> Result<Moved> {
    fleet.checkpoint().await?;
    let started = Instant::now();
    let running = start(routers, load, LONG)?;
    let prober = Prober::start(fleet, routers, TABLES).await?;
    let mut moves = Vec::new();
    for instances in [6, 3] {
        moves.extend(move_to(fleet, instances).await?);
    }
    let took = started.elapsed();
    let mut loaded = Vec::new();
    for running in running {
        loaded.push(running.stop().await?);
    }
    let all = prober.finish().await?;
    let mut moved = Moved {
        during: together(&loaded),
        by_writers: Latencies::new()?,
        by_mover: Latencies::new()?,
        probes: Latencies::new()?,
        took,
    };
    for probe in &all {
        moved.probes.record(probe.latency());
    }
    for one in &moves {
        moved.by_mover.record(one.pause);
        // A table that was on its way for a moment only was not probed.
        if let Some(seen) = pause_at(&all, one.table, one.owned_at) {
            moved.by_writers.record(seen);
        }
    }
    if moved.by_writers.count() * 2 < moved.by_mover.count() {
        bail!("writers were there at too few cut-overs to tell what they waited");
    }
    Ok(moved)
}

/// A move that has ended.
struct OneMove {
    table: u32,
    /// As the mover measured it.
    pause: Duration,
    /// µs since 1970, by the new owner's clock.
    owned_at: u64,
}

/// Edits the map and applies it; the moves that this took.
async fn move_to(fleet: &Fleet, instances: usize) -> Result<Vec<OneMove>> {
    fleet.write_map(Tables::On(TABLES, instances))?;
    let home = fleet.cluster().connect(0, false, "pgbraid").await?;
    let begun = home
        .query_one("select clock_timestamp()::text", &[])
        .await?;
    let begun: String = begun.get(0);
    let started = Instant::now();
    fleet.long_command(&["map", "apply"]).await?;
    say(format_args!(
        "moves: on {instances} instances after {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    let ended = home
        .query(
            "select tbl, target, pause_us from pgbraid.move \
             where claimed_at >= $1::text::timestamptz and outcome = 'done'",
            &[&begun],
        )
        .await?;
    let mut moves = Vec::new();
    for (index, instance) in fleet.cluster().instances().iter().enumerate() {
        let client = fleet.cluster().connect(index, false, "pgbraid").await?;
        for row in ended
            .iter()
            .filter(|row| row.get::<_, &str>(1) == instance.name())
        {
            let table: i32 = row.get(0);
            let owned_at = client
                .query_one(
                    "select (extract(epoch from changed_at) * 1000000)::int8 \
                     from pgbraid.ownership where tbl = $1 and state = 'owned'",
                    &[&table],
                )
                .await?;
            moves.push(OneMove {
                table: table.cast_unsigned(),
                pause: Duration::from_micros(row.get::<_, i64>(2).cast_unsigned()),
                owned_at: owned_at.get::<_, i64>(0).cast_unsigned(),
            });
        }
        let confirm = ["map", "clean", "--older-than", "0", "--confirm"];
        let confirm = [&confirm[..], &[instance.name()]].concat();
        fleet.command(&confirm).await?;
    }
    if moves.is_empty() || moves.len() != ended.len() {
        bail!(
            "{} of {} moves are where they should be",
            moves.len(),
            ended.len()
        );
    }
    Ok(moves)
}

fn note(outcome: &mut Outcome, case: Case, before: Loaded, moved: &Moved) -> Result<()> {
    let mut add = |key: &str, label: &str, digits, value| {
        outcome.add(case.key(key), &case.label(label), digits, value);
    };
    add("moves", "tables moved", 0, moved.by_mover.count() as f64);
    add("seconds", "seconds for all", 1, moved.took.as_secs_f64());
    for (key, label, pauses) in [
        ("writers", "pause, by writers", &moved.by_writers),
        ("mover", "pause, by the mover", &moved.by_mover),
    ] {
        let key = |name| format!("pause_ms.{key}.{name}");
        add(
            &key("p50"),
            &format!("{label}, p50 ms"),
            1,
            pauses.quantile_ms(0.5),
        );
        add(
            &key("p99"),
            &format!("{label}, p99 ms"),
            1,
            pauses.quantile_ms(0.99),
        );
    }
    add(
        "probe_p50_ms",
        "those writers at any time, p50 ms",
        1,
        moved.probes.quantile_ms(0.5),
    );
    for (key, label, loaded) in [
        ("quiet", "quiet", before),
        ("moving", "moving", moved.during),
    ] {
        let of = |name: &str| format!("{name}.{key}");
        add(
            &of("rows_per_second"),
            &format!("rows/s, {label}"),
            0,
            loaded.rows_per_second,
        );
        add(
            &of("ack_p50_ms"),
            &format!("ack p50 ms, {label}"),
            1,
            loaded.ack_p50_ms,
        );
        add(
            &of("ack_p99_ms"),
            &format!("ack p99 ms, {label}"),
            1,
            loaded.ack_p99_ms,
        );
    }
    Ok(())
}
