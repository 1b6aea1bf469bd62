//! The router under test: the real binary, and its own load generator.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use pgbraid_devcluster::DevCluster;
use pgbraid_proto::v1::{self, admin_client::AdminClient};

use crate::{
    case::Measure,
    procs::{Memory, cpu_ns},
};

/// One row in so many meets the rule, as in single.sql.
pub const ALERT_ONE_IN: u64 = 10_000;

/// How the rows are sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub form: &'static str,
    pub keys: &'static str,
    pub producers: u32,
    /// Requests of each producer that are not acknowledged yet.
    pub in_flight: u32,
    pub batch_rows: u32,
    /// How many keys there are, from 0.
    pub key_space: u64,
    /// Rows a second to aim at (open loop); `None`: as fast as the acks allow.
    pub rate: Option<u64>,
}

impl Load {
    /// The keys as batch.sql draws them: runs of 1000 from a random start.
    pub fn runs() -> Self {
        Self {
            form: "columnar",
            keys: "runs",
            producers: 8,
            in_flight: 128,
            batch_rows: 1000,
            key_space: 8_000_000,
            rate: None,
        }
    }

    pub fn random() -> Self {
        Self {
            keys: "random",
            ..Self::runs()
        }
    }

    pub fn rows() -> Self {
        Self {
            form: "rows",
            ..Self::random()
        }
    }

    pub fn single() -> Self {
        Self {
            form: "single",
            producers: 32,
            in_flight: 256,
            batch_rows: 1,
            ..Self::random()
        }
    }

    pub fn unary() -> Self {
        Self {
            form: "unary",
            producers: 1,
            in_flight: 1,
            batch_rows: 1,
            ..Self::random()
        }
    }

    /// With the keys 0 to `keys - 1`.
    pub fn over(self, keys: u64) -> Self {
        Self {
            key_space: keys,
            ..self
        }
    }

    /// At a rate, in an open loop: latencies count from the intended time of sending.
    pub fn at(self, rows_per_second: f64) -> Self {
        Self {
            rate: Some((rows_per_second as u64).max(1)),
            ..self
        }
    }
}

/// A router on a fleet of one.
pub struct Router {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("pgbraid");
    if !path.is_file() {
        bail!("{} is not there: ./run bench builds it", path.display());
    }
    Ok(path)
}

/// Counts by code; none is an empty object.
fn is_any(counts: &serde_json::Value) -> bool {
    counts.as_object().is_some_and(|counts| !counts.is_empty())
}

impl Router {
    /// Migrates the instance and starts the router, with a rule that about 1 row in 10,000 meets.
    pub async fn start(cluster: &DevCluster, tables: u32) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pgbraid-bench-")
            .tempdir()?;
        let mut map = format!("[feeds.feed]\ntables = {tables}\n");
        for instance in cluster.instances() {
            let _ = write!(
                map,
                "[instances.{}]\nhost = \"127.0.0.1\"\nport = {}\n",
                instance.name(),
                instance.port()
            );
        }
        std::fs::write(folder.path().join("shardmap.toml"), map)?;
        std::fs::write(
            folder.path().join("schema.sql"),
            include_str!("../workloads/pgbraid_schema.sql"),
        )?;
        let config = folder.path().join("pgbraid.toml");
        let text = format!(
            "schema = [\"schema.sql\"]\n[postgres]\npassword_file = {:?}\nsslmode = \"disable\"\n",
            cluster.password_file()
        );
        std::fs::write(&config, text)?;
        let migrated = Command::new(binary()?)
            .args(["migrate", "--config"])
            .arg(&config)
            .output()?;
        if !migrated.status.success() {
            bail!(
                "migrate failed:\n{}",
                String::from_utf8_lossy(&migrated.stderr)
            );
        }
        let mut child = Command::new(binary()?)
            .args([
                "serve",
                "--grpc-listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
            ])
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut seen = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                bail!("the router does not start:\n{seen}");
            };
            let ready = line
                .strip_prefix("ready: grpc ")
                .and_then(|rest| rest.split(',').next());
            if let Some(address) = ready {
                break format!("http://{address}");
            }
            seen.push_str(&line);
            seen.push('\n');
        };
        // The rest of the log must go somewhere, or the router would wait for a reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let router = Self {
            child,
            address,
            _folder: folder,
        };
        router.put_rule().await?;
        Ok(router)
    }

    async fn put_rule(&self) -> Result<()> {
        let mut admin = AdminClient::connect(self.address.clone()).await?;
        let rule = v1::Rule {
            name: "overflow".into(),
            feed: "feed".into(),
            expression: "c2 > 9999".into(),
            channel: "channel_1".into(),
            reason: "c2 overflow".into(),
            ..Default::default()
        };
        let put = v1::RulePut {
            rule: Some(rule),
            expected_version: None,
        };
        let request = v1::PutRulesRequest {
            rules: vec![put],
            ..Default::default()
        };
        admin.put_rules(request).await?;
        Ok(())
    }

    /// Runs the load generator.
    pub fn load(&self, load: &Load, time: Duration) -> Result<Measure> {
        let before = self.cpu_ns();
        let mut command = Command::new(binary()?);
        command
            .args(["load", "--json", "--feed", "feed", "--columns", "c1,c2"])
            .args([
                "--router",
                &self.address,
                "--form",
                load.form,
                "--keys",
                load.keys,
            ])
            .args(["--producers", &load.producers.to_string()])
            .args(["--in-flight", &load.in_flight.to_string()])
            .args(["--batch-rows", &load.batch_rows.to_string()])
            .args(["--key-space", &load.key_space.to_string()])
            .args(["--alert-one-in", &ALERT_ONE_IN.to_string()])
            .args(["--for", &time.as_secs().to_string()]);
        if let Some(rate) = load.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let output = command.output()?;
        if !output.status.success() {
            bail!(
                "the load failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
            .context("the load generator's answer is no JSON")?;
        let number = |path: &str| answer.pointer(path).and_then(serde_json::Value::as_f64);
        let rows = number("/rows_acked").context("no rows_acked in the answer")?;
        if let Some(refused) = answer.get("errors").filter(|errors| is_any(errors)) {
            let example = answer.get("first_error").cloned().unwrap_or_default();
            eprintln!("rows were refused: {refused}, the first: {example}");
        }
        let used = self.cpu_ns().zip(before);
        let used = used.map(|(after, before)| after - before);
        Ok(Measure {
            rows,
            rows_per_second: number("/rows_per_second").context("no rows_per_second")?,
            p50_ms: number("/ack_ms/p50").unwrap_or_default(),
            p99_ms: number("/ack_ms/p99"),
            cpu_ns_per_row: used.map(|used| used / rows.max(1.0)),
            ..Measure::default()
        })
    }

    /// For clients: `http://127.0.0.1:...`.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn pid(&self) -> Option<i32> {
        self.child.id().try_into().ok()
    }

    /// CPU that the router has used so far.
    pub fn cpu_ns(&self) -> Option<f64> {
        self.pid().and_then(cpu_ns)
    }

    pub fn memory(&self) -> Option<Memory> {
        self.pid().and_then(Memory::of)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
