//! Subscriptions that start from a time, and ones that go on after a failover.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use pgbraid_proto::v1::{self, subscribe_request::Start, subscribe_response::Event};
use pgbraid_tests::{
    AlertLog, Churn, Cluster, ClusterOptions, Layout, Router, Seen, Standby, Subscriber, raised,
    run, wait::until,
};

async fn put_rule(cluster: &Cluster, router: &Router) {
    cluster
        .put_rules(router, "feed", &[("any", "c1 > 0", "a")])
        .await;
}

async fn from_time(router: &Router, at: SystemTime) -> Result<Subscriber, tonic::Status> {
    Subscriber::open(router, Start::Time(at.into()), v1::Filter::default()).await
}

/// Alerts of all instances raised at or after a time: instance, and seq.
async fn raised_since(cluster: &Cluster, at: SystemTime) -> BTreeSet<(String, i64)> {
    let mut found = BTreeSet::new();
    for instance in 0..cluster.instances().into() {
        let name = cluster.postgres.instances()[instance].name().to_owned();
        let ask = "select seq from pgbraid.alert where raised_at >= $1";
        let rows = cluster.sql(instance).await.query(ask, &[&at]).await;
        let rows = rows.expect("the outbox can be read");
        found.extend(rows.iter().map(|row| (name.clone(), row.get(0))));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_from_a_time_gives_all_raised_since_and_little_more() {
    let cluster = Cluster::start(ClusterOptions {
        config: "[alerts]\nheartbeat = \"200ms\"\npart_time = \"500ms\"\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let layout = Layout::of(&cluster, "feed").await;
    let router = cluster.router();
    put_rule(&cluster, &router).await;
    let log = AlertLog::follow(Subscriber::now(&router).await, Seen::default());
    let churn = Churn::start(&cluster, &layout, 5).await;
    let mut times = Vec::new();
    // Some subscribe while everything is moving.
    let mut live = Vec::new();
    for round in 1..=5 {
        log.until("alerts", |seen| seen.alerts.len() > round * 300)
            .await;
        times.push(SystemTime::now());
        let at = times[times.len() / 2];
        let subscriber = from_time(&router, at).await.expect("it is taken");
        live.push((at, AlertLog::follow(subscriber, Seen::default())));
    }
    churn.stop().await;
    log.assert_complete(&cluster).await;
    let all = raised(&cluster).await;
    for at in times {
        let subscriber = from_time(&router, at).await.expect("it is taken");
        live.push((at, AlertLog::follow(subscriber, Seen::default())));
    }
    for (at, log) in live {
        let wanted = raised_since(&cluster, at).await;
        let seen = log
            .until("all raised since", |seen| {
                wanted.iter().all(|alert| seen.alerts.contains_key(alert))
            })
            .await;
        assert!(seen.alerts.values().all(|times| *times == 1));
        assert!(seen.alerts.keys().all(|alert| all.contains(alert)));
        // A transaction lasts 3 seconds and less; what others raised long before does not come.
        let early = raised_since(&cluster, at - Duration::from_secs(6)).await;
        let too_early = seen.alerts.keys().filter(|alert| !early.contains(alert));
        assert_eq!(too_early.count(), 0);
    }
    // Nothing was raised since.
    let mut subscriber = from_time(&router, SystemTime::now()).await.expect("taken");
    assert_eq!(subscriber.caught_up().await, []);
    // Before the first.
    let subscriber = from_time(&router, SystemTime::UNIX_EPOCH)
        .await
        .expect("taken");
    let log = AlertLog::follow(subscriber, Seen::default());
    log.assert_complete(&cluster).await;
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    let refused = from_time(&router, ahead).await.err().expect("refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("in the future"), "{refused}");
    command_line(&router, raised(&cluster).await.len());
    assert_eq!(router.stop(), 0);
}

fn command_line(router: &Router, all: usize) {
    let url = format!("http://{}", router.grpc);
    let tail = |from: &str| {
        let count = all.to_string();
        let arguments = ["--router", &url, "--count", &count, "--from", from];
        run(&[&["alerts", "tail"][..], &arguments].concat())
    };
    for (from, told) in [
        ("-1h", "following alerts raised since "),
        ("2020-01-01T00:00:00Z", "raised since 2020-01-01T00:00:00Z"),
        ("earliest", "from the oldest that is kept"),
    ] {
        let done = tail(from);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains(told), "{from}: {said}");
        assert!(done.status.success(), "{from}");
        let lines = String::from_utf8_lossy(&done.stdout).lines().count();
        assert_eq!(lines, all, "{from}");
    }
    for from in ["-1x", "2020-01-01", "yesterday", "2999-01-01T00:00:00Z"] {
        let done = tail(from);
        assert_eq!(
            done.status.code().map(|code| code != 0),
            Some(true),
            "{from}"
        );
        assert!(!done.stderr.is_empty(), "{from}");
    }
}

/// A standby that was behind is promoted: what it has is delivered, with a word about repeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_is_read_again_and_nothing_is_lost() {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        config: "[alerts]\nheartbeat = \"200ms\"\npart_time = \"500ms\"\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let standby = Standby::of(&cluster, 0).await;
    let feeds = [("feed".to_owned(), 16)];
    let primary = cluster.postgres.instances()[0].port();
    let hosts = format!(
        "[instances.db0]\nhosts = [\"127.0.0.1:{primary}\", \"127.0.0.1:{}\"]\n",
        standby.port()
    );
    cluster.write_map(&(cluster.map(0, &feeds) + &hosts));
    let router = cluster.router();
    put_rule(&cluster, &router).await;
    let log = AlertLog::follow(Subscriber::now(&router).await, Seen::default());
    let layout = Layout::of(&cluster, "feed").await;
    let churn = Churn::start(&cluster, &layout, 5).await;
    let early = log.until("alerts", |seen| seen.alerts.len() > 300).await;
    churn.stop().await;
    log.assert_complete(&cluster).await;
    let here = raised(&cluster).await;
    let sql = standby.sql().await;
    let count = "select count(*) from pgbraid.alert";
    until("the standby to have all", || async {
        let there: i64 = sql.query_one(count, &[]).await.expect("it reads").get(0);
        (there == here.len() as i64).then_some(())
    })
    .await;
    // A token of before, too: of a subscriber that comes back to another router.
    let old = log.seen();
    cluster.postgres.kill9(0).await.expect("db0 can be killed");
    standby.promote(&cluster, 0).await;
    let insert = "insert into public.feed (id, c1) select g, 1 from generate_series(-50, -1) g";
    until("the standby to be writable", || async {
        sql.execute(insert, &[]).await.ok()
    })
    .await;
    let rows = sql.query("select seq from pgbraid.alert", &[]).await;
    let rows = rows.expect("the outbox can be read");
    let all: BTreeSet<_> = rows
        .iter()
        .map(|row| ("db0".to_owned(), row.get::<_, i64>(0)))
        .collect();
    assert_eq!(all.len(), here.len() + 50);
    let complete = |seen: &Seen| all.iter().all(|alert| seen.alerts.contains_key(alert));
    let seen = log.until("all alerts of the new primary", complete).await;
    assert_eq!(seen.rewound, ["db0"]);
    assert_eq!(seen.alerts.len(), all.len(), "none was invented");
    router.signal(Signal::SIGKILL);
    let router = cluster.router();
    for before in [early, old] {
        let start = Start::Token(before.token.clone());
        let subscriber = Subscriber::open(&router, start, v1::Filter::default()).await;
        let log = AlertLog::follow(subscriber.expect("the token is taken"), before);
        let seen = log.until("all alerts of the new primary", complete).await;
        assert_eq!(seen.rewound, ["db0"]);
    }
    // A new token goes on there as ever.
    let mut subscriber = Subscriber::now(&router).await;
    let token = subscriber.token.clone();
    sql.execute("insert into public.feed (id, c1) values (-60, 1)", &[])
        .await
        .expect("it is written");
    assert_eq!(subscriber.alerts(1).await.len(), 1);
    let start = Start::Token(token);
    let subscriber = Subscriber::open(&router, start, v1::Filter::default()).await;
    let mut subscriber = subscriber.expect("the token is taken");
    let mut alerts = 0;
    while alerts == 0 {
        match subscriber.next().await.expect("the stream goes on") {
            Event::Alert(_) => alerts += 1,
            Event::Rewound(again) => panic!("no need to read again: {again:?}"),
            _ => {}
        }
    }
    assert_eq!(router.stop(), 0);
}
