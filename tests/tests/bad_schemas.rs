//! Parents that can be no feed, and what `pgbraid migrate` says about them.

use pgbraid_tests::{Cluster, ClusterOptions, run};

#[tokio::test]
async fn a_parent_that_can_be_no_feed_fails_migrate() {
    let cases = [
        (
            "create table feed (id int8, c1 int) partition by hash (id)",
            "no primary key on exactly",
        ),
        (
            "create table feed (id int8, c1 int, primary key (id, c1)) partition by hash (id)",
            "add `primary key (\"id\")`",
        ),
        (
            "create table feed (id int8 primary key, c1 int)",
            "not partitioned by hash",
        ),
        (
            "create table feed (id int8 primary key, c1 int) partition by range (id)",
            "not partitioned by hash",
        ),
        (
            "create table feed (a int8, b int8, primary key (a, b)) partition by hash (a, b)",
            "by 2 columns",
        ),
        (
            "create table feed (id int primary key) partition by hash (id)",
            "int8, uuid or text",
        ),
        (
            "create table feeds (id int8 primary key) partition by hash (id)",
            "there is no table",
        ),
        (
            "create tabel feed (id int8 primary key) partition by hash (id)",
            "schema.sql line 1",
        ),
    ];
    let options = |schema: &str| ClusterOptions {
        instances: 1,
        schema: schema.into(),
        ..ClusterOptions::default()
    };
    for (schema, part) in cases {
        let cluster = Cluster::start_bare(&options(schema)).await;
        let config = cluster.config();
        let output = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{schema}:\n{message}");
        assert!(
            message.contains(part),
            "{schema}: no {part:?} in\n{message}"
        );
    }
}
