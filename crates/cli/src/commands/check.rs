//! `pgbraid check`: are the files right, and do the instances agree with them?

use std::sync::Arc;

use pgbraid_config::{ConfigError, RouterConfig, ShardMap};
use pgbraid_server::fleet::{Finding, Fleet, Level};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output;
use crate::settings::{self, ConfigArg};

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Compare with the instances as well
    #[arg(long)]
    online: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    findings: &'a [Finding],
}

pub async fn run(args: Args) -> Result<()> {
    let mut findings = Vec::new();
    let mut summary = String::new();
    match settings::load(&args.config.config) {
        Err(error) => findings.push(wrong(error.to_string())),
        Ok((config, map)) => {
            summary = summarise(&map);
            findings.extend(files(&config).into_iter().map(|e| wrong(e.to_string())));
            if args.online && findings.is_empty() {
                match Fleet::new(Arc::new(config), Arc::new(map)) {
                    Ok(fleet) => findings.extend(fleet.check_online().await),
                    Err(error) => findings.push(wrong(error.to_string())),
                }
            }
        }
    }
    let ok = !findings.iter().any(|f| matches!(f.level, Level::Error));
    let width = output::stdout_width();
    if args.json {
        output::json(&Report {
            ok,
            findings: &findings,
        })?;
    } else {
        for finding in &findings {
            output::line(&output::wrap(&text(finding), width))?;
        }
        if ok {
            output::line(&output::wrap(&format!("ok: {summary}"), width))?;
        }
    }
    if ok { Ok(()) } else { Err(Failure::Printed) }
}

/// The files that the settings name.
fn files(config: &RouterConfig) -> Vec<ConfigError> {
    let grpc = &config.grpc;
    [
        config.read_schema().err(),
        config.postgres.password().err(),
        config.postgres.ssl_root_pem().err(),
        grpc.token().err(),
        grpc.tls.as_ref().and_then(|tls| tls.read().err()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn summarise(map: &ShardMap) -> String {
    let feed = |(name, feed): (&_, &pgbraid_config::FeedMap)| {
        let s = if feed.tables == 1 { "" } else { "s" };
        format!("feed {name} of {} table{s}", feed.tables)
    };
    let feeds: Vec<String> = map.feeds.iter().map(feed).collect();
    let s = if map.instances.len() == 1 { "" } else { "s" };
    let instances = map.instances.len();
    format!("{instances} instance{s}, {}", feeds.join(", "))
}

fn wrong(message: String) -> Finding {
    Finding {
        level: Level::Error,
        instance: None,
        message,
    }
}

fn text(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
    };
    let message = finding.message.trim_end().replace('\n', "\n  ");
    match &finding.instance {
        Some(instance) => format!("{level}: {instance}: {message}"),
        None => format!("{level}: {message}"),
    }
}
