//! The load: `pgbraid load`, as its users run it.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::fixture::{FEED, binary};

/// What is written.
#[derive(Clone, Debug)]
pub struct Load {
    /// Of type int4, with commas between.
    pub columns: &'static str,
    pub keys: &'static str,
    pub key_space: u64,
    pub producers: u32,
    pub in_flight: u32,
    pub batch_rows: u32,
    /// Rows a second; without it as fast as acks allow.
    pub rate: Option<u64>,
    /// One row in so many has values over 9999, for a rule to find.
    pub alert_one_in: Option<u64>,
}

impl Load {
    /// Columnar requests of 1000 rows with random keys, as fast as acks allow.
    pub fn random(key_space: u64) -> Self {
        Self {
            columns: "c1,c2",
            keys: "random",
            key_space,
            producers: 8,
            in_flight: 16,
            batch_rows: 1000,
            rate: None,
            alert_one_in: None,
        }
    }

    /// Starts it.
    pub fn start(&self, grpc: &str, time: Duration) -> Result<Running> {
        let mut command = Command::new(binary()?);
        command
            .args(["load", "--json", "--feed", FEED, "--columns", self.columns])
            .args(["--router", grpc, "--form", "columnar", "--keys", self.keys])
            .args(["--key-space", &self.key_space.to_string()])
            .args(["--producers", &self.producers.to_string()])
            .args(["--in-flight", &self.in_flight.to_string()])
            .args(["--batch-rows", &self.batch_rows.to_string()])
            .args(["--for", &time.as_secs().max(1).to_string()]);
        if let Some(rate) = self.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        if let Some(rows) = self.alert_one_in {
            command.args(["--alert-one-in", &rows.to_string()]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting pgbraid load")?;
        Ok(Running(child))
    }

    /// Runs it to its end. A row that is refused fails the run: a refusal is no throughput.
    pub async fn run(&self, grpc: &str, time: Duration) -> Result<Loaded> {
        self.start(grpc, time)?.finish().await
    }
}

/// A load at work. Dropping ends it.
pub struct Running(Child);

impl Running {
    /// Ends it early, and waits for its answers. A row that is refused is an error.
    pub async fn stop(self) -> Result<Loaded> {
        let pid = self.0.id().context("the load has ended")?.try_into()?;
        kill(Pid::from_raw(pid), Signal::SIGINT)?;
        self.finish().await
    }

    /// Waits for its end. A row that is refused is an error.
    pub async fn finish(self) -> Result<Loaded> {
        let output = self.0.wait_with_output().await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("pgbraid load failed ({}):\n{stderr}", output.status);
        }
        Loaded::parse(&output.stdout)
            .with_context(|| format!("what pgbraid load has found cannot be used\n{stderr}"))
    }
}

/// What a load has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loaded {
    pub rows: f64,
    pub rows_per_second: f64,
    /// From the (intended) time of sending to the ack.
    pub ack_p50_ms: f64,
    pub ack_p99_ms: f64,
}

impl Loaded {
    fn parse(answer: &[u8]) -> Result<Self> {
        let answer: Value = serde_json::from_slice(answer).context("its answer is no JSON")?;
        let refused = answer.get("errors").and_then(Value::as_object);
        if refused.is_some_and(|refused| !refused.is_empty()) {
            bail!(
                "rows were refused: {} {}",
                answer["errors"],
                answer["first_error"]
            );
        }
        let number = |name: &str| {
            let value = answer.pointer(name).and_then(Value::as_f64);
            value.with_context(|| format!("no number {name} in its answer"))
        };
        Ok(Self {
            rows: number("/rows_acked")?,
            rows_per_second: number("/rows_per_second")?,
            ack_p50_ms: number("/ack_ms/p50")?,
            ack_p99_ms: number("/ack_ms/p99")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let good = br#"{"rows_acked": 10, "rows_per_second": 5.0, "errors": {},
                       "ack_ms": {"p50": 1.5, "p99": 9.0}}"#;
        let loaded = Loaded::parse(good).unwrap();
        assert_eq!((loaded.rows, loaded.rows_per_second), (10.0, 5.0));
        assert_eq!((loaded.ack_p50_ms, loaded.ack_p99_ms), (1.5, 9.0));
        for (bad, part) in [
            (&b"{"[..], "no JSON"),
            (b"{\"errors\": {}}", "rows_acked"),
            (
                br#"{"rows_acked": 1, "errors": {"UNAVAILABLE": 3}}"#,
                "refused",
            ),
        ] {
            let error = Loaded::parse(bad).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
