//! Medians and ratios.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

/// One measurement.
#[derive(Clone, Debug)]
pub struct Measure {
    pub rows_per_second: f64,
    /// Of pgbraid the median, of pgbench the mean.
    pub p50_ms: f64,
    pub p99_ms: Option<f64>,
    /// CPU of the router's process by rows written.
    pub cpu_ns_per_row: Option<f64>,
}

pub struct Report {
    header: Value,
    order: Vec<&'static str>,
    measures: BTreeMap<&'static str, Vec<Measure>>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Report {
    pub fn new(postgres: &str, tables: u32, seconds: u64, rounds: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self {
            header: json!({
                "pgbraid": env!("CARGO_PKG_VERSION"), "postgres": postgres, "tables": tables,
                "seconds": seconds, "rounds": rounds, "cores": cores,
            }),
            order: Vec::new(),
            measures: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, name: &'static str, measure: Measure) {
        if !self.order.contains(&name) {
            self.order.push(name);
        }
        self.measures.entry(name).or_default().push(measure);
    }

    fn rows(&self, name: &str) -> f64 {
        median(self.all(name).map(|one| one.rows_per_second).collect())
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Measure> {
        self.measures.get(name).into_iter().flatten()
    }

    /// What a line is compared with.
    fn base(name: &str) -> Option<&'static str> {
        match name {
            "pgbraid, one row a message, 32 streams" => Some("single.sql, 32 clients"),
            _ if name.contains("columnar") || name.contains("row form") => {
                Some("batch.sql, 8 clients")
            }
            _ => None,
        }
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "PostgreSQL {}, {} cores shared by PostgreSQL, router and load; medians of {} rounds of {} s\n\n",
            self.header["postgres"].as_str().unwrap_or("?"),
            self.header["cores"],
            self.header["rounds"],
            self.header["seconds"],
        );
        let _ = writeln!(
            text,
            "{:<39} {:>9} {:>6} {:>7} {:>7} {:>6}",
            "", "rows/s", "ratio", "p50 ms", "p99 ms", "ns/row"
        );
        for name in &self.order {
            let rows = self.rows(name);
            let ratio = Self::base(name)
                .map(|base| format!("{:.2}", rows / self.rows(base)))
                .unwrap_or_default();
            let optional = |values: Vec<f64>, digits: usize| match values.is_empty() {
                true => String::new(),
                false => format!("{:.digits$}", median(values)),
            };
            let _ = writeln!(
                text,
                "{name:<39} {rows:>9.0} {ratio:>6} {:>7} {:>7} {:>6}",
                optional(self.all(name).map(|one| one.p50_ms).collect(), 2),
                optional(self.all(name).filter_map(|one| one.p99_ms).collect(), 2),
                optional(
                    self.all(name)
                        .filter_map(|one| one.cpu_ns_per_row)
                        .collect(),
                    0
                ),
            );
        }
        text.push_str(
            "\nratio: to batch.sql for batches, to single.sql for single rows. p50 of pgbench is its\nmean. ns/row: CPU of the router's process. batch.sql makes its rows inside the server.\n",
        );
        text
    }

    pub fn json(&self) -> Value {
        let ratio = |name: &str| Self::base(name).map(|base| self.rows(name) / self.rows(base));
        let cpu = |name: &str| {
            median(
                self.all(name)
                    .filter_map(|one| one.cpu_ns_per_row)
                    .collect(),
            )
        };
        let measures: serde_json::Map<String, Value> = self
            .order
            .iter()
            .map(|name| {
                let list = self.all(name).map(|one| {
                    json!({"rows_per_second": one.rows_per_second, "p50_ms": one.p50_ms,
                           "p99_ms": one.p99_ms, "cpu_ns_per_row": one.cpu_ns_per_row})
                });
                ((*name).to_owned(), Value::Array(list.collect()))
            })
            .collect();
        json!({
            "about": self.header,
            "ratio": {
                "columnar_vs_batch_sql": ratio("pgbraid, columnar, runs of keys"),
                "columnar_random_vs_batch_sql": ratio("pgbraid, columnar, random keys"),
                "single_vs_single_sql": ratio("pgbraid, one row a message, 32 streams"),
            },
            "cpu_ns_per_row": {
                "columnar": cpu("pgbraid, columnar, random keys"),
                "rows": cpu("pgbraid, row form, random keys"),
                "single": cpu("pgbraid, one row a message, 32 streams"),
            },
            "measures": measures,
        })
    }
}
