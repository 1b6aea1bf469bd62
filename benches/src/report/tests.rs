use serde_json::json;

use super::*;
use crate::limit::sweep::USUAL;

fn measure(rows_per_second: f64, p50_ms: f64) -> Measure {
    Measure {
        rows: rows_per_second * 10.0,
        rows_per_second,
        p50_ms,
        p99_ms: Some(p50_ms * 3.0),
        cpu_ns_per_row: Some(100.0),
        load_ns_per_row: Some(50.0),
        postgres_ns_per_row: Some(4_000.0),
    }
}

/// Two rounds, the second on a machine that is half as fast.
fn report() -> Report {
    let about = json!({
        "pgbraid": "0.1.0", "postgres": "15.13", "tables": 64, "rows_stored": 8_000_000,
        "cores": 2, "processor": "A", "seconds": 15, "rounds": 2,
        "settings": {"shared_buffers": "1GB"},
    });
    let mut report = Report::new(about, USUAL);
    for speed in [2.0, 1.0] {
        for case in Case::ALL.into_iter().filter(|case| *case != Case::Asyncpg) {
            let rows = match case {
                Case::Limit | Case::BatchSql => 200_000.0,
                Case::SingleSql => 20_000.0,
                _ => 180_000.0,
            };
            report.add(case, measure(rows * speed, 1.0 / speed));
        }
    }
    report
}

#[test]
fn json_has_what_programs_look_for() {
    let mut report = report();
    let value = report.json();
    for (path, expected) in [
        ("/ratio/columnar_vs_batch_sql", 0.9),
        ("/ratio/columnar_vs_limit", 0.9),
        ("/ratio/columnar_random_vs_limit", 0.9),
        ("/ratio/single_vs_single_sql", 9.0),
        ("/ratio/unary_p50_vs_direct", 1.0),
        ("/ratio/unary_p50_vs_direct_and_call", 0.5),
        ("/cpu_ns_per_row/columnar", 100.0),
        ("/cpu_ns_per_row/rows", 100.0),
        ("/cpu_ns_per_row/single", 100.0),
        ("/single_half_load_p99_ms", 2.25),
    ] {
        let found = value.pointer(path).and_then(Value::as_f64);
        let near = found.is_some_and(|found| (found - expected).abs() < 1e-9);
        assert!(near, "{path}: {found:?}, expected {expected}");
    }
    for path in [
        "/alert_ms/p50",
        "/rss_mib",
        "/ratio/columnar_random_vs_asyncpg",
    ] {
        assert_eq!(value.pointer(path), Some(&Value::Null), "{path}");
    }
    report.alert = Some(AlertLatency {
        p50_ms: 1.5,
        p99_ms: 8.0,
    });
    assert_eq!(report.json()["alert_ms"], json!({"p50": 1.5, "p99": 8.0}));
}

#[test]
fn the_table_is_80_columns_wide() {
    let mut report = report();
    report.memory = Some(Memory {
        now_mib: 80.0,
        peak_mib: 120.0,
    });
    let table = report.table();
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(table.contains("columnar, random keys, to the limit"));
    assert!(!table.contains("asyncpg"));
    assert!(table.contains("0.90   0.90 to 0.90"));
}

#[test]
fn a_plot_for_each_sweep_that_was_measured() {
    let mut report = report();
    let names = |report: &Report| -> Vec<&str> {
        let plots = report.plots();
        plots.iter().map(|(name, _)| *name).collect()
    };
    assert_eq!(names(&report), ["cpu_batches.svg", "cpu_single.svg"]);
    report.batch_sweep = vec![(1.0, measure(50_000.0, 1.0)), (1000.0, measure(4e5, 2.0))];
    report.load_sweep = vec![(10.0, measure(4e4, 1.0)), (90.0, measure(3.6e5, 20.0))];
    assert!(names(&report).contains(&"throughput.svg"));
    assert!(names(&report).contains(&"latency.svg"));
}
