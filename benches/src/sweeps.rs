//! One thing varied: rows of a message, and load.

use std::time::Duration;

use anyhow::Result;

use crate::{
    report::Point,
    router::{Load, Router},
    stage::Stage,
};

const BATCH_ROWS: [u32; 5] = [1, 10, 100, 1000, 5000];

const PERCENT: [u32; 5] = [10, 25, 50, 75, 90];

/// Rows that a producer has in flight, in messages of whatever size.
const ROWS_IN_FLIGHT: u32 = 16_000;

/// Throughput by rows of a message.
pub async fn batch_rows(
    stage: &Stage,
    router: &Router,
    keys: u64,
    time: Duration,
) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for rows in BATCH_ROWS {
        let load = Load {
            batch_rows: rows,
            in_flight: (ROWS_IN_FLIGHT / rows).clamp(4, 1024),
            ..Load::random().over(keys)
        };
        let measure = stage.take(async { router.load(&load, time) }).await?;
        let rate = measure.rows_per_second;
        eprintln!("sweep, {rows} rows a message: {rate:.0} rows/s");
        points.push((f64::from(rows), measure));
    }
    Ok(points)
}

/// Latency by percent of the most rows a second, in an open loop.
pub async fn loads(
    stage: &Stage,
    router: &Router,
    top: f64,
    keys: u64,
    time: Duration,
) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for percent in PERCENT {
        let load = Load::random().over(keys);
        let load = load.at(top * f64::from(percent) / 100.0);
        let measure = stage.take(async { router.load(&load, time) }).await?;
        let (p50, p99) = (measure.p50_ms, measure.p99_ms.unwrap_or_default());
        eprintln!("sweep, {percent} % of the top load: p50 {p50:.2} ms, p99 {p99:.2} ms");
        points.push((f64::from(percent), measure));
    }
    Ok(points)
}
