//! `pgbraid load`: writes random rows, and measures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use pgbraid_client::{Client, proto};
use pgbraid_config::LogFormat;
use tokio::task::JoinSet;

use crate::failure::{Failure, Result};
use crate::logs;
use crate::meter::Meter;
use crate::router_args::{RouterArgs, status};
use crate::stop::StopSignals;

mod clock;
mod generate;
mod keys;
mod lane;
mod pace;
mod progress;
mod random;
mod report;
mod stream;
mod unary;
mod zipf;

use clock::Clock;
use generate::{Generator, KeyType, Shape};
use keys::Choice;
use lane::Lane;
use pace::{Behind, Early, Pace};
use progress::Progress;
use report::{Outcome, cpu_time};

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
    /// Keys in a row with --keys runs; a run goes on over requests [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    run_length: Option<u64>,
    /// With --keys zipf, key number k of all is written 1 / k^EXPONENT times as often as the first
    /// [default: 0.99]
    #[arg(long, value_name = "EXPONENT", value_parser = exponent)]
    zipf_exponent: Option<f64>,
    /// How many keys there are, from 0
    #[arg(long, value_name = "N", default_value_t = 10_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1 << 62))]
    key_space: u64,
    /// How long; a signal to stop ends it before, with its report
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The int4 columns to write, with commas between [default: the first two of the feed]
    #[arg(long, value_name = "C1,C2", value_delimiter = ',')]
    columns: Vec<String>,
    /// Rows a second to send, over all producers, whatever the router does (an open loop): latencies
    /// count from the intended time of sending, and the report says how far sending fell behind.
    /// Beyond 10 000 requests a second, sending is late by up to 2 ms. Without it: as fast as the
    /// acks allow
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
    /// Keys in a row, each run from a random start
    Runs,
    /// One after the other
    Sequential,
    /// Some keys far more often than others, by Zipf's law; hot keys are no neighbours
    Zipf,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Columnar => "columnar",
            Self::Rows => "rows",
            Self::Single => "single",
            Self::Unary => "unary",
        }
    }
}

fn exponent(text: &str) -> std::result::Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let range = 0.01..=10.0;
    let wrong = || "not between 0.01 and 10".to_owned();
    range.contains(&number).then_some(number).ok_or_else(wrong)
}

impl Args {
    /// Whether it sends one call after the other.
    pub fn is_one_by_one(&self) -> bool {
        self.form == Form::Unary && self.producers == 1 && self.in_flight == 1
    }

    fn choice(&self) -> Result<Choice> {
        if self.run_length.is_some() && self.keys != Keys::Runs {
            return Err(Failure::new("--run-length is for --keys runs"));
        }
        if self.zipf_exponent.is_some() && self.keys != Keys::Zipf {
            return Err(Failure::new("--zipf-exponent is for --keys zipf"));
        }
        Ok(match self.keys {
            Keys::Random => Choice::Random,
            Keys::Runs => Choice::Runs(self.run_length.unwrap_or(1000)),
            Keys::Sequential => Choice::Sequential,
            Keys::Zipf => Choice::Zipf(self.zipf_exponent.unwrap_or(0.99)),
        })
    }

    /// Requests a second, of all producers.
    fn requests(&self, shape: &Shape) -> Option<f64> {
        Some(self.rate? as f64 / f64::from(shape.batch_rows))
    }

    /// Of one producer.
    fn pace(&self, shape: &Shape, number: u32, start: Instant) -> Pace {
        // Nobody waits for a century.
        let time = Duration::from_secs(self.seconds.min(100 * 366 * 86_400));
        let end = start + time;
        match self.requests(shape) {
            Some(requests) => Pace::open(start, end, requests, number, self.producers),
            None => Pace::closed(start, end),
        }
    }
}

pub async fn run(args: Args) -> Result<()> {
    logs::init("warn", LogFormat::Text)?;
    let keys = args.choice()?;
    let client = args.router.connect().await?;
    let shape = Arc::new(shape(&args, keys, &client).await?);
    let meter = Arc::new(Meter::default());
    let mut clients = Vec::new();
    for _ in 0..args.producers {
        // Each its own connection, as separate services would have.
        clients.push(args.router.connect().await?);
    }
    let clock = match args.requests(&shape) {
        Some(requests) => Clock::start(requests)?,
        None => None,
    };
    let (mut signals, early) = (StopSignals::listen()?, Early::default());
    let (start, cpu) = (Instant::now(), cpu_time());
    let progress = Progress::show(Arc::clone(&meter), start);
    let mut tasks = JoinSet::new();
    for (number, client) in (0..).zip(clients) {
        let generator = Generator::new(Arc::clone(&shape), number, args.producers);
        let pace = args.pace(&shape, number, start);
        let pace = pace.ended_by(Arc::clone(&early));
        let (clock, meter) = (clock.clone(), Arc::clone(&meter));
        if args.form == Form::Unary {
            let in_flight = args.in_flight;
            tasks.spawn(unary::run(client, generator, pace, in_flight, clock, meter));
        } else {
            let lane = Lane::new(generator, pace, args.in_flight as usize);
            tasks.spawn(stream::run(client, lane, clock, meter));
        }
    }
    let mut behind = Behind::default();
    loop {
        let done = tokio::select! {
            done = tasks.join_next() => done,
            () = signals.next() => {
                // One more does not wait for answers.
                if early.set(Instant::now()).is_err() {
                    tasks.abort_all();
                }
                continue;
            }
        };
        let Some(done) = done else { break };
        let one = done?;
        behind.requests += one.requests;
        behind.time = behind.time.max(one.time);
    }
    let outcome = Outcome {
        args: &args,
        shape: &shape,
        meter: &meter,
        elapsed: start.elapsed(),
        cpu: cpu_time().saturating_sub(cpu),
        behind,
    };
    drop(progress);
    if args.json {
        outcome.json()?;
    } else {
        outcome.text()?;
    }
    if meter.rows_acked() == 0 {
        return Err(Failure::Printed);
    }
    Ok(())
}

/// Asks the router what the feed looks like.
async fn shape(args: &Args, keys: Choice, client: &Client) -> Result<Shape> {
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
        keys,
        key_space: args.key_space,
        alert_one_in: args.alert_one_in,
    })
}
