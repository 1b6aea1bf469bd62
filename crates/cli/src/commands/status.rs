//! `pgbraid status`: how the cluster of a router is.

use pgbraid_client::proto;
use serde_json::{Value, json};

use crate::commands::map::fold;
use crate::failure::Result;
use crate::output;
use crate::router_args::{RouterArgs, status};
use crate::table::Table;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    router: RouterArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let client = args.router.connect().await?;
    let response = client.admin().get_status(proto::GetStatusRequest {}).await;
    let state = response.map_err(status)?.into_inner();
    if args.json {
        return output::json(&as_json(&state));
    }
    let width = output::stdout_width();
    text(&state, width)
        .iter()
        .try_for_each(|line| output::line(line))
}

fn text(state: &proto::GetStatusResponse, width: Option<usize>) -> Vec<String> {
    let mut lines = vec![format!("cluster {}", state.cluster_id)];
    let started = state.started_at.as_ref().map(ToString::to_string);
    lines.push(format!(
        "router {}, since {}, map {}",
        state.version,
        started
            .as_deref()
            .and_then(|at| at.get(..19))
            .unwrap_or("?"),
        state.map_fingerprint
    ));
    if !state.map_error.is_empty() {
        lines.push("the shard map on disk is refused, the old one stays in force:".into());
        let error = state.map_error.lines().map(|line| format!("  {line}"));
        lines.extend(error.map(|line| output::wrap(&line, width)));
    }
    if let Some(moves) = &state.auto_moves {
        lines.extend(auto(moves).iter().flat_map(|line| fold(line, 80)));
    }
    lines.push(String::new());
    lines.extend(instances(&state.instances, width));
    lines.push(String::new());
    lines.extend(feeds(&state.feeds, width));
    lines
}

/// What the router does, or not, about tables that are elsewhere than wanted.
fn auto(moves: &proto::AutoMoves) -> Vec<String> {
    let mut lines = vec![match (moves.under_way, moves.mover.as_str()) {
        (0, "") => "tables are moved by routers, none now".to_owned(),
        (0, mover) => format!("tables are moved by {mover}"),
        (count, _) => format!("tables are moved by this router, {count} now"),
    }];
    if !moves.waiting.is_empty() {
        lines.push(format!("not moved: {}", moves.waiting));
    }
    lines
}

fn instances(instances: &[proto::InstanceState], width: Option<usize>) -> Vec<String> {
    let mut table = Table::new(&[
        "instance",
        "host",
        "state",
        ">tables",
        ">queued rows",
        ">bytes",
        ">alerts",
        "version",
    ]);
    for instance in instances {
        let home = if instance.home { "*" } else { "" };
        let state = match (instance.writable, instance.readable) {
            (true, true) => "up",
            (true, false) => "not read",
            (false, true) => "not written",
            (false, false) => "down",
        };
        table.row([
            format!("{}{home}", instance.name),
            instance.host.clone(),
            state.to_owned(),
            instance.tables_owned.to_string(),
            instance.queued_rows.to_string(),
            output::bytes(instance.queued_bytes),
            instance.alerts_kept.to_string(),
            instance.server_version.clone(),
        ]);
    }
    let mut lines = table.lines_within(width);
    for instance in instances
        .iter()
        .filter(|instance| !instance.error.is_empty())
    {
        let error = instance.error.replace('\n', "\n  ");
        lines.push(output::wrap(&format!("{}: {error}", instance.name), width));
    }
    lines
}

fn feeds(feeds: &[proto::FeedState], width: Option<usize>) -> Vec<String> {
    let mut table = Table::new(&[
        "feed", "table", "key", ">tables", ">drift", ">unowned", ">columns",
    ]);
    for feed in feeds {
        table.row([
            feed.name.clone(),
            feed.table.clone(),
            format!("{} {}", feed.key_column, feed.key_type),
            feed.tables.to_string(),
            feed.drift.to_string(),
            feed.unowned.to_string(),
            feed.columns.len().to_string(),
        ]);
    }
    let mut lines = table.lines_within(width);
    for feed in feeds.iter().filter(|feed| !feed.conflicts.is_empty()) {
        let tables = feed.conflicts.join(", ");
        let line = format!("{}: two instances own {tables}: not written to", feed.name);
        lines.push(output::wrap(&line, width));
    }
    lines
}

fn as_json(state: &proto::GetStatusResponse) -> Value {
    let instance = |i: &proto::InstanceState| {
        json!({
            "name": i.name, "host": i.host, "home": i.home, "writable": i.writable,
            "readable": i.readable, "error": i.error, "tables_owned": i.tables_owned,
            "queued_rows": i.queued_rows, "queued_bytes": i.queued_bytes,
            "server_version": i.server_version, "alerts_kept": i.alerts_kept,
            "alerts_bytes": i.alerts_bytes, "alerts_oldest_seconds": i.alerts_oldest_seconds,
        })
    };
    let column =
        |c: &proto::ColumnState| json!({"name": c.name, "type": c.r#type, "merge": c.merge});
    let feed = |f: &proto::FeedState| {
        json!({
            "name": f.name, "table": f.table, "tables": f.tables, "key_column": f.key_column,
            "key_type": f.key_type, "drift": f.drift, "unowned": f.unowned,
            "conflicts": f.conflicts, "columns": f.columns.iter().map(column).collect::<Vec<_>>(),
        })
    };
    let moves = state.auto_moves.as_ref().map(|moves| {
        json!({
            "agreed_places": moves.agreed_places, "agreed_by": moves.agreed_by,
            "agreed_since": moves.agreed_since, "mover": moves.mover,
            "under_way": moves.under_way, "waiting": moves.waiting,
        })
    });
    json!({
        "auto_moves": moves, "cluster_id": state.cluster_id, "version": state.version,
        "started_at": state.started_at.as_ref().map(ToString::to_string),
        "map_fingerprint": state.map_fingerprint, "map_error": state.map_error,
        "instances": state.instances.iter().map(instance).collect::<Vec<_>>(),
        "feeds": state.feeds.iter().map(feed).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_80_columns() {
        let instance = |name: &str, error: &str| proto::InstanceState {
            name: name.into(),
            host: "orders-postgres-0.orders-postgres.production.svc.cluster.local:5432".into(),
            home: name == "db0",
            writable: error.is_empty(),
            readable: error.is_empty(),
            error: error.into(),
            tables_owned: 16,
            queued_bytes: 5_000_000,
            server_version: "15.14".into(),
            ..Default::default()
        };
        let state = proto::GetStatusResponse {
            cluster_id: "0197c6a4-0000-4000-8000-000000000000".into(),
            version: "0.1.0".into(),
            map_fingerprint: "0123456789abcdef".into(),
            instances: vec![
                instance("db0", ""),
                instance("db255", "cannot connect"),
                instance("db9", &"a long reason why ".repeat(12)),
            ],
            feeds: vec![proto::FeedState {
                name: "orders".into(),
                table: "public.orders_of_all_the_warehouses_and_shops_everywhere".into(),
                key_column: "order_id_of_the_warehouse".into(),
                key_type: "int8".into(),
                tables: 64,
                conflicts: vec!["tbl3".into()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let lines = text(&state, Some(80));
        let shown = lines.iter().flat_map(|line| line.lines());
        let longest = shown.map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{}", lines.join("\n"));
        assert!(lines.contains(&"db255: cannot connect".to_owned()));
        assert!(lines.iter().any(|line| line.contains("tbl3")));
        // A script gets all of it.
        let whole = text(&state, None).join("\n");
        assert!(whole.contains("production.svc.cluster.local:5432"));
    }
}
