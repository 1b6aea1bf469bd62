//! What a router shows of itself: metrics, health, the page, reflection.

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Subscriber, Writer,
    rows::{self, int},
    wait::until,
};

/// Every metric that README promises, with a label of each that has one.
const METRICS: &[(&str, &str)] = &[
    ("pgbraid_rows_total", "outcome=\"committed\""),
    ("pgbraid_rows_total", "outcome=\"invalid\""),
    ("pgbraid_batches_total", "target=\"parent\""),
    ("pgbraid_queue_rows", "instance=\"db1\""),
    ("pgbraid_queue_bytes", "instance=\"db1\""),
    ("pgbraid_rows_merged_total", "instance=\"db0\""),
    ("pgbraid_rows_deferred_total", "instance=\"db0\""),
    ("pgbraid_rows_expired_total", ""),
    ("pgbraid_retries_total", "class=\"40\""),
    ("pgbraid_poison_splits_total", "instance=\"db0\""),
    ("pgbraid_instance_writable", "instance=\"db0\""),
    ("pgbraid_instance_readable", "instance=\"db0\""),
    ("pgbraid_pool_connections", "pool=\"writers\""),
    ("pgbraid_cursor_lag_seconds", "instance=\"db0\""),
    ("pgbraid_listen_reconnects_total", "instance=\"db0\""),
    ("pgbraid_gaps_total", "instance=\"db0\""),
    ("pgbraid_notification_queue_usage", "instance=\"db0\""),
    ("pgbraid_subscribers", ""),
    ("pgbraid_alert_buffered_bytes", "instance=\"db0\""),
    ("pgbraid_change_subscribers", ""),
    ("pgbraid_changes_read_total", "instance=\"db1\""),
    ("pgbraid_changes_delivered_total", ""),
    ("pgbraid_change_resets_total", "cause=\"slow\""),
    ("pgbraid_tables_owned", "instance=\"db1\""),
    ("pgbraid_map_drift_tables", "feed=\"feed\""),
    ("pgbraid_map_unowned_tables", "feed=\"feed\""),
    ("pgbraid_map_conflict_tables", "feed=\"feed\""),
    ("pgbraid_map_reloads_total", "result=\"refused\""),
    ("pgbraid_map_reload_failed", ""),
    ("pgbraid_map_info", "fingerprint="),
    ("pgbraid_build_info", "version="),
];

#[tokio::test]
async fn metrics_are_there_from_the_start_and_count() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    until("every metric", || async {
        let (_, text) = router.get("/metrics");
        METRICS
            .iter()
            .all(|(name, label)| {
                text.lines()
                    .any(|line| line.starts_with(name) && line.contains(label))
            })
            .then_some(())
    })
    .await;
    assert_eq!(router.metric("pgbraid_tables_owned", &[]), 16.0);
    cluster
        .put_rules(&router, "feed", &[("big", "c2 > 10", "channel_1")])
        .await;
    let mut subscriber = Subscriber::now(&router).await;
    let mut writer = Writer::open(&router).await;
    let all = (0..100).map(|key| (int(key), vec![int(key)]));
    writer.write(rows::rows("feed", &["c2"], all)).await;
    writer
        .send(rows::rows("feed", &["c2"], [(int(1), vec![int(1 << 40)])]))
        .await
        .unwrap();
    let (_, refused) = writer.answer().await.unwrap();
    assert_eq!(refused.refused.len(), 1);
    assert_eq!(subscriber.alerts(89).await.len(), 89);
    assert_eq!(
        router.metric("pgbraid_rows_total", &["outcome=\"committed\""]),
        100.0
    );
    assert_eq!(
        router.metric("pgbraid_rows_total", &["outcome=\"invalid\""]),
        1.0
    );
    assert_eq!(router.metric("pgbraid_alerts_read_total", &[]), 89.0);
    assert_eq!(router.metric("pgbraid_alerts_delivered_total", &[]), 89.0);
    assert_eq!(router.metric("pgbraid_ack_seconds_count", &[]), 2.0);
    assert_eq!(router.metric("pgbraid_subscribers", &[]), 1.0);
}

#[tokio::test]
async fn health_and_page_answer_and_show_trouble() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    assert_eq!(router.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(router.get("/readyz"), (200, "ready\n".into()));
    until("the page to show two instances at work", || async {
        let (status, page) = router.get("/");
        assert_eq!(status, 200);
        (page.matches("writing and reading").count() == 2).then_some(())
    })
    .await;
    cluster
        .postgres
        .stop(1, pgbraid_devcluster::StopMode::Fast)
        .await
        .unwrap();
    until("the page to show that db1 is down", || async {
        router.get("/").1.contains("can't be").then_some(())
    })
    .await;
    assert_eq!(router.get("/readyz").0, 200, "the others still work");
    let state = rows::admin(&router)
        .await
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(state.instances.len(), 2);
    assert_eq!(state.feeds[0].columns.len(), 12);
    assert_eq!(state.feeds[0].key_type, "int8");
    let located = rows::admin(&router)
        .await
        .locate(v1::LocateRequest {
            feed: "feed".into(),
            key: "-7".into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert!(located.table.starts_with("tbl"), "{located:?}");
    assert_eq!(
        located.sql,
        "select * from \"public\".\"feed\" where \"id\" = -7"
    );
}
