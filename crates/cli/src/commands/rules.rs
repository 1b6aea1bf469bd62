//! `pgbraid rules`: puts, lists, removes and tests rules.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use pgbraid_client::{Client, proto};
use pgbraid_config::Time;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output;
use crate::router_args::{RouterArgs, status};

pub mod file;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show the rules
    List(List),
    /// Add or replace a rule, or those of a file
    Put(Put),
    /// Remove a rule
    Rm(Rm),
    /// Count the stored rows on which a rule would fire; changes nothing
    Test(Test),
}

#[derive(clap::Args, Debug)]
pub struct List {
    #[command(flatten)]
    router: RouterArgs,
    /// Rules of this feed only
    #[arg(long, value_name = "NAME")]
    feed: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct Put {
    #[command(flatten)]
    router: RouterArgs,
    /// The rule's name
    #[arg(required_unless_present = "file", requires_all = ["feed", "when", "channel", "reason"])]
    name: Option<String>,
    /// The feed that it watches
    #[arg(long, value_name = "NAME")]
    feed: Option<String>,
    /// A SQL boolean expression over the row's columns
    #[arg(long, value_name = "EXPRESSION")]
    when: Option<String>,
    /// The channel of its alerts
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// What its alerts say
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// edge: when a row starts to match; level: on every write that matches
    #[arg(long, value_enum, default_value_t = Mode::Edge)]
    mode: Mode,
    /// Tell also when a row stops to match
    #[arg(long)]
    resolve: bool,
    /// After an alert of a key, none for that key so long, such as 10m
    #[arg(long, value_name = "TIME")]
    cooldown: Option<Time>,
    /// The version that you have seen; 0: the rule must be new
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(i64).range(0..))]
    version: Option<i64>,
    /// Rules from a file of [[rule]] sections, all or none
    #[arg(long, short, value_name = "FILE",
          conflicts_with_all = ["name", "feed", "when", "channel", "reason", "mode", "resolve",
                                "cooldown", "version"])]
    file: Option<PathBuf>,
    /// Remove rules of the file's feeds that it does not have
    #[arg(long, requires = "file")]
    prune: bool,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct Rm {
    #[command(flatten)]
    router: RouterArgs,
    /// The rule's name
    name: String,
    /// The version that you have seen
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(i64).range(0..))]
    version: Option<i64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct Test {
    #[command(flatten)]
    router: RouterArgs,
    /// The name of a stored rule; or give --feed and --when
    #[arg(required_unless_present = "when", conflicts_with_all = ["feed", "when"])]
    name: Option<String>,
    /// The feed
    #[arg(long, value_name = "NAME", requires = "when")]
    feed: Option<String>,
    /// A SQL boolean expression over the row's columns
    #[arg(long, value_name = "EXPRESSION", requires = "feed")]
    when: Option<String>,
    /// Keys to show, at most 100
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(0..=100))]
    sample: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Edge,
    Level,
}

impl From<Mode> for proto::RuleMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Edge => Self::Edge,
            Mode::Level => Self::Level,
        }
    }
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(args) => list(args).await,
        Command::Put(args) => put(args).await,
        Command::Rm(args) => remove(args).await,
        Command::Test(args) => test(args).await,
    }
}

async fn list(args: List) -> Result<()> {
    let client = args.router.connect().await?;
    let response = stored(&client, args.feed.unwrap_or_default()).await?;
    if args.json {
        let rules: Vec<Value> = response.rules.iter().map(as_json).collect();
        return output::json(&json!({"rules": rules, "pending": response.pending}));
    }
    for rule in &response.rules {
        let mode = mode_name(rule);
        let head = format!("{} (version {}, {mode})", rule.name, rule.version);
        let edges = edges(rule);
        output::line(&format!(
            "{head} on {} to {}{edges}",
            rule.feed, rule.channel
        ))?;
        output::line(&format!(
            "  when {}",
            rule.expression.replace('\n', "\n       ")
        ))?;
        output::line(&format!("  \"{}\"", rule.reason))?;
    }
    if response.rules.is_empty() {
        output::note("there are no rules");
    }
    say_pending(&response.pending);
    Ok(())
}

async fn put(args: Put) -> Result<()> {
    // The file first: a mistake in it does not need a router.
    let rules = match args.file {
        Some(path) => file::read(&path)?,
        None => vec![proto::RulePut {
            rule: Some(proto::Rule {
                name: args.name.unwrap_or_default(),
                feed: args.feed.unwrap_or_default(),
                expression: args.when.unwrap_or_default(),
                channel: args.channel.unwrap_or_default(),
                reason: args.reason.unwrap_or_default(),
                mode: proto::RuleMode::from(args.mode).into(),
                resolve: args.resolve,
                cooldown: args
                    .cooldown
                    .and_then(|time| time.duration().try_into().ok()),
                ..Default::default()
            }),
            expected_version: args.version,
        }],
    };
    let client = args.router.connect().await?;
    let request = proto::PutRulesRequest {
        rules,
        prune: args.prune,
        dry_run: args.dry_run,
    };
    let response = client.admin().put_rules(request).await.map_err(status)?;
    let response = response.into_inner();
    if args.json {
        let rules: Vec<Value> = response.rules.iter().map(as_json).collect();
        return output::json(&json!({
            "dry_run": args.dry_run, "changed": response.changed, "removed": response.removed,
            "pending": response.pending, "rules": rules,
        }));
    }
    let would = if args.dry_run { "would be " } else { "" };
    for name in &response.changed {
        output::line(&format!("{would}put: {name}"))?;
    }
    for name in &response.removed {
        output::line(&format!("{would}removed: {name}"))?;
    }
    if response.changed.is_empty() && response.removed.is_empty() {
        output::line("nothing to change")?;
    }
    say_pending(&response.pending);
    Ok(())
}

async fn remove(args: Rm) -> Result<()> {
    let client = args.router.connect().await?;
    let request = proto::RemoveRuleRequest {
        name: args.name.clone(),
        expected_version: args.version,
    };
    let response = client.admin().remove_rule(request).await.map_err(status)?;
    let pending = response.into_inner().pending;
    if args.json {
        return output::json(&json!({"removed": [args.name], "pending": pending}));
    }
    output::line(&format!("removed: {}", args.name))?;
    say_pending(&pending);
    Ok(())
}

async fn test(args: Test) -> Result<()> {
    let client = args.router.connect().await?;
    let rule = match args.name {
        None => proto::Rule {
            name: "test".into(),
            feed: args.feed.unwrap_or_default(),
            expression: args.when.unwrap_or_default(),
            channel: "test".into(),
            reason: "test".into(),
            ..Default::default()
        },
        Some(name) => {
            let rules = stored(&client, String::new()).await?.rules;
            let known: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
            let found = rules.into_iter().find(|rule| rule.name == name);
            found.ok_or_else(|| {
                Failure::new(format!("there is no rule {name}"))
                    .hint(format!("there are: {}", known.join(", ")))
            })?
        }
    };
    let request = proto::TestRuleRequest {
        rule: Some(rule.clone()),
        sample: args.sample,
    };
    let response = client.admin().test_rule(request).await.map_err(status)?;
    let response = response.into_inner();
    if args.json {
        return output::json(&json!({
            "rule": as_json(&rule), "rows_scanned": response.rows_scanned,
            "rows_matched": response.rows_matched, "sample_keys": response.sample_keys,
        }));
    }
    let (matched, scanned) = (response.rows_matched, response.rows_scanned);
    output::line(&format!("would have fired on {matched} of {scanned} rows"))?;
    if !response.sample_keys.is_empty() {
        output::line(&format!(
            "keys such as: {}",
            response.sample_keys.join(", ")
        ))?;
    }
    Ok(())
}

async fn stored(client: &Client, feed: String) -> Result<proto::ListRulesResponse> {
    let request = proto::ListRulesRequest { feed };
    let response = client.admin().list_rules(request).await.map_err(status)?;
    Ok(response.into_inner())
}

fn say_pending(pending: &[String]) {
    if !pending.is_empty() {
        let instances = pending.join(", ");
        output::note(format!(
            "not reached, and will get the rules when back: {instances}"
        ));
    }
}

fn mode_name(rule: &proto::Rule) -> &'static str {
    match rule.mode() {
        proto::RuleMode::Edge => "edge",
        proto::RuleMode::Level => "level",
    }
}

/// What it does at the edges, beyond its mode.
fn edges(rule: &proto::Rule) -> String {
    let resolve = if rule.resolve { ", resolves" } else { "" };
    let cooldown = cooldown(rule).map(|time| format!(", cool-down {time}"));
    format!("{resolve}{}", cooldown.unwrap_or_default())
}

fn cooldown(rule: &proto::Rule) -> Option<Time> {
    let cooldown = std::time::Duration::try_from(rule.cooldown?).ok()?;
    Some(Time::ms(u64::try_from(cooldown.as_millis()).ok()?))
}

fn as_json(rule: &proto::Rule) -> Value {
    json!({
        "name": rule.name, "feed": rule.feed, "when": rule.expression,
        "channel": rule.channel, "reason": rule.reason, "mode": mode_name(rule),
        "resolve": rule.resolve, "cooldown": cooldown(rule).map(|time| time.to_string()),
        "version": rule.version, "updated_at": rule.updated_at.as_ref().map(ToString::to_string),
    })
}
