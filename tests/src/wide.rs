//! A feed with a column of each type, names that need quoting, and low limits.

use crate::{Cluster, ClusterOptions, Router};

/// A column's name: as long as PostgreSQL takes it, 63 bytes, and not ASCII.
pub fn long_name() -> String {
    format!("{}é", "n".repeat(61))
}

/// Starts a cluster with such a feed, and a router.
pub async fn start() -> (Cluster, Router) {
    let schema = format!(
        r#"create schema "Orders Wide";
        create type public.mood as enum ('good', 'bad');
        create table "Orders Wide"."T x" ("Key id" int8 primary key, c1 int, small int2, big int8,
            f4 float4, f8 float8, price numeric(10,2), any_num numeric, note text, code varchar(5),
            raw bytea, uid uuid, day date, at_time time, ts timestamp, at timestamptz,
            took interval, doc json, docb jsonb, tags text[], nums int[], mood public.mood,
            addr inet, yes bool, "{}" int, twice int generated always as (c1 * 2) stored,
            must int not null default 1) partition by hash ("Key id");"#,
        long_name()
    );
    let cluster = Cluster::start(ClusterOptions {
        schema,
        feeds: vec![("wide".into(), 16)],
        config: "[ingest]\nmax_request_rows = 200\nmax_request_bytes = \"64KiB\"\n\
                 [grpc]\nmax_message_bytes = \"128KiB\"\n\
                 [feeds.wide]\ntable = '\"Orders Wide\".\"T x\"'\n"
            .into(),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    (cluster, router)
}

/// Counts its rows.
pub async fn count(cluster: &Cluster, condition: &str) -> i64 {
    cluster
        .sum(&format!(
            r#"select count(*) from "Orders Wide"."T x" where {condition}"#
        ))
        .await
}
