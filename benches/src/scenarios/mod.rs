//! `pgbraid-bench scenario NAME`: one question each about speed, beside the main comparison.
//!
//! Each starts a cluster of its own, takes its measurements in turns, and prints medians over the
//! rounds with the targets beside them. Ratios are taken within a round.

pub mod alerts;
mod copy;
mod fixture;
mod groups;
mod instances;
mod latencies;
mod listener;
pub mod load;
mod memory;
mod moves;
mod outcome;
mod parts;
mod probe;
mod rules;
mod subscribers;
mod workers;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use outcome::Outcome;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The question
    #[arg(value_enum)]
    name: Name,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Times that all measurements are taken, in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Rows that are stored before measurements of throughput; keys are drawn from these
    #[arg(long, default_value_t = 2_000_000,
          value_parser = clap::value_parser!(u64).range(1000..))]
    stored: u64,
    /// Of `moves`: at this load only
    #[arg(long, value_enum, value_name = "LOAD")]
    only: Option<moves::Case>,
    /// Of `moves`: connections of each router to each instance. Two routers and up to six
    /// instances share the processors here: more would not write faster, only stand in line
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    writers: u32,
    /// Of `moves`: how many tables move at a time from or to an instance (moves.per_instance)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    per_instance: u32,
    /// One JSON object on standard output instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// From a row's commit to its alert at a subscriber, under load
    Alerts,
    /// What a thousand subscribers cost, and what a slow one changes
    Subscribers,
    /// A subscriber and a group of four on a backlog, beside a skip locked queue
    Groups,
    /// Claims and reads on outboxes in 2, 20 and 200 parts
    Parts,
    /// Throughput with 0, 1, 10 and 100 rules, and with 100 of many forms
    Rules,
    /// Throughput of the same tables on 1, 2, 4 and 8 instances
    Instances,
    /// Throughput and CPU with 1 and 2 worker threads
    Workers,
    /// Memory of the router at the limits of its queues, and afterwards
    Memory,
    /// Tables moved from 4 instances to 6 and to 3 under load: pauses, acks, throughput
    Moves,
    /// The copy of a table that moves, beside a subscription made by hand
    Copy,
    /// One after the other
    All,
}

impl Name {
    /// It, or all of them.
    fn each(self) -> Vec<Self> {
        match self {
            Self::All => Self::value_variants()
                .iter()
                .copied()
                .filter(|name| *name != Self::All)
                .collect(),
            one => vec![one],
        }
    }

    async fn run(self, plan: &Plan) -> Result<Outcome> {
        match self {
            Self::Alerts => alerts::run(plan).await,
            Self::Subscribers => subscribers::run(plan).await,
            Self::Groups => groups::run(plan).await,
            Self::Parts => parts::run(plan).await,
            Self::Rules => rules::run(plan).await,
            Self::Instances => instances::run(plan).await,
            Self::Workers => workers::run(plan).await,
            Self::Memory => memory::run(plan).await,
            Self::Moves => moves::run(plan).await,
            Self::Copy => copy::run(plan).await,
            Self::All => anyhow::bail!("all is not one scenario"),
        }
    }
}

/// How long, how often, on how much.
struct Plan {
    time: Duration,
    rounds: u32,
    stored: u64,
    only: Option<moves::Case>,
    writers: u32,
    per_instance: u32,
}

/// Runs what was asked for and prints it.
pub async fn run(arguments: Arguments) -> Result<()> {
    let plan = Plan {
        time: Duration::from_secs(arguments.seconds),
        rounds: arguments.rounds,
        stored: arguments.stored,
        only: arguments.only,
        writers: arguments.writers,
        per_instance: arguments.per_instance,
    };
    let mut all = Vec::new();
    for name in arguments.name.each() {
        let outcome = name.run(&plan).await?;
        if !arguments.json {
            print!("{}", outcome.table());
        }
        all.push(outcome.json());
    }
    if arguments.json {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let object = json!({
            "pgbraid": env!("CARGO_PKG_VERSION"), "cores": cores, "seconds": arguments.seconds,
            "rounds": arguments.rounds, "stored": arguments.stored, "scenarios": all,
        });
        println!("{object}");
    }
    Ok(())
}

/// The cases of a round, counted from 1: back and forth, so that a machine that becomes faster or
/// slower meanwhile favours no side.
fn in_turns<T: Clone>(cases: &[T], round: u32) -> Vec<T> {
    let mut cases = cases.to_vec();
    if round.is_multiple_of(2) {
        cases.reverse();
    }
    cases
}

/// Progress, on standard error.
fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_round_goes_back() {
        assert_eq!(in_turns(&[1, 2, 3], 1), [1, 2, 3]);
        assert_eq!(in_turns(&[1, 2, 3], 2), [3, 2, 1]);
        assert_eq!(in_turns(&[1, 2, 3], 3), [1, 2, 3]);
    }

    #[test]
    fn all_is_each_of_the_others() {
        let all = Name::All.each();
        assert_eq!(all.len(), Name::value_variants().len() - 1);
        assert!(!all.contains(&Name::All));
        assert_eq!(Name::Rules.each(), [Name::Rules]);
    }
}
