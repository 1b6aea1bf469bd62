//! The published workloads, with pgbench.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use pgbraid_devcluster::DevCluster;

use crate::case::Measure;

/// A workload in a database of its own.
pub struct Workload {
    name: &'static str,
    script: tempfile::NamedTempFile,
}

impl Workload {
    /// Makes the database and its schema.
    pub async fn prepare(cluster: &DevCluster, name: &'static str) -> Result<Self> {
        let (schema, script) = match name {
            "single" => (
                include_str!("../workloads/single_schema.sql"),
                include_str!("../workloads/single.sql"),
            ),
            _ => (
                include_str!("../workloads/batch_schema.sql"),
                include_str!("../workloads/batch.sql"),
            ),
        };
        let database = format!("bench_{name}");
        let root = cluster.connect(0, true, "postgres").await?;
        root.batch_execute(&format!("create database {database} owner pgbraid"))
            .await?;
        let client = cluster.connect(0, false, &database).await?;
        client
            .batch_execute(schema)
            .await
            .with_context(|| format!("the schema of {name}.sql"))?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), script)?;
        Ok(Self { name, script: file })
    }

    /// Runs pgbench.
    pub fn run(
        &self,
        cluster: &DevCluster,
        clients: u32,
        rows_each: u32,
        time: Duration,
    ) -> Result<Measure> {
        let port = cluster.instances()[0].port().to_string();
        let output = Command::new(cluster.binaries().program("pgbench"))
            .args([
                "-n",
                "-M",
                "prepared",
                "-j",
                "1",
                "-h",
                "127.0.0.1",
                "-U",
                "pgbraid",
            ])
            .args(["-p", &port, "-c", &clients.to_string()])
            .args(["-T", &time.as_secs().to_string(), "-f"])
            .arg(self.script.path())
            .arg(format!("bench_{}", self.name))
            .env("PGPASSWORD", cluster.password())
            .output()
            .context("starting pgbench (Debian: postgresql-contrib is part of postgresql)")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |start: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(start))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let Some(tps) = number("tps = ") else {
            bail!(
                "pgbench failed:\n{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        let transactions = number("number of transactions actually processed: ");
        Ok(Measure {
            rows: transactions.unwrap_or_default() * f64::from(rows_each),
            rows_per_second: tps * f64::from(rows_each),
            p50_ms: number("latency average = ").unwrap_or_default(),
            ..Measure::default()
        })
    }
}
