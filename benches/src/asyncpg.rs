//! What a user would write: Python with asyncpg, if it is there.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use pgbraid_devcluster::DevCluster;
use serde_json::Value;

use crate::case::Measure;

const SCRIPT: &str = include_str!("../workloads/asyncpg_unnest.py");
const VERSION: &str =
    "import asyncpg, platform; print(asyncpg.__version__, 'on Python', platform.python_version())";

/// Its version; `None` if python3 or asyncpg is missing.
pub fn version() -> Option<String> {
    let output = Command::new("python3")
        .args(["-c", VERSION])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Upserts of random keys through the feed's parent.
pub fn run(cluster: &DevCluster, keys: u64, time: Duration) -> Result<Measure> {
    let port = cluster.instances()[0].port().to_string();
    let output = Command::new("python3")
        .args(["-c", SCRIPT, &port, &keys.to_string()])
        .arg(time.as_secs().to_string())
        .env("PGPASSWORD", cluster.password())
        .output()
        .context("starting python3")?;
    if !output.status.success() {
        bail!(
            "asyncpg_unnest.py failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let answer: Value =
        serde_json::from_slice(&output.stdout).context("asyncpg_unnest.py printed no JSON")?;
    let number = |name: &str| {
        let value = answer.get(name).and_then(Value::as_f64);
        value.with_context(|| format!("asyncpg_unnest.py printed no {name}"))
    };
    Ok(Measure {
        rows: number("rows")?,
        rows_per_second: number("rows_per_second")?,
        p50_ms: number("p50_ms")?,
        p99_ms: Some(number("p99_ms")?),
        // Its own count: making the batches beforehand is left out.
        load_ns_per_row: Some(number("cpu_ns_per_row")?),
        ..Measure::default()
    })
}
