//! The same tables and rows on more instances of one machine: what splitting costs.
//!
//! Each instance brings connections of its own, and more connections get more of a shared machine.
//! So one instance is measured twice: with the usual writers, and with as many as all the others
//! have together.

use anyhow::{Context, Result};

use super::{
    Plan,
    fixture::Fleet,
    in_turns,
    load::Load,
    outcome::{Outcome, Target},
    say,
};

/// Instances, and writers for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    instances: u16,
    writers: u16,
}

const CASES: [Case; 5] = [
    Case::new(1, 2),
    Case::new(1, 16),
    Case::new(2, 2),
    Case::new(4, 2),
    Case::new(8, 2),
];

impl Case {
    const fn new(instances: u16, writers: u16) -> Self {
        Self { instances, writers }
    }

    fn key(self, name: &str) -> String {
        format!("{name}.{}x{}", self.instances, self.writers)
    }

    fn label(self) -> String {
        format!("{} instances x {} writers", self.instances, self.writers)
    }
}

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let load = Load::random(plan.stored);
    let mut outcome = None;
    for round in 1..=plan.rounds {
        // One fleet at a time: those that wait would checkpoint and vacuum meanwhile.
        for case in in_turns(&CASES, round) {
            let settings = format!("writers = {}\n", case.writers);
            let fleet = Fleet::start(case.instances, &settings).await?;
            let router = fleet.serve(&[]).await?;
            fleet.store(&router, plan.stored).await?;
            let outcome =
                outcome.get_or_insert_with(|| Outcome::new("instances", fleet.setting(plan)));
            let (rows, cpu_ns) = router.measure(&load, plan.time).await?;
            let label = case.label();
            say(format_args!(
                "instances, round {round}, {label}: {rows:.0} rows/s, {cpu_ns:.0} ns/row"
            ));
            let key = case.key("rows_per_second");
            outcome.add(key, &format!("{label}: rows/s"), 0, rows);
            let key = case.key("cpu_ns_per_row");
            outcome.add(key, &format!("{label}: router CPU, ns/row"), 0, cpu_ns);
            router.stop().await?;
        }
    }
    let mut outcome = outcome.context("there is no round")?;
    let [usual, many, .., most] = CASES;
    for (name, base) in [("usual", usual), ("same_writers", many)] {
        let label = format!("8 instances to 1 x {} writers", base.writers);
        let (of, to) = (most.key("rows_per_second"), base.key("rows_per_second"));
        outcome.ratio(&format!("ratio.{name}"), &label, &of, &to)?;
    }
    // Only these differ in nothing but the instances.
    outcome.target("ratio.same_writers", Target::AtLeast(0.85));
    outcome.note("64 tables, evenly over the instances, which share 1 GB of shared_buffers.");
    outcome.note("More connections to one instance than 2 may");
    outcome.note("alone be faster, and get more of a machine that others use as well.");
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instance_has_as_many_writers_as_the_most() {
        let [_, many, .., most] = CASES;
        assert_eq!(many.instances * many.writers, most.instances * most.writers);
    }
}
