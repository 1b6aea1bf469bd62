//! HTTP: metrics, health, and a page that shows the state.

use std::{fmt::Write as _, future::Future, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::{grpc, state::Shared};

#[derive(Clone)]
struct Http {
    shared: Arc<Shared>,
    metrics: PrometheusHandle,
}

pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    metrics: PrometheusHandle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/", get(page))
        .route("/metrics", get(exposition))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Http { shared, metrics });
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown)
        .await
}

async fn exposition(State(http): State<Http>) -> impl IntoResponse {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    let groups = http.shared.groups.set();
    let there = |name: &str| groups.groups.iter().any(|row| row.spec.name == name);
    let text = crate::metrics::without_gone_groups(&http.metrics.render(), there);
    (kind, text)
}

async fn ready(State(http): State<Http>) -> impl IntoResponse {
    if http.shared.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c2733}\
h1{font-size:1.3rem}h2{font-size:1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #dde3ea;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}.ok{color:#17803d}.bad{color:#b42318}\
small{color:#5b6b7b}@media(prefers-color-scheme:dark){body{background:#10161d;color:#dbe4ee}th,td{border-color:#2a3642}}";

/// The state, as a page that reloads itself.
async fn page(State(http): State<Http>) -> Html<String> {
    let state = grpc::current(&http.shared);
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=3>\
         <meta name=viewport content=\"width=device-width\"><title>pgbraid</title><style>{STYLE}</style>\
         <h1>pgbraid</h1><small>version {} · cluster {} · shard map {} · <a href=/metrics>metrics</a></small>",
        escape(&state.version),
        escape(&state.cluster_id),
        escape(&state.map_fingerprint)
    );
    if !state.map_error.is_empty() {
        let _ = write!(
            html,
            "<p class=bad>The shard map's file is refused, the old one stays in force:</p><pre>{}</pre>",
            escape(&state.map_error)
        );
    }
    if let Some(moves) = state.auto_moves.as_ref() {
        let (class, text) = match (moves.waiting.as_str(), moves.mover.as_str()) {
            ("", "") => ("", "no table has to be moved".to_owned()),
            ("", mover) => ("", format!("{mover} moves tables")),
            (waiting, _) => ("bad", format!("tables are not moved: {waiting}")),
        };
        let _ = write!(html, "<p class={class}>{}</p>", escape(&text));
    }
    html.push_str("<h2>Instances</h2><table><tr><th>Name<th>Address<th>PostgreSQL<th>State<th>Tables<th>Rows queued<th>Bytes queued</tr>");
    for one in &state.instances {
        let (class, text) = match (one.writable, one.readable) {
            (true, true) => ("ok", "writing and reading".to_owned()),
            (true, false) if one.error.is_empty() => ("", "connecting to its alerts".to_owned()),
            (true, false) => ("bad", format!("alerts can't be read: {}", one.error)),
            (false, _) => ("bad", format!("can't be written: {}", one.error)),
        };
        let _ = write!(
            html,
            "<tr><td>{}{}<td>{}<td>{}<td class={class}>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
            escape(&one.name),
            if one.home { " <small>home</small>" } else { "" },
            escape(&one.host),
            escape(&one.server_version),
            escape(&text),
            one.tables_owned,
            one.queued_rows,
            one.queued_bytes
        );
    }
    html.push_str("</table><h2>Feeds</h2><table><tr><th>Feed<th>Table<th>Key<th>Columns<th>Tables<th>Elsewhere than wanted<th>Without owner<th>Owned twice</tr>");
    for feed in &state.feeds {
        let _ = write!(
            html,
            "<tr><td>{}<td>{}<td>{} <small>{}</small><td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td>{}</tr>",
            escape(&feed.name),
            escape(&feed.table),
            escape(&feed.key_column),
            escape(&feed.key_type),
            feed.columns.len(),
            feed.tables,
            feed.drift,
            feed.unowned,
            escape(&feed.conflicts.join(", "))
        );
    }
    html.push_str("</table>");
    Html(html)
}
