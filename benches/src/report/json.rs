//! The report for programs.

use serde_json::{Map, Value, json};

use super::{AlertLatency, Point, Report, maths};
use crate::{
    case::{Case, Measure, RATIOS, Ratio},
    limit::Choice,
};

impl Report {
    /// One object. What was not measured is null.
    pub fn json(&self) -> Value {
        let cpu = |case| self.median(case, |one| one.cpu_ns_per_row);
        let half = self.median(Case::SingleHalf, |one| one.p99_ms);
        json!({
            "about": self.about,
            "ratio": self.ratio_medians(),
            "ratio_rounds": self.ratio_rounds(),
            "cpu_ns_per_row": {
                "columnar": cpu(Case::ColumnarRandom),
                "columnar_runs": cpu(Case::ColumnarRuns),
                "rows": cpu(Case::Rows),
                "single": cpu(Case::Single),
            },
            "single_half_load_p99_ms": half,
            "alert_ms": alert_ms(self.alert),
            "alert_top_ms": alert_ms(self.alert_top),
            "rss_mib": self.memory.map(|memory| memory.peak_mib),
            "rss_end_mib": self.memory.map(|memory| memory.now_mib),
            "limit": {
                "statement": self.limit.form.name(), "rows": self.limit.rows,
                "connections": self.limit.connections, "sweep": self.limit_sweep(),
            },
            "sweep": {
                "batch_rows": points(&self.batch_sweep, "batch_rows"),
                "load": points(&self.load_sweep, "percent_of_top"),
            },
            "measures": self.measures(),
            "notes": self.notes,
        })
    }

    fn ratio_medians(&self) -> Map<String, Value> {
        let mut medians = Map::new();
        for ratio in &RATIOS {
            medians.insert(ratio.id.into(), json!(maths::median(self.ratios(ratio))));
        }
        // The limit is measured with random keys, so this is the only ratio to it that there is.
        let to_limit = medians["columnar_random_vs_limit"].clone();
        medians.insert("columnar_vs_limit".into(), to_limit);
        let parts = maths::median(self.unary_to_its_parts());
        medians.insert("unary_p50_vs_direct_and_call".into(), json!(parts));
        medians
    }

    fn ratio_rounds(&self) -> Map<String, Value> {
        let one = |ratio: &Ratio| (ratio.id.to_owned(), json!(self.ratios(ratio)));
        RATIOS.iter().map(one).collect()
    }

    fn limit_sweep(&self) -> Vec<Value> {
        let one = |(choice, measure): &(Choice, Measure)| {
            let mut value = of(measure);
            value.insert("statement".into(), json!(choice.form.name()));
            value.insert("batch_rows".into(), json!(choice.rows));
            value.insert("connections".into(), json!(choice.connections));
            Value::Object(value)
        };
        self.limit_sweep.iter().map(one).collect()
    }

    fn measures(&self) -> Map<String, Value> {
        let one = |(case, list): (&Case, &Vec<Measure>)| {
            let list = list.iter().map(|measure| Value::Object(of(measure)));
            (case.id().to_owned(), list.collect())
        };
        self.measures.iter().map(one).collect()
    }
}

fn alert_ms(alert: Option<AlertLatency>) -> Value {
    json!({"p50": alert.map(|alert| alert.p50_ms), "p99": alert.map(|alert| alert.p99_ms)})
}

fn points(points: &[Point], varied: &str) -> Vec<Value> {
    let one = |(x, measure): &Point| {
        let mut value = of(measure);
        value.insert(varied.into(), json!(x));
        Value::Object(value)
    };
    points.iter().map(one).collect()
}

fn of(measure: &Measure) -> Map<String, Value> {
    let fields = [
        ("rows", Some(measure.rows)),
        ("rows_per_second", Some(measure.rows_per_second)),
        ("p50_ms", Some(measure.p50_ms)),
        ("p99_ms", measure.p99_ms),
        ("router_cpu_ns_per_row", measure.cpu_ns_per_row),
        ("load_cpu_ns_per_row", measure.load_ns_per_row),
        ("postgres_cpu_ns_per_row", measure.postgres_ns_per_row),
    ];
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect()
}
