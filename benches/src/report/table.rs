//! The report for people, 80 columns wide.

use std::fmt::Write as _;

use super::{AlertLatency, Report, maths};
use crate::case::{Case, Measure, RATIOS};

const BELOW: &str = "
p50 of pgbench is its mean. CPU ns/row: of the router, of what sends the rows,
and of all of PostgreSQL; batch.sql makes its rows inside the server. The limit
is a bare loop of binary statements on the feed's own tables, without a router.
";

impl Report {
    pub fn table(&self) -> String {
        let mut text = self.head();
        let _ = writeln!(text, "{:<54}------- CPU ns/row -------", "");
        let _ = writeln!(
            text,
            "{:<26} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8}",
            "", "rows/s", "p50 ms", "p99 ms", "router", "sender", "postgres"
        );
        for case in Case::ALL {
            if !self.all(case).is_empty() {
                self.line(&mut text, case);
            }
        }
        text.push_str(BELOW);
        let _ = writeln!(text, "\n{:<46} {:>6}   rounds", "ratio", "median");
        let parts = "the same to both: direct commit + gRPC call";
        let ratios = RATIOS.iter().map(|one| (one.label, self.ratios(one)));
        for (label, rounds) in ratios.chain([(parts, self.unary_to_its_parts())]) {
            let median = maths::median(rounds.iter().copied());
            let Some((median, (least, most))) = median.zip(maths::range(&rounds)) else {
                continue;
            };
            let _ = writeln!(text, "{label:<46} {median:>6.2}   {least:.2} to {most:.2}");
        }
        self.foot(&mut text);
        text
    }

    fn head(&self) -> String {
        let about = |name: &str| match &self.about[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let settings = |name: &str| self.about["settings"][name].as_str().unwrap_or("?");
        format!(
            "PostgreSQL {}, pgbraid {}, one instance, {} tables, {} rows stored\n\
             {} cores shared by PostgreSQL, router and sender\n\
             {}\n\
             shared_buffers {}, WAL {} to {}, fsync {}, synchronous_commit {}\n\
             medians of {} rounds of {} s each\n\n",
            about("postgres"),
            about("pgbraid"),
            about("tables"),
            about("rows_stored"),
            about("cores"),
            about("processor"),
            settings("shared_buffers"),
            settings("min_wal_size"),
            settings("max_wal_size"),
            settings("fsync"),
            settings("synchronous_commit"),
            about("rounds"),
            about("seconds"),
        )
    }

    fn line(&self, text: &mut String, case: Case) {
        let cell = |of: fn(&Measure) -> Option<f64>, digits: usize| {
            let median = self.median(case, of);
            median.map_or_else(String::new, |value| format!("{value:.digits$}"))
        };
        let _ = writeln!(
            text,
            "{:<26} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8}",
            case.label(),
            cell(|one| Some(one.rows_per_second), 0),
            cell(|one| Some(one.p50_ms), 2),
            cell(|one| one.p99_ms, 2),
            cell(|one| one.cpu_ns_per_row, 0),
            cell(|one| one.load_ns_per_row, 0),
            cell(|one| one.postgres_ns_per_row, 0),
        );
    }

    fn foot(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\nlimit: {} of {} rows of one table on {} connections",
            self.limit.form.name(),
            self.limit.rows,
            self.limit.connections
        );
        for (load, alert) in [("a fifth of the", self.alert), ("the", self.alert_top)] {
            let Some(AlertLatency { p50_ms, p99_ms }) = alert else {
                continue;
            };
            let _ = writeln!(
                text,
                "alerts at {load} top load: p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms from commit"
            );
        }
        if let Some(memory) = self.memory {
            let _ = writeln!(
                text,
                "memory of the router: {:.0} MiB at the most, {:.0} MiB at the end",
                memory.peak_mib, memory.now_mib
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
    }
}
