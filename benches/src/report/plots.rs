//! The report in pictures.

use super::{Point, Report};
use crate::{
    case::{Case, Measure},
    limit::Form,
    plot::{Axis, Bar, LineChart, Series, StackedBars},
};

impl Report {
    /// Names of files, and their SVG text. A sweep that was not measured has no plot.
    pub fn plots(&self) -> Vec<(&'static str, String)> {
        let mut plots = vec![
            (
                "cpu_batches.svg",
                self.cpu(
                    "CPU a row, batches",
                    &[
                        Case::BatchSql,
                        Case::ColumnarRuns,
                        Case::Asyncpg,
                        Case::Limit,
                        Case::ColumnarRandom,
                        Case::Rows,
                    ],
                ),
            ),
            (
                "cpu_single.svg",
                self.cpu(
                    "CPU a row, single rows",
                    &[Case::SingleSql, Case::Single, Case::SingleHalf],
                ),
            ),
        ];
        if !self.batch_sweep.is_empty() {
            plots.push(("throughput.svg", self.throughput()));
        }
        if !self.load_sweep.is_empty() {
            plots.push(("latency.svg", self.latency()));
        }
        plots
    }

    fn cpu(&self, title: &str, cases: &[Case]) -> String {
        let bar = |case: &Case| {
            let part = |of: fn(&Measure) -> Option<f64>| self.median(*case, of).unwrap_or(0.0);
            let parts = vec![
                part(|one| one.postgres_ns_per_row),
                part(|one| one.cpu_ns_per_row),
                part(|one| one.load_ns_per_row),
            ];
            Bar {
                name: case.label().to_owned(),
                parts,
            }
        };
        let measured = cases.iter().filter(|case| !self.all(**case).is_empty());
        StackedBars {
            title: title.to_owned(),
            axis: "CPU, ns a row".to_owned(),
            parts: vec!["PostgreSQL", "router", "sender"],
            bars: measured.map(bar).collect(),
        }
        .svg()
    }

    fn throughput(&self) -> String {
        let limit = |form: Form, name: &str| {
            let fixed = self.limit_sweep.iter().filter(|(choice, _)| {
                // The first ones share a number of connections: only the batch differs.
                choice.form == form && choice.connections == self.limit_sweep[0].0.connections
            });
            let points =
                fixed.map(|(choice, measure)| (choice.rows as f64, measure.rows_per_second));
            Series {
                name: name.to_owned(),
                points: points.collect(),
            }
        };
        let pgbraid = Series {
            name: "pgbraid, rows of a message".to_owned(),
            points: rates(&self.batch_sweep),
        };
        let mut series = vec![
            pgbraid,
            limit(Form::Upsert, "bare loop, upsert, rows of a statement"),
            limit(Form::Update, "bare loop, update"),
        ];
        series.retain(|series| !series.points.is_empty());
        LineChart {
            title: "Throughput against batch size, random keys".to_owned(),
            x: Axis::logarithmic("rows of a message or statement"),
            y: Axis::linear("rows a second"),
            series,
        }
        .svg()
    }

    fn latency(&self) -> String {
        let series = |name: &str, of: fn(&Measure) -> Option<f64>| {
            let points = self.load_sweep.iter();
            Series {
                name: name.to_owned(),
                points: points
                    .filter_map(|(percent, measure)| Some((*percent, of(measure)?)))
                    .collect(),
            }
        };
        LineChart {
            title: "Latency against load, columnar, random keys".to_owned(),
            x: Axis::linear("load, % of the most rows a second"),
            y: Axis::logarithmic("ms from the intended sending to the ack"),
            series: vec![
                series("p99", |one| one.p99_ms),
                series("p50", |one| Some(one.p50_ms)),
            ],
        }
        .svg()
    }
}

fn rates(points: &[Point]) -> Vec<(f64, f64)> {
    let rate = |(x, measure): &Point| (*x, measure.rows_per_second);
    points.iter().map(rate).collect()
}
