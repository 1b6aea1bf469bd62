//! `pgbraid load`: writes random rows, and measures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use pgbraid_client::{Client, ClientError, ProducerConfig, WriteAck, proto};
use pgbraid_config::LogFormat;
use serde_json::json;
use tokio::task::JoinSet;

use crate::failure::{Failure, Result};
use crate::meter::{Feeder, Meter};
use crate::router_args::{RouterArgs, status};
use crate::{logs, output};

mod generate;

use generate::{Generator, KeyType, Shape};

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    router: RouterArgs,
    /// The feed [default: the only one]
    #[arg(long, value_name = "NAME")]
    feed: Option<String>,
    /// Streams (or connections, with --form unary) that write at once
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    producers: u32,
    /// Requests of each producer that are not acknowledged yet
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    in_flight: u32,
    /// Rows of one request [default: 1000, or 1 with --form single or unary]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_rows: Option<u32>,
    /// How rows are sent
    #[arg(long, value_enum, default_value_t = Form::Columnar)]
    form: Form,
    /// How keys are chosen
    #[arg(long, value_enum, default_value_t = Keys::Random)]
    keys: Keys,
    /// How many keys there are, from 0
    #[arg(long, value_name = "N", default_value_t = 10_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1 << 62))]
    key_space: u64,
    /// How long
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The int4 columns to write, with commas between [default: the first two of the feed]
    #[arg(long, value_name = "C1,C2", value_delimiter = ',')]
    columns: Vec<String>,
    /// Rows a second to aim at, over all producers; latencies then count from the intended time of
    /// sending. Without it: as fast as the acks allow
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Values are 0 to 9999; of one row in N they are 10000 to 19999, for a rule to find
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    alert_one_in: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// On streams, columns as fixed-width bytes
    Columnar,
    /// On streams, row by row
    Rows,
    /// On streams, one row a request
    Single,
    /// One call a request
    Unary,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Each key for itself
    Random,
    /// Runs of 100 keys, each starting anywhere
    Runs,
    /// One after the other
    Sequential,
}

pub async fn run(args: Args) -> Result<()> {
    logs::init("warn", LogFormat::Text)?;
    let client = args.router.connect().await?;
    let shape = Arc::new(shape(&args, &client).await?);
    let meter = Arc::new(Meter::default());
    let start = Instant::now();
    let end = start + Duration::from_secs(args.seconds);
    let mut tasks = JoinSet::new();
    for number in 0..args.producers {
        // Each its own connection, as separate services would have.
        let client = args.router.connect().await?;
        let generator = Generator::new(Arc::clone(&shape), number, args.producers);
        let pace = Pace::new(&args, shape.batch_rows, number, start);
        let meter = Arc::clone(&meter);
        if args.form == Form::Unary {
            let in_flight = args.in_flight;
            tasks.spawn(unary(client, in_flight, generator, pace, end, meter));
        } else {
            let config = ProducerConfig {
                in_flight: args.in_flight as usize,
                give_up_after: Some(Duration::from_secs(30)),
                ..ProducerConfig::default()
            };
            let feeder = Feeder::new(client, config, meter);
            tasks.spawn(stream(feeder, generator, pace, end));
        }
    }
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    report(&args, &shape, &meter, start.elapsed())
}

/// Asks the router what the feed looks like.
async fn shape(args: &Args, client: &Client) -> Result<Shape> {
    let response = client.admin().get_status(proto::GetStatusRequest {}).await;
    let feeds = response.map_err(status)?.into_inner().feeds;
    let names: Vec<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
    let known = format!("the router has: {}", names.join(", "));
    let feed = match (&args.feed, feeds.as_slice()) {
        (Some(name), feeds) => feeds
            .iter()
            .find(|feed| feed.name == *name)
            .ok_or_else(|| Failure::new(format!("there is no feed {name}")).hint(&known))?,
        (None, [only]) => only,
        (None, _) => return Err(Failure::new("which feed? Name it with --feed").hint(known)),
    };
    let mut columns = args.columns.clone();
    if columns.is_empty() {
        let int4 = |column: &&proto::ColumnState| {
            matches!(column.r#type.as_str(), "int4" | "integer") && column.name != feed.key_column
        };
        let found = feed.columns.iter().filter(int4).take(2);
        columns.extend(found.map(|column| column.name.clone()));
    }
    if columns.is_empty() {
        return Err(
            Failure::new(format!("{} has no column of type int4", feed.name))
                .hint("name columns that take whole numbers with --columns"),
        );
    }
    let one = matches!(args.form, Form::Single | Form::Unary);
    let batch_rows = args.batch_rows.unwrap_or(if one { 1 } else { 1000 });
    if args.form == Form::Single && batch_rows != 1 {
        return Err(Failure::new(
            "--form single sends one row a request: leave --batch-rows out",
        ));
    }
    Ok(Shape {
        feed: feed.name.clone(),
        key_type: KeyType::of(&feed.key_type),
        columns,
        columnar: args.form == Form::Columnar,
        batch_rows,
        keys: args.keys,
        key_space: args.key_space,
        alert_one_in: args.alert_one_in,
    })
}

/// When the next request is due.
#[derive(Clone)]
struct Pace {
    every: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(args: &Args, batch_rows: u32, number: u32, start: Instant) -> Self {
        let share = |rate: u64| {
            let seconds = f64::from(batch_rows) * f64::from(args.producers) / rate as f64;
            Duration::from_secs_f64(seconds)
        };
        let every = args.rate.map(share);
        // Spread over the interval, so that they do not all send at once.
        let offset = every.unwrap_or_default() * number / args.producers;
        Self {
            every,
            next: start + offset,
        }
    }

    /// Waits until it is due; the intended time, from which its latency counts.
    async fn wait(&mut self) -> Instant {
        let Some(every) = self.every else {
            return Instant::now();
        };
        let due = self.next;
        self.next += every;
        tokio::time::sleep_until(due.into()).await;
        due
    }
}

async fn stream(feeder: Feeder, mut generator: Generator, mut pace: Pace, end: Instant) {
    loop {
        let since = pace.wait().await;
        if Instant::now() >= end {
            break;
        }
        let request = generator.next_request();
        if !feeder.send(request, generator.rows(), since).await {
            break;
        }
    }
    feeder.finish().await;
}

async fn unary(
    client: Client,
    in_flight: u32,
    mut generator: Generator,
    mut pace: Pace,
    end: Instant,
    meter: Arc<Meter>,
) {
    let mut calls = JoinSet::new();
    loop {
        let since = pace.wait().await;
        if Instant::now() >= end {
            break;
        }
        while calls.len() >= in_flight as usize {
            calls.join_next().await;
        }
        let (rows, request) = (generator.rows(), generator.next_request());
        // With nothing to wait for, the intended time is that of sending.
        let since = if pace.every.is_some() {
            since
        } else {
            Instant::now()
        };
        let (mut ingest, meter) = (client.ingest(), Arc::clone(&meter));
        calls.spawn(async move {
            let answer = ingest.write(request).await;
            let answer = answer.map_err(ClientError::from).map(|response| {
                let response = response.into_inner();
                WriteAck {
                    committed: response.rows_committed,
                    refused: response.refused.into_iter().map(Into::into).collect(),
                }
            });
            meter.answered(since, rows, answer);
        });
    }
    while calls.join_next().await.is_some() {}
}

fn report(args: &Args, shape: &Shape, meter: &Meter, elapsed: Duration) -> Result<()> {
    let (acked, refused, acks) = (meter.rows_acked(), meter.refused(), meter.acks());
    let rate = acked as f64 / elapsed.as_secs_f64();
    let (p50, p99) = (acks.quantile_ms(0.5), acks.quantile_ms(0.99));
    let (p999, max) = (acks.quantile_ms(0.999), acks.max_ms());
    if args.json {
        output::json(&json!({
            "feed": shape.feed, "columns": shape.columns, "batch_rows": shape.batch_rows,
            "producers": args.producers, "in_flight": args.in_flight,
            "seconds": elapsed.as_secs_f64(), "requests": meter.requests(), "rows_acked": acked,
            "rows_per_second": rate,
            "ack_ms": {"p50": p50, "p99": p99, "p999": p999, "max": max},
            "errors": refused, "first_error": meter.example(),
        }))?;
    } else {
        let rows = output::grouped(acked);
        let requests = output::grouped(meter.requests());
        output::line(&format!(
            "{rows} rows acked in {:.1} s ({requests} requests): {} rows/s",
            elapsed.as_secs_f64(),
            output::grouped(rate as u64)
        ))?;
        output::line(&format!(
            "ack ms: p50 {p50:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}"
        ))?;
        for (code, rows) in &refused {
            output::line(&format!("refused {code}: {rows} rows"))?;
        }
        if let Some(example) = meter.example() {
            output::note(format!("the first refusal: {example}"));
        }
    }
    if acked == 0 {
        Err(Failure::Printed)
    } else {
        Ok(())
    }
}
