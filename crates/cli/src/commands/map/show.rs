//! `pgbraid map show` and `map locate`.

use std::collections::BTreeMap;

use pgbraid_client::proto;
use pgbraid_config::ShardMap;
use serde_json::{Value, json};

use crate::failure::Result;
use crate::output;
use crate::router_args::{self, Access, RouterArgs, status};
use crate::settings::ConfigArg;

#[derive(clap::Args, Debug)]
pub struct Show {
    #[command(flatten)]
    config: ConfigArg,
    /// Show what the instances own now as well, asked from this router
    #[arg(long, value_name = "URL")]
    router: Option<String>,
    #[command(flatten)]
    access: Access,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
pub struct Locate {
    #[command(flatten)]
    router: RouterArgs,
    /// The key, as text
    #[arg(allow_hyphen_values = true)]
    key: String,
    /// The feed
    #[arg(long, value_name = "NAME")]
    feed: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn show(args: Show) -> Result<()> {
    let (_, map) = args.config.load()?;
    let now = match &args.router {
        None => None,
        Some(router) => {
            let client = router_args::connect(router, &args.access).await?;
            let response = client.admin().get_status(proto::GetStatusRequest {}).await;
            Some(response.map_err(status)?.into_inner())
        }
    };
    if args.json {
        return output::json(&as_json(&map, now.as_ref()));
    }
    output::line(&format!("map {}, home {}", map.fingerprint, map.home))?;
    for (name, feed) in &map.feeds {
        output::line("")?;
        output::line(&format!("{name}: {} tables", feed.tables))?;
        for (instance, tables) in placement(&map, &feed.placement) {
            let count = tables.len();
            let head = format!("  {:<6} {count:>4}  ", instance.to_string());
            for (i, part) in wrap(&ranges(&tables), 80 - head.len()).iter().enumerate() {
                let blank = " ".repeat(head.len());
                let head = if i == 0 { &head } else { &blank };
                output::line(format!("{head}{part}").trim_end())?;
            }
        }
    }
    if let Some(now) = now {
        output::line("")?;
        for instance in &now.instances {
            let owned = instance.tables_owned;
            output::line(&format!("{} owns {owned} tables now", instance.name))?;
        }
        for feed in &now.feeds {
            let (drift, unowned) = (feed.drift, feed.unowned);
            let name = &feed.name;
            output::line(&format!(
                "{name}: {drift} tables live elsewhere, {unowned} nowhere"
            ))?;
        }
        if now.map_fingerprint != map.fingerprint {
            output::note(format!(
                "the router has another map: {}",
                now.map_fingerprint
            ));
        }
    }
    Ok(())
}

pub async fn locate(args: Locate) -> Result<()> {
    let client = args.router.connect().await?;
    let request = proto::LocateRequest {
        feed: args.feed.clone(),
        key: args.key.clone(),
    };
    let found = client.admin().locate(request).await.map_err(status)?;
    let found = found.into_inner();
    if args.json {
        return output::json(&json!({
            "feed": args.feed, "key": args.key, "table": found.table,
            "instance": found.instance, "host": found.host, "port": found.port,
            "sql": found.sql, "wanted_instance": found.wanted_instance,
        }));
    }
    let owner = match found.instance.as_str() {
        "" => "no instance".to_owned(),
        instance => format!("{instance} ({}:{})", found.host, found.port),
    };
    output::line(&format!("{} on {owner}", found.table))?;
    if found.wanted_instance != found.instance {
        output::line(&format!("the map wants it on {}", found.wanted_instance))?;
    }
    output::line(&found.sql)
}

/// The tables of every instance, also of those that have none.
fn placement(
    map: &ShardMap,
    placement: &[pgbraid_shardmap::InstanceName],
) -> BTreeMap<pgbraid_shardmap::InstanceName, Vec<u32>> {
    let all = map.instances.keys().map(|&name| (name, Vec::new()));
    let mut tables: BTreeMap<_, Vec<u32>> = all.collect();
    for (table, instance) in (0..).zip(placement) {
        tables.entry(*instance).or_default().push(table);
    }
    tables
}

/// `0-15,20` of ascending numbers.
pub fn ranges(tables: &[u32]) -> String {
    let runs = tables.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[u32]| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(u32::to_string).collect(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

/// Breaks a list after commas.
pub fn wrap(list: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in list.split_inclusive(',') {
        let full = lines
            .last()
            .is_some_and(|l| !l.is_empty() && l.len() + part.len() > width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(part);
        }
    }
    lines
}

fn as_json(map: &ShardMap, now: Option<&proto::GetStatusResponse>) -> Value {
    let feeds: BTreeMap<String, Value> = map
        .feeds
        .iter()
        .map(|(name, feed)| {
            let wanted: BTreeMap<String, Value> = placement(map, &feed.placement)
                .into_iter()
                .map(|(i, t)| (i.to_string(), json!({"tables": t, "ranges": ranges(&t)})))
                .collect();
            (
                name.to_string(),
                json!({"tables": feed.tables, "wanted": wanted}),
            )
        })
        .collect();
    let live = now.map(|now| {
        let owned: BTreeMap<_, _> = now.instances.iter().map(|i| (&i.name, i.tables_owned)).collect();
        let feed = |f: &proto::FeedState| {
            json!({"name": f.name, "drift": f.drift, "unowned": f.unowned, "conflicts": f.conflicts})
        };
        json!({
            "fingerprint": now.map_fingerprint, "tables_owned": owned,
            "feeds": now.feeds.iter().map(feed).collect::<Vec<_>>(),
        })
    });
    json!({
        "fingerprint": map.fingerprint, "home": map.home.to_string(), "feeds": feeds, "now": live,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lines() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[7]), "7");
        assert_eq!(ranges(&[0, 1, 2, 5, 8, 9]), "0-2,5,8-9");
        assert_eq!(wrap("1,2,3,4", 4), ["1,2,", "3,4"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn every_instance_is_shown() {
        let text = "[instances.db0]\nhost = \"a\"\n[instances.db1]\nhost = \"b\"\nweight = 0\n\
                    [feeds.orders]\ntables = 4\n";
        let map = ShardMap::parse(text, "shardmap.toml").unwrap();
        let json = as_json(&map, None);
        assert_eq!(json["feeds"]["orders"]["wanted"]["db0"]["ranges"], "0-3");
        assert_eq!(json["feeds"]["orders"]["wanted"]["db1"]["ranges"], "");
    }
}
