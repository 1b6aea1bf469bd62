//! Where rules begin and end: alerts that resolve, edits and removals while rows match.

use std::time::{Duration, SystemTime};

use pgbraid_proto::v1::{self, subscribe_response::Event};
use pgbraid_tests::{
    Cluster, ClusterOptions, Refusal, Router, Subscriber, Writer,
    rows::{self, int, null},
    rules::{Outbox, cooling, edge, put, resolving},
    run,
};

async fn start(instances: u16) -> (Cluster, Router) {
    let cluster = Cluster::start(ClusterOptions {
        instances,
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    (cluster, router)
}

fn one(key: i64, c1: v1::Value) -> v1::WriteRequest {
    rows::rows("feed", &["c1"], [(int(key), vec![c1])])
}

/// By the command line, through the router, to a subscriber and to `alerts tail`.
#[tokio::test]
async fn an_end_reaches_subscribers_on_the_same_channel() {
    let (_cluster, router) = start(2).await;
    let address = format!("http://{}", router.grpc);
    let pgbraid = |arguments: &[&str]| {
        let output = run(&[arguments, &["--router", &address]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text, said)
    };
    let named = [
        "rules", "put", "high", "--feed", "feed", "--when", "c1 > 10",
    ];
    let asked = ["--channel", "ch", "--reason", "too high", "--resolve"];
    let (done, text, said) = pgbraid(&[&named[..], &asked].concat());
    assert!(done, "{text}{said}");
    let mut subscriber = Subscriber::now(&router).await;
    let mut writer = Writer::open(&router).await;
    for request in [
        one(1, int(11)),
        one(1, int(12)),
        // NULL does not match: the row stops to.
        one(1, null()),
        one(2, int(20)),
        rows::deletes("feed", [int(2)]),
        // Never matched: its delete is nothing.
        one(3, int(3)),
        rows::deletes("feed", [int(3)]),
    ] {
        writer.write(request).await;
    }
    let events = subscriber.until(SystemTime::now()).await;
    let told: Vec<_> = events
        .into_iter()
        .map(|event| match event {
            Event::Alert(alert) => {
                assert_eq!(
                    (alert.channel.as_str(), alert.reason.as_str()),
                    ("ch", "too high")
                );
                assert_eq!((alert.rule.as_str(), alert.rule_version), ("high", 1));
                let row: serde_json::Value = serde_json::from_str(&alert.row).expect("JSON");
                (alert.key, row["c1"].as_i64(), alert.resolved)
            }
            other => panic!("unexpected: {other:?}"),
        })
        .collect();
    let of = |key: &str| -> Vec<(Option<i64>, bool)> {
        let mine = told.iter().filter(|one| one.0 == key);
        mine.map(|one| (one.1, one.2)).collect()
    };
    assert_eq!(of("1"), [(Some(11), false), (None, true)]);
    // Of a deleted row its last state is told.
    assert_eq!(of("2"), [(Some(20), false), (Some(20), true)]);
    assert_eq!(told.len(), 4, "{told:?}");
}

#[tokio::test]
async fn rules_are_listed_with_their_edges_and_read_from_files() {
    let (cluster, router) = start(1).await;
    let address = format!("http://{}", router.grpc);
    let file = cluster.path("rules.toml");
    let text = "[[rule]]\nname = \"a\"\nfeed = \"feed\"\nwhen = \"c1 > 1\"\nchannel = \"c\"\n\
                reason = \"r\"\nresolve = true\ncooldown = \"90s\"\n";
    std::fs::write(&file, text).expect("the file is written");
    let path = file.to_str().expect("UTF-8");
    for changed in ["put: a", "nothing to change"] {
        let output = run(&["rules", "put", "-f", path, "--router", &address]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains(changed),
            "{output:?}"
        );
    }
    let output = run(&["rules", "list", "--router", &address]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.starts_with("a (version 1, edge) on feed to c, resolves, cool-down 90s\n"),
        "{said}"
    );
    let output = run(&["rules", "list", "--json", "--router", &address]);
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(listed["rules"][0]["resolve"], true);
    assert_eq!(listed["rules"][0]["cooldown"], "90s");
    // Another cool-down is another rule.
    std::fs::write(&file, text.replace("90s", "2m")).expect("the file is written");
    let output = run(&["rules", "put", "-f", path, "--json", "--router", &address]);
    let put: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(put["rules"][0]["version"], 2);
    assert_eq!(put["rules"][0]["cooldown"], "2m");
}

#[tokio::test]
async fn edges_that_make_no_sense_are_refused() {
    let (_cluster, router) = start(1).await;
    let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let level = v1::RuleMode::Level.into();
    let cases = [
        (
            v1::Rule {
                mode: level,
                ..resolving("r", "c1 > 1")
            },
            "resolve needs mode",
        ),
        (resolving("r", "old.c1 < c1"), "mentions old."),
        (
            v1::Rule {
                cooldown: duration(-1, 0),
                ..edge("r", "c1 > 1")
            },
            "negative",
        ),
        (
            v1::Rule {
                cooldown: duration(0, 1),
                ..edge("r", "c1 > 1")
            },
            "whole milliseconds",
        ),
        (
            v1::Rule {
                cooldown: duration(400 * 86400, 0),
                ..edge("r", "c1 > 1")
            },
            "at most 366 days",
        ),
    ];
    for (rule, part) in cases {
        let status = put(&router, [rule]).await.expect_err(part);
        let refusal = Refusal::from(&status);
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
        assert!(
            refusal.violations.iter().any(|one| one.1.contains(part)),
            "{part}: {refusal:?}"
        );
    }
}

/// An edit, or a new rule, says nothing of rows that nobody writes. The next write compares the
/// old and the new row by the text that is in force then.
#[tokio::test]
async fn an_edited_rule_speaks_of_rows_that_are_written() {
    let (cluster, router) = start(1).await;
    let sql = cluster.sql(0).await;
    let mut outbox = Outbox::new();
    sql.batch_execute("insert into feed (id, c1) values (1, 50), (2, 5), (3, 500), (4, 50)")
        .await
        .expect("rows are stored");
    // New: row 1, 3 and 4 match already.
    put(&router, [resolving("high", "c1 > 10")])
        .await
        .expect("the rule is taken");
    assert!(outbox.next(&sql).await.is_empty());
    sql.batch_execute("update feed set c2 = 1; update feed set c1 = 11 where id = 2")
        .await
        .expect("rows are written");
    let told = outbox.next(&sql).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].key.as_str(), told[0].version), ("2", 1));
    // Edited: 3 matched and does, 1, 2 and 4 matched and do not any more. Nobody writes them.
    put(&router, [resolving("high", "c1 > 100")])
        .await
        .expect("the rule is taken");
    assert!(outbox.next(&sql).await.is_empty());
    // By the new text 2 never matched, 1 starts to, 3 goes on and 4 is nothing.
    sql.batch_execute(
        "update feed set c1 = 1 where id = 2; update feed set c1 = 101 where id = 1; \
         update feed set c2 = 2 where id = 3; delete from feed where id = 4",
    )
    .await
    .expect("rows are written");
    let told = outbox.next(&sql).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].key.as_str(), told[0].version), ("1", 2));
    // The same again is no edit: the version stays, and so does what 1 and 3 are.
    let answer = put(&router, [resolving("high", "c1 > 100")])
        .await
        .expect("it is taken");
    assert_eq!((answer.changed.len(), answer.rules[0].version), (0, 2));
    sql.batch_execute("update feed set c1 = 9 where id in (1, 3)")
        .await
        .expect("rows are written");
    let told = outbox.next(&sql).await;
    assert!(
        told.iter().all(|one| one.resolved && one.version == 2),
        "{told:?}"
    );
    assert_eq!(told.len(), 2, "{told:?}");
}

/// Removing a rule resolves nothing, whether rows match or not, and ends its cool-downs.
#[tokio::test]
async fn a_removed_rule_is_silent() {
    let (cluster, router) = start(1).await;
    let sql = cluster.sql(0).await;
    let mut outbox = Outbox::new();
    let rules = || {
        [
            resolving("high", "c1 > 10"),
            cooling(edge("rare", "c1 > 10")),
        ]
    };
    put(&router, rules()).await.expect("the rules are taken");
    sql.batch_execute("insert into feed (id, c1) values (1, 50)")
        .await
        .expect("a row is stored");
    assert_eq!(outbox.lines(&sql).await, ["high 1 50", "rare 1 50"]);
    for name in ["high", "rare"] {
        let request = v1::RemoveRuleRequest {
            name: name.into(),
            expected_version: None,
        };
        rows::admin(&router)
            .await
            .remove_rule(request)
            .await
            .expect("it is removed");
    }
    sql.batch_execute("update feed set c1 = 1; delete from feed")
        .await
        .expect("rows are written");
    assert!(outbox.next(&sql).await.is_empty());
    let left = cluster.sum("select count(*) from pgbraid.cooldown").await;
    assert_eq!(left, 0, "cool-downs of a removed rule");
    let triggers = "select count(*) from pg_trigger where tgname like 'pgbraid_rules%'";
    assert_eq!(cluster.sum(triggers).await, 0);
    // A rule of that name is a new one.
    put(&router, rules()).await.expect("the rules are taken");
    sql.batch_execute("insert into feed (id, c1) values (1, 50)")
        .await
        .expect("a row is stored");
    assert_eq!(outbox.lines(&sql).await, ["high 1 50", "rare 1 50"]);
}

/// What is raised while a rule is edited over and over is whole: each row by one text or another.
#[tokio::test]
async fn edits_under_load_tear_nothing() {
    let (cluster, router) = start(1).await;
    put(&router, [resolving("high", "c1 > 10")])
        .await
        .expect("the rule is taken");
    let sql = cluster.sql(0).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let writes = async {
        let mut written = 0_i64;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            for c1 in [50, 5] {
                let write = "insert into feed (id, c1) values (1, $1) \
                             on conflict (id) do update set c1 = excluded.c1";
                sql.execute(write, &[&c1])
                    .await
                    .expect("the row is written");
            }
            written += 1;
        }
        written
    };
    let edits = async {
        for n in 0..10 {
            // All of them hold for 50 and not for 5.
            let text = format!("c1 > {}", 11 + n);
            put(&router, [resolving("high", &text)])
                .await
                .expect("the edit is taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(writes, edits);
    let told = Outbox::new().next(&cluster.sql(0).await).await;
    assert_eq!(told.len() as i64, written * 2, "each start and each end");
    for pair in told.chunks(2) {
        assert_eq!(
            (pair[0].resolved, pair[1].resolved),
            (false, true),
            "{pair:?}"
        );
    }
    assert!(told.last().is_some_and(|last| last.version > 1));
}
