//! The main comparison: everything on one instance, in turns, in one run.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    asyncpg,
    case::{Case, Measure},
    limit::{
        Choice, Limit,
        sweep::{USUAL, best, sweep},
    },
    procs,
    report::{AlertLatency, Report},
    router::{ALERT_ONE_IN, Router},
    scenarios::{alerts, load::Load as AlertLoad},
    stage::Stage,
    sweeps,
};

mod contestants;

use contestants::Contestants;

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Seconds of each measurement [default: 15, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Times that all measurements are taken, in turns [default: 3, or 2 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Rows stored in the feed beforehand, whose keys are then written again
    /// [default: 8000000, or 1000000 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..))]
    rows: Option<u64>,
    /// About two minutes: shorter, on fewer rows, without sweeps
    #[arg(long)]
    quick: bool,
    /// Tables of the feed
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    tables: u32,
    /// How the limit is measured, for example update,8000,3: upsert or update, rows of a
    /// statement, connections [default: the best found, or update,4000,3 with --quick]
    #[arg(long, value_name = "FORM,ROWS,CONNECTIONS")]
    limit: Option<Choice>,
    /// One JSON object on standard output instead of the table
    #[arg(long)]
    json: bool,
    /// Write results.json and plots (SVG) to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The options with their defaults filled in.
struct Plan {
    time: Duration,
    rounds: u32,
    rows: u64,
    tables: u32,
    quick: bool,
}

impl Plan {
    fn of(options: &Options) -> Self {
        let (seconds, rounds, rows) = match options.quick {
            true => (3, 2, 1_000_000),
            false => (15, 3, 8_000_000),
        };
        Self {
            time: Duration::from_secs(options.seconds.unwrap_or(seconds)),
            rounds: options.rounds.unwrap_or(rounds),
            rows: options.rows.unwrap_or(rows),
            tables: options.tables,
            quick: options.quick,
        }
    }

    /// Of one of the many measurements of a sweep.
    fn sweep_time(&self) -> Duration {
        self.time.min(Duration::from_secs(6))
    }
}

/// Runs it and prints it.
pub async fn run(options: Options) -> Result<()> {
    if let Some(folder) = &options.out {
        // Now, and not when all has been measured.
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let plan = Plan::of(&options);
    let report = measure(&plan, options.limit).await?;
    if let Some(folder) = &options.out {
        write(&report, folder)?;
    }
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

fn write(report: &Report, folder: &Path) -> Result<()> {
    let results = serde_json::to_string_pretty(&report.json())? + "\n";
    let mut files = report.plots();
    files.push(("results.json", results));
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        eprintln!("written: {}", path.display());
    }
    Ok(())
}

async fn measure(plan: &Plan, wanted: Option<Choice>) -> Result<Report> {
    eprintln!("starting one PostgreSQL instance with default durability");
    let stage = Stage::start().await?;
    let router = Router::start(stage.cluster(), plan.tables).await?;
    eprintln!("storing {} rows in {} tables", plan.rows, plan.tables);
    let took = stage.preload(plan.rows).await?;
    eprintln!("stored in {:.0} s", took.as_secs_f64());
    let limit = Limit::new(plan.tables, plan.rows);
    let tried = match wanted {
        None if !plan.quick => sweep(&limit, &stage, plan.sweep_time()).await?,
        _ => Vec::new(),
    };
    let choice = wanted.or_else(|| best(&tried)).unwrap_or(USUAL);
    let cluster = stage.cluster();
    let mut run = Run {
        contestants: Contestants::prepare(cluster, router, &limit, choice, plan.rows).await?,
        python: asyncpg::version(),
        report: Report::new(Value::Null, choice),
        stage,
        plan,
    };
    run.report.limit_sweep = tried;
    run.report.about = run.about().await?;
    run.left_out();
    for round in 1..=plan.rounds {
        run.round(round).await?;
    }
    if !plan.quick {
        run.sweeps().await?;
    }
    run.report.memory = run.contestants.router.memory();
    // Last, because it leaves a rule behind.
    run.alerts().await?;
    Ok(run.report)
}

/// One run.
struct Run<'a> {
    plan: &'a Plan,
    stage: Stage,
    contestants: Contestants,
    /// Version of asyncpg, if it is there.
    python: Option<String>,
    report: Report,
}

impl Run<'_> {
    async fn about(&self) -> Result<Value> {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let cluster = self.stage.cluster();
        Ok(json!({
            "pgbraid": env!("CARGO_PKG_VERSION"), "postgres": cluster.binaries().version(),
            "asyncpg": self.python, "cores": cores, "processor": procs::processor(),
            "os": std::env::consts::OS, "settings": self.stage.settings().await?,
            "tables": self.plan.tables, "rows_stored": self.plan.rows,
            "seconds": self.plan.time.as_secs(), "rounds": self.plan.rounds,
            "quick": self.plan.quick,
        }))
    }

    fn left_out(&mut self) {
        if self.python.is_none() {
            let note = "asyncpg was left out: python3 cannot import it (pip install asyncpg)";
            self.report.notes.push(note.into());
        }
        if self.plan.quick {
            let note = "--quick: fewer rows stored, shorter measurements, no sweeps";
            self.report.notes.push(note.into());
        }
    }

    /// Everything once. What is compared with each other is measured next to each other.
    async fn round(&mut self, round: u32) -> Result<()> {
        let half = (self.plan.time / 2).max(Duration::from_secs(1));
        for case in Case::ALL {
            let time = match case {
                Case::Direct | Case::Call | Case::Unary => half,
                _ => self.plan.time,
            };
            if case == Case::Asyncpg && self.python.is_none() {
                continue;
            }
            let top_single = self.report.last(Case::Single);
            let top_single = top_single.map_or(0.0, |one| one.rows_per_second);
            let cluster = self.stage.cluster();
            let run = self.contestants.run(cluster, case, top_single, time);
            let measure = self.stage.take(run).await;
            let measure = measure.with_context(|| case.label())?;
            eprintln!(
                "round {round} of {}: {}: {:.0} rows/s",
                self.plan.rounds,
                case.label(),
                measure.rows_per_second
            );
            self.report.add(case, measure);
        }
        Ok(())
    }

    /// Latency of alerts at a fifth of the top load, and at the top.
    async fn alerts(&mut self) -> Result<()> {
        let rate = |one: &Measure| Some(one.rows_per_second);
        let top = self.report.median(Case::ColumnarRandom, rate);
        let fifth = top.map(|top| (top / 5.0).max(1.0) as u64);
        self.report.alert = Some(self.alert("a fifth of the top load", fifth).await?);
        self.report.alert_top = Some(self.alert("the top load", None).await?);
        Ok(())
    }

    async fn alert(&mut self, name: &str, rate: Option<u64>) -> Result<AlertLatency> {
        let load = AlertLoad {
            rate,
            alert_one_in: Some(ALERT_ONE_IN),
            ..AlertLoad::random(self.plan.rows)
        };
        self.stage.checkpoint().await?;
        let (cluster, address) = (self.stage.cluster(), self.contestants.router.address());
        let found = alerts::latency(cluster, address, &load, self.plan.time)
            .await
            .with_context(|| format!("alerts at {name}"))?;
        let (p50_ms, p99_ms) = (found.p50_ms, found.p99_ms);
        eprintln!(
            "alerts at {name}, {:.0} rows/s: p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms",
            found.rows_per_second
        );
        if found.lost > 0 {
            let (lost, all) = (found.lost, found.lost + found.count);
            let note = format!("alerts at {name}: {lost} of {all} did not arrive");
            self.report.notes.push(note);
        }
        Ok(AlertLatency { p50_ms, p99_ms })
    }

    async fn sweeps(&mut self) -> Result<()> {
        let (stage, router, rows) = (&self.stage, &self.contestants.router, self.plan.rows);
        let time = self.plan.sweep_time();
        self.report.batch_sweep = sweeps::batch_rows(stage, router, rows, time).await?;
        let rate = |one: &Measure| Some(one.rows_per_second);
        if let Some(top) = self.report.median(Case::ColumnarRandom, rate) {
            self.report.load_sweep = sweeps::loads(stage, router, top, rows, time).await?;
        }
        Ok(())
    }
}
