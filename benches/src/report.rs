//! What was measured in one run, and what is told of it: a table, JSON, plots.
//!
//! A ratio is the median of the ratios of single rounds, so that a machine that gets slower half
//! way does not show in it. Beside stand the medians of the absolute figures.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    case::{Case, Measure, Ratio},
    limit::Choice,
    procs::Memory,
};

mod json;
mod maths;
mod plots;
mod table;
#[cfg(test)]
mod tests;

/// A measurement of a sweep: what was varied, and what came of it.
pub type Point = (f64, Measure);

/// Latency from commit to subscriber.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlertLatency {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// All of one run.
pub struct Report {
    /// Versions, cores, settings: a JSON object.
    pub about: Value,
    /// By case, one of each round.
    measures: BTreeMap<Case, Vec<Measure>>,
    /// How the limit was measured.
    pub limit: Choice,
    pub limit_sweep: Vec<(Choice, Measure)>,
    /// By rows of a message.
    pub batch_sweep: Vec<Point>,
    /// By percent of the top rate.
    pub load_sweep: Vec<Point>,
    /// Of the router, at the end.
    pub memory: Option<Memory>,
    /// At a fifth of the top load.
    pub alert: Option<AlertLatency>,
    /// At the top load.
    pub alert_top: Option<AlertLatency>,
    /// For people: what was left out, and why.
    pub notes: Vec<String>,
}

impl Report {
    pub fn new(about: Value, limit: Choice) -> Self {
        Self {
            about,
            measures: BTreeMap::new(),
            limit,
            limit_sweep: Vec::new(),
            batch_sweep: Vec::new(),
            load_sweep: Vec::new(),
            memory: None,
            alert: None,
            alert_top: None,
            notes: Vec::new(),
        }
    }

    /// Adds the case's measurement of the next round.
    pub fn add(&mut self, case: Case, measure: Measure) {
        self.measures.entry(case).or_default().push(measure);
    }

    /// Of the latest round.
    pub fn last(&self, case: Case) -> Option<&Measure> {
        self.all(case).last()
    }

    /// One of each round.
    fn all(&self, case: Case) -> &[Measure] {
        self.measures.get(&case).map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds, where it was measured.
    pub fn median(&self, case: Case, of: impl Fn(&Measure) -> Option<f64>) -> Option<f64> {
        maths::median(self.all(case).iter().filter_map(of))
    }

    /// What a unary row takes by a direct commit and a call that writes nothing together, round by
    /// round.
    fn unary_to_its_parts(&self) -> Vec<f64> {
        let list = |case| -> Vec<f64> { self.all(case).iter().map(|one| one.p50_ms).collect() };
        let parts: Vec<f64> = (list(Case::Direct).iter().zip(list(Case::Call)))
            .map(|(direct, call)| direct + call)
            .collect();
        maths::ratios(&list(Case::Unary), &parts)
    }

    /// Round by round.
    fn ratios(&self, ratio: &Ratio) -> Vec<f64> {
        let list = |case| -> Vec<f64> {
            let all = self.all(case).iter();
            all.map(|measure| ratio.quantity.of(measure)).collect()
        };
        maths::ratios(&list(ratio.of), &list(ratio.to))
    }
}
