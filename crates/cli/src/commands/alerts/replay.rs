//! `pgbraid alerts replay`: moves a group to another position.

use pgbraid_client::Start;
use serde_json::json;

use super::from;
use crate::failure::Result;
use crate::output;
use crate::router_args::{RouterArgs, refused};

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    router: RouterArgs,
    /// The group
    #[arg(long, value_name = "NAME")]
    group: String,
    /// Where to: now, earliest (all that is kept), a time (2025-06-01T12:00:00Z, or -10m for ten
    /// minutes ago), or a token of `alerts tail --json`
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true, value_parser = from::parse)]
    from: Start,
    /// On this instance only (repeatable)
    #[arg(long, value_name = "NAME")]
    instance: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let groups = args.router.connect().await?.groups();
    let replayed = groups.replay(&args.group, &args.from, &args.instance).await;
    replayed.map_err(refused)?;
    if args.json {
        return output::json(&json!({"replayed": args.group, "instances": args.instance}));
    }
    let place = match args.instance.as_slice() {
        [] => "all instances".to_owned(),
        some => some.join(", "),
    };
    output::line(&format!("replayed: {} on {place}", args.group))
}
