//! Subscriptions that can't be right, and what is said about them.

use pgbraid_proto::v1::{self, Filter, subscribe_request::Start};
use pgbraid_tests::{
    Cluster, ClusterOptions, Refusal, Subscriber, Writer,
    rows::{self, int},
};

#[tokio::test]
async fn a_subscription_to_nothing_is_refused() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    cluster
        .put_rules(&router, "feed", &[("one", "c1 > 0", "a")])
        .await;
    let other = Cluster::start(ClusterOptions::default()).await;
    let other_router = other.router();
    let foreign = Subscriber::now(&other_router).await.token;
    let own = Subscriber::now(&router).await.token;
    assert_ne!(own, foreign);
    let now = || Start::Now(v1::Now {});
    let token = |token: &str| Start::Token(token.into());
    let flipped: String = own
        .char_indices()
        .map(|(at, c)| {
            if at == 20 {
                if c == 'A' { 'B' } else { 'A' }
            } else {
                c
            }
        })
        .collect();
    let none = Filter::default;
    let cases = [
        (
            "UNKNOWN_RULE",
            "filter.rules",
            "\"two\"",
            now(),
            Filter {
                rules: vec!["one".into(), "two".into()],
                ..none()
            },
        ),
        (
            "UNKNOWN_FEED",
            "filter.feeds",
            "\"feet\"",
            now(),
            Filter {
                feeds: vec!["feet".into()],
                ..none()
            },
        ),
        (
            "UNKNOWN_INSTANCE",
            "filter.instances",
            "db7",
            now(),
            Filter {
                instances: vec!["db7".into()],
                ..none()
            },
        ),
        (
            "UNKNOWN_INSTANCE",
            "filter.instances",
            "pg",
            now(),
            Filter {
                instances: vec!["pg".into()],
                ..none()
            },
        ),
        ("BAD_TOKEN", "token", "token", token(""), none()),
        ("BAD_TOKEN", "token", "token", token("garbage"), none()),
        (
            "BAD_TOKEN",
            "token",
            "token",
            token(&own[..own.len() - 3]),
            none(),
        ),
        ("BAD_TOKEN", "token", "token", token(&flipped), none()),
        (
            "BAD_TOKEN",
            "token",
            "token",
            token(&own.repeat(1000)),
            none(),
        ),
        (
            "BAD_TOKEN",
            "token",
            "another cluster",
            token(&foreign),
            none(),
        ),
    ];
    for (number, (reason, field, part, start, filter)) in cases.into_iter().enumerate() {
        let opened = Subscriber::open(&router, start, filter).await;
        let case = format!("case {number}");
        let status = opened.err().unwrap_or_else(|| panic!("{case} was taken"));
        Refusal::from(&status).assert_bad_field(&case, reason, field, part);
    }
    let right = Filter {
        rules: vec!["one".into()],
        ..none()
    };
    let mut subscriber = Subscriber::open(&router, token(&own), right)
        .await
        .expect("it is right");
    let mut writer = Writer::open(&router).await;
    writer
        .write(rows::rows("feed", &["c1"], [(int(1), vec![int(1)])]))
        .await;
    assert_eq!(subscriber.alerts(1).await[0].rule, "one");
}
