//! A subscriber that reads nothing for a while: it costs the router next to nothing, changes nothing
//! for the others, and has everything when it reads on.

use std::collections::BTreeSet;

use pgbraid_proto::v1::{Filter, subscribe_response::Event};
use pgbraid_tests::{AlertLog, Cluster, ClusterOptions, Seen, Subscriber, raised};

/// Far more than a ring (8192 alerts, 4 MiB) and a connection's window hold.
const ROUNDS: usize = 10;
const ALERTS: i64 = 6000;
/// What the router may take more while it waits: rings of two instances and a window.
const MEMORY: u64 = 100 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_costs_nothing_and_catches_up_exactly() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let mut stopped = Subscriber::now(&router).await;
    let log = AlertLog::follow(Subscriber::now(&router).await, Seen::default());
    let before = router.resident_bytes();
    for round in 0..ROUNDS {
        for instance in 0..2 {
            cluster.raise(instance, ALERTS, 1000).await;
        }
        let all = (round + 1) * 2 * usize::try_from(ALERTS).expect("a count");
        // Who reads has everything meanwhile.
        log.until("the other subscriber to have all", |seen| {
            seen.alerts.len() == all
        })
        .await;
    }
    let more = router.resident_bytes().saturating_sub(before);
    assert!(more < MEMORY, "the router has taken {more} bytes more");
    let raised = raised(&cluster).await;
    let mut seen = BTreeSet::new();
    while seen.len() < raised.len() {
        if let Event::Alert(alert) = stopped.next().await.expect("the stream goes on") {
            let id = (alert.instance, alert.seq);
            assert!(seen.insert(id.clone()), "{id:?} came twice");
        }
    }
    assert_eq!(seen, raised);
    // Nothing was dropped for its sake either: one that starts from the oldest has the same.
    let start = pgbraid_proto::v1::subscribe_request::Start::Earliest(Default::default());
    let late = Subscriber::open(&router, start, Filter::default()).await;
    let late = AlertLog::follow(late.expect("subscribed"), Seen::default());
    late.assert_complete(&cluster).await;
}
