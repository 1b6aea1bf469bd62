//! What a scenario found: figures over the rounds, their medians, and whether they meet their target.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn sign_and_limit(self) -> (&'static str, f64) {
        match self {
            Self::AtMost(limit) => ("<=", limit),
            Self::AtLeast(limit) => (">=", limit),
        }
    }
}

struct Line {
    key: String,
    label: String,
    digits: usize,
    target: Option<Target>,
    /// One a round.
    values: Vec<f64>,
}

/// The figures of a scenario, in the order in which they were first taken.
pub struct Outcome {
    name: &'static str,
    setting: String,
    lines: Vec<Line>,
    notes: Vec<&'static str>,
}

impl Outcome {
    /// The setting is what a reader must know about the run.
    pub fn new(name: &'static str, setting: String) -> Self {
        Self {
            name,
            setting,
            lines: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a round's figure.
    pub fn add(&mut self, key: impl Into<String>, label: &str, digits: usize, value: f64) {
        let key = key.into();
        match self.lines.iter_mut().find(|line| line.key == key) {
            Some(line) => line.values.push(value),
            None => self.lines.push(Line {
                key,
                label: label.to_owned(),
                digits,
                target: None,
                values: vec![value],
            }),
        }
    }

    /// Sets the target of a figure that was added.
    pub fn target(&mut self, key: &str, target: Target) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.key == key) {
            line.target = Some(target);
        }
    }

    /// A line of text below the table, of at most 80 characters.
    pub fn note(&mut self, note: &'static str) {
        self.notes.push(note);
    }

    /// Adds the ratio of two figures, each round's to that of the same round: a machine that becomes
    /// faster or slower between rounds does not change it.
    pub fn ratio(&mut self, key: &str, label: &str, of: &str, to: &str) -> Result<()> {
        let values = |key: &str| {
            let line = self.lines.iter().find(|line| line.key == key);
            let line = line.with_context(|| format!("{key} was not measured"))?;
            anyhow::Ok(line.values.as_slice())
        };
        let (of, to) = (values(of)?, values(to)?);
        ensure!(of.len() == to.len(), "{key}: not both in each round");
        let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
        for ratio in ratios {
            self.add(key, label, 3, ratio);
        }
        Ok(())
    }

    /// For people.
    pub fn table(&self) -> String {
        // Writing to a String cannot fail.
        let mut text = format!("{}: {}\n\n", self.name, self.setting);
        for line in &self.lines {
            let value = median(&line.values);
            let _ = write!(text, "{:<48} {value:>12.*}", line.label, line.digits);
            if let Some(target) = line.target {
                let (sign, limit) = target.sign_and_limit();
                let met = if target.met(value) { "met" } else { "missed" };
                let _ = write!(text, "  {sign} {limit:<6} {met}");
            }
            text.push('\n');
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text.push('\n');
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let figures = self.lines.iter().map(|line| {
            let value = median(&line.values);
            let mut figure = json!({"median": value, "rounds": line.values});
            if let Some(target) = line.target {
                let (sign, limit) = target.sign_and_limit();
                figure["target"] = json!({"sign": sign, "limit": limit, "met": target.met(value)});
            }
            (line.key.clone(), figure)
        });
        json!({
            "name": self.name, "setting": self.setting,
            "figures": Value::Object(figures.collect::<Map<_, _>>()),
        })
    }
}

/// The middle one, or the mean of the middle two; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_target_is_met_at_its_limit() {
        assert!(Target::AtMost(2.0).met(2.0) && !Target::AtMost(2.0).met(2.1));
        assert!(Target::AtLeast(0.85).met(0.85) && !Target::AtLeast(0.85).met(0.84));
        assert!(!Target::AtMost(2.0).met(f64::NAN));
    }

    #[test]
    fn lines_fit_a_terminal_and_json_says_no_less() {
        let mut outcome = Outcome::new("alerts", "3 rounds of 10 s".into());
        for value in [1.0, 9.0, 2.5] {
            outcome.add("p50_ms", "commit to subscriber, p50, ms", 2, value);
        }
        outcome.target("p50_ms", Target::AtMost(2.0));
        outcome.note("A note.");
        let text = outcome.table();
        assert!(text.contains("2.50  <= 2      missed\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let json = outcome.json();
        assert_eq!(json["figures"]["p50_ms"]["median"], 2.5);
        assert_eq!(json["figures"]["p50_ms"]["target"]["met"], false);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut outcome = Outcome::new("rules", "3 rounds of 10 s".into());
        // The machine is half as fast in the second round.
        for (none, all) in [(100.0, 90.0), (50.0, 45.0), (110.0, 99.0)] {
            outcome.add("none", "no rule", 0, none);
            outcome.add("all", "all rules", 0, all);
        }
        outcome
            .ratio("ratio", "all to none", "all", "none")
            .unwrap();
        let ratio = &outcome.json()["figures"]["ratio"];
        assert!((ratio["median"].as_f64().unwrap() - 0.9).abs() < 1e-9);
        assert_eq!(ratio["rounds"].as_array().map(Vec::len), Some(3));
        outcome.add("all", "all rules", 0, 1.0);
        assert!(outcome.ratio("ratio", "", "all", "none").is_err());
        assert!(outcome.ratio("ratio", "", "all", "nothing").is_err());
    }
}
