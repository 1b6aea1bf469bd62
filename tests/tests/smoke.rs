//! The way of one row, from a request to its alert.

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Subscriber, Writer,
    rows::{self, int, int32s, int64s},
};

#[tokio::test]
async fn two_partial_writes_merge_and_raise_one_alert() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    cluster
        .put_rules(
            &router,
            "feed",
            &[("overflow", "c2 > 9999 and c3 = 99", "channel_1")],
        )
        .await;
    let mut subscriber = Subscriber::now(&router).await;
    let mut writer = Writer::open(&router).await;
    writer
        .write(rows::rows(
            "feed",
            &["c1", "c2"],
            [(int(2), vec![int(2), int(30001)])],
        ))
        .await;
    writer
        .write(rows::columnar(
            "feed",
            int64s("id", &[2]),
            vec![int32s("c3", &[99]), int32s("c4", &[290_001])],
        ))
        .await;
    let alert = subscriber.alerts(1).await.remove(0);
    assert_eq!(alert.rule, "overflow");
    assert_eq!(alert.channel, "channel_1");
    assert_eq!(alert.key, "2");
    let row: serde_json::Value = serde_json::from_str(&alert.row).unwrap();
    assert_eq!(row["c1"], 2);
    assert_eq!(row["c4"], 290_001);
    assert_eq!(row["c5"], serde_json::Value::Null);
    let read = rows::reads(&router)
        .await
        .get(v1::GetRequest {
            feed: "feed".into(),
            keys: Some(int64s("", &[2, 3])),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    let stored: serde_json::Value = serde_json::from_str(&read.rows[0].json).unwrap();
    assert_eq!(stored, row);
    assert!(!read.rows[1].found);
    assert_eq!(router.stop(), 0);
}
