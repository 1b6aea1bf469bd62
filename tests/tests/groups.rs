//! Consumer groups: who gets what, and what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgbraid_proto::v1::{self, position, settle_result::Outcome, settlement::How};
use pgbraid_tests::{
    Cluster, ClusterOptions, Member, Router,
    member::{ack, alert_id, group},
    rows,
    wait::until,
};
use tokio::task::JoinSet;
use tonic::Code;

fn for_ms<T: TryFrom<Duration>>(ms: u64) -> Option<T> {
    T::try_from(Duration::from_millis(ms)).ok()
}

fn nack(delay_ms: u64, reason: &str) -> How {
    How::Nack(v1::Nack {
        delay: for_ms(delay_ms),
        reason: reason.into(),
    })
}

async fn state(router: &Router, name: &str) -> v1::GroupState {
    let request = v1::ListGroupsRequest { name: name.into() };
    let answer = rows::alerts(router).await.list_groups(request).await;
    let mut groups = answer.expect("groups are listed").into_inner().groups;
    groups.pop().expect("the group is there")
}

async fn total(router: &Router, name: &str, what: fn(&v1::GroupInstance) -> u64) -> u64 {
    state(router, name).await.instances.iter().map(what).sum()
}

async fn letters(router: &Router, name: &str) -> Vec<v1::DeadLetter> {
    let request = v1::ListDeadLettersRequest {
        group: name.into(),
        ..Default::default()
    };
    let answer = rows::alerts(router).await.list_dead_letters(request).await;
    answer.expect("dead letters").into_inner().dead_letters
}

fn ids(deliveries: &[v1::Delivery]) -> Vec<String> {
    deliveries.iter().map(|one| one.id.clone()).collect()
}

fn assert_settled(results: &[v1::SettleResult]) {
    for result in results {
        assert_eq!(result.outcome(), Outcome::Settled, "{result:?}");
    }
}

/// Which alerts were acked; each may be once.
type Done = Arc<Mutex<BTreeSet<(String, i64)>>>;

/// Takes and acks, for ever.
async fn work(mut member: Member, done: Done) {
    loop {
        let delivery = member.next().await.expect("a delivery");
        let id = alert_id(&delivery);
        assert_eq!(delivery.delivery, 1);
        assert_settled(&member.settle(vec![delivery.id], ack()).await);
        let fresh = done.lock().expect("no panic").insert(id.clone());
        assert!(fresh, "{id:?} came twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_two_routers_share_alerts_and_each_comes_once() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let (one, two) = (cluster.router(), cluster.router());
    for instance in 0..2 {
        cluster.raise(instance, 100, 10).await;
    }
    cluster.put_group(&one, group("g")).await;
    let done = Done::default();
    let mut working = JoinSet::new();
    for (router, name) in [(&one, "a"), (&one, "b"), (&two, "c"), (&two, "d")] {
        let member = Member::join(router, "g", name, 10).await.expect("joined");
        working.spawn(work(member, done.clone()));
    }
    until("all to be acked", || async {
        (done.lock().expect("no panic").len() == 200).then_some(())
    })
    .await;
    working.shutdown().await;
    let left = total(&one, "g", |at| at.lag_alerts + at.in_flight + at.delayed).await;
    assert_eq!(left, 0);
    cluster.raise(1, 1, 1).await;
    let mut late = Member::join(&two, "g", "late", 1).await.expect("joined");
    let delivery = late.next().await.expect("the new one");
    assert_eq!(alert_id(&delivery), ("db1".into(), 101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_does_not_ack_goes_to_another() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    cluster.raise(0, 4, 10).await;
    let settings = v1::Group {
        visibility_timeout: for_ms(60_000),
        ..group("g")
    };
    cluster.put_group(&router, settings).await;
    let mut leaver = Member::join(&router, "g", "leaver", 10)
        .await
        .expect("joined");
    let first = leaver.take(4).await;
    assert_settled(&leaver.settle(ids(&first[..1]), ack()).await);
    assert_settled(&leaver.settle(ids(&first[1..2]), nack(0, "not now")).await);
    // It comes again to the same member, since there is no other.
    let again = leaver.take(1).await.remove(0);
    assert_eq!((alert_id(&again), again.delivery), (alert_id(&first[1]), 2));
    leaver.leave().await;
    // Long before the visibility timeout: leaving gives back, and nobody has tried these.
    let mut other = Member::join(&router, "g", "other", 10)
        .await
        .expect("joined");
    let taken = other.take(3).await;
    let deliveries: BTreeMap<i64, u32> = taken
        .iter()
        .map(|one| (alert_id(one).1, one.delivery))
        .collect();
    assert_eq!(deliveries, BTreeMap::from([(2, 2), (3, 1), (4, 1)]));
    // Old ids are stale, and harm nothing.
    let stale = other.settle(ids(&first[2..]), ack()).await;
    assert!(
        stale.iter().all(|one| one.outcome() == Outcome::Stale),
        "{stale:?}"
    );
    assert_settled(&other.settle(ids(&taken), ack()).await);
    let twice = other.settle(ids(&taken), ack()).await;
    assert!(
        twice.iter().all(|one| one.outcome() == Outcome::Stale),
        "{twice:?}"
    );
    let bad = other.settle(vec!["x!".into()], ack()).await;
    assert_eq!(bad[0].outcome(), Outcome::Invalid);
    assert_eq!(
        total(&router, "g", |at| at.in_flight + at.delayed + at.dead).await,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_routers_deliveries_come_back_after_their_time() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let (one, two) = (cluster.router(), cluster.router());
    cluster.raise(0, 20, 10).await;
    let settings = v1::Group {
        visibility_timeout: for_ms(1500),
        ..group("g")
    };
    cluster.put_group(&one, settings).await;
    let mut first = Member::join(&one, "g", "first", 20).await.expect("joined");
    let taken = first.take(20).await;
    let claimed = Instant::now();
    // What is extended stays away from others for longer.
    let extend = How::Extend(v1::Extend { by: for_ms(60_000) });
    assert_settled(&first.settle(ids(&taken[..5]), extend).await);
    one.signal(Signal::SIGKILL);
    let mut second = Member::join(&two, "g", "second", 20).await.expect("joined");
    let again = second.take(15).await;
    assert!(
        claimed.elapsed() >= Duration::from_millis(1400),
        "{:?}",
        claimed.elapsed()
    );
    assert!(again.iter().all(|one| one.delivery == 2));
    let seqs: BTreeSet<i64> = again.iter().map(|one| alert_id(one).1).collect();
    assert_eq!(seqs, (6..=20).collect());
    // The ids outlive the router that gave them.
    let request = v1::SettleRequest {
        group: "g".into(),
        settlements: vec![v1::Settlement {
            ids: ids(&taken[..5]),
            how: Some(ack()),
        }],
    };
    let answer = rows::alerts(&two).await.settle(request).await;
    assert_settled(&answer.expect("settled").into_inner().results);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_take_becomes_a_dead_letter_with_its_history() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    cluster.raise(1, 2, 10).await;
    let settings = v1::Group {
        max_deliveries: 3,
        ..group("g")
    };
    cluster.put_group(&router, settings).await;
    let mut member = Member::join(&router, "g", "m", 1).await.expect("joined");
    for attempt in 1..=3 {
        let delivery = member.next().await.expect("a delivery");
        assert_eq!((alert_id(&delivery).1, delivery.delivery), (1, attempt));
        let reason = format!("no {attempt}");
        assert_settled(&member.settle(vec![delivery.id], nack(0, &reason)).await);
    }
    let poison = member.next().await.expect("the next one");
    assert_eq!(alert_id(&poison).1, 2);
    let terminate = How::Terminate(v1::Terminate {
        reason: "unreadable".into(),
    });
    assert_settled(&member.settle(vec![poison.id], terminate).await);
    let dead = letters(&router, "g").await;
    assert_eq!(dead.len(), 2);
    assert_eq!((dead[0].id.as_str(), dead[0].deliveries), ("db1/1", 3));
    assert_eq!(dead[0].reason, "delivered 3 times, last: nacked (no 3)");
    let history: Vec<(u32, &str, &str, &str)> = dead[0]
        .history
        .iter()
        .map(|one| {
            (
                one.delivery,
                one.member.as_str(),
                one.how.as_str(),
                one.reason.as_str(),
            )
        })
        .collect();
    let expected = [(1, "no 1"), (2, "no 2"), (3, "no 3")];
    assert_eq!(history, expected.map(|(n, why)| (n, "m", "nacked", why)));
    assert_eq!(
        dead[0].alert.as_ref().expect("as raised").row,
        "{\"id\" : 1}"
    );
    assert_eq!(dead[1].reason, "terminated (unreadable)");
    let which = |ids: &[&str], all| v1::DeadLettersRequest {
        group: "g".into(),
        ids: ids.iter().map(ToString::to_string).collect(),
        all,
    };
    let mut client = rows::alerts(&router).await;
    let dropped = client.drop_dead_letters(which(&["db1/2"], false)).await;
    assert_eq!(dropped.expect("dropped").into_inner().count, 1);
    let requeued = client.requeue_dead_letters(which(&[], true)).await;
    assert_eq!(requeued.expect("requeued").into_inner().count, 1);
    let again = member.next().await.expect("it comes again");
    assert_eq!((alert_id(&again).1, again.delivery), (1, 1));
    assert_settled(&member.settle(vec![again.id], ack()).await);
    assert!(letters(&router, "g").await.is_empty());
    let neither = client.drop_dead_letters(which(&[], false)).await;
    assert_eq!(neither.expect_err("which?").code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alert_of_a_key_at_a_time_where_asked() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let (one, two) = (cluster.router(), cluster.router());
    // Alerts 1, 4, 7, .. have the key 1, and so on.
    cluster.raise(0, 30, 3).await;
    let settings = v1::Group {
        order_by_key: true,
        ..group("g")
    };
    cluster.put_group(&one, settings).await;
    let mut a = Member::join(&one, "g", "a", 2).await.expect("joined");
    let mut held = a.take(2).await;
    let mut b = Member::join(&two, "g", "b", 100).await.expect("joined");
    let third = b.take(1).await.remove(0);
    assert_eq!(total(&one, "g", |at| at.in_flight).await, 3);
    // All others wait for one of these three, whoever holds it.
    let keys: BTreeSet<i64> = held
        .iter()
        .chain([&third])
        .map(|one| alert_id(one).1 % 3)
        .collect();
    assert_eq!(keys.len(), 3);
    // A nack keeps the key's turn.
    let first = alert_id(&third).1;
    assert_settled(&b.settle(vec![third.id], nack(0, "again")).await);
    let again = b.take(1).await.remove(0);
    assert_eq!((alert_id(&again).1, again.delivery), (first, 2));
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    let mut all = 0;
    let mut done = |delivery: &v1::Delivery| {
        let seq = alert_id(delivery).1;
        let before = last.insert(seq % 3, seq).unwrap_or(seq % 3 - 3);
        // 3, 6, 9; 1, 4, 7; 2, 5, 8.
        let expected = if before <= 0 {
            if seq % 3 == 0 { 3 } else { seq % 3 }
        } else {
            before + 3
        };
        assert_eq!(seq, expected, "out of order");
        all += 1;
        all == 30
    };
    done(&again);
    assert_settled(&b.settle(vec![again.id], ack()).await);
    for delivery in held.drain(..) {
        done(&delivery);
        assert_settled(&a.settle(vec![delivery.id], ack()).await);
    }
    drop(a);
    // Some may have gone to `a` again before it left; they come back to `b`.
    loop {
        let delivery = b.next().await.expect("the key's next");
        let end = done(&delivery);
        assert_settled(&b.settle(vec![delivery.id], ack()).await);
        if end {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_paused_replayed_and_removed() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    cluster.raise(0, 5, 10).await;
    cluster.put_group(&router, group("g")).await;
    let mut client = rows::alerts(&router).await;
    let mut member = Member::join(&router, "g", "m", 10).await.expect("joined");
    let all = member.take(5).await;
    assert_settled(&member.settle(ids(&all[..3]), ack()).await);
    let put = |paused: bool, expected: Option<i64>| v1::PutGroupRequest {
        group: Some(v1::Group {
            paused,
            ..group("g")
        }),
        expected_version: expected,
        start: None,
    };
    let old = client.put_group(put(true, Some(7))).await;
    assert_eq!(old.expect_err("another version").code(), Code::Aborted);
    let paused = client
        .put_group(put(true, Some(1)))
        .await
        .expect("paused")
        .into_inner();
    assert_eq!(
        (paused.created, paused.group.expect("it").version),
        (false, 2)
    );
    // Replayed while paused: what was in flight is forgotten.
    let replay = v1::ReplayGroupRequest {
        group: "g".into(),
        from: Some(v1::Position {
            at: Some(position::At::Earliest(v1::Earliest {})),
        }),
        instances: vec!["db0".into()],
    };
    client.replay_group(replay).await.expect("replayed");
    let stale = member.settle(ids(&all[3..]), ack()).await;
    assert!(stale.iter().all(|one| one.outcome() == Outcome::Stale));
    let pull = |max, wait_ms| v1::PullRequest {
        group: "g".into(),
        member: "p".into(),
        max,
        wait: for_ms(wait_ms),
    };
    let nothing = client
        .pull(pull(10, 0))
        .await
        .expect("an answer")
        .into_inner();
    assert!(nothing.deliveries.is_empty(), "it is paused");
    client.put_group(put(false, None)).await.expect("resumed");
    let again = member.take(5).await;
    assert!(again.iter().all(|one| one.delivery == 1));
    assert_settled(&member.settle(ids(&again), ack()).await);
    // A long poll has what comes meanwhile; the member has left.
    drop(member);
    let polling = tokio::spawn(async move {
        let mut client = client;
        client
            .pull(pull(10, 30_000))
            .await
            .expect("an answer")
            .into_inner()
    });
    until("the group to be idle", || async {
        (total(&router, "g", |at| at.in_flight).await == 0).then_some(())
    })
    .await;
    cluster.raise(1, 1, 10).await;
    let polled = polling.await.expect("polled").deliveries;
    assert_eq!(polled.len(), 1);
    assert_eq!(alert_id(&polled[0]), ("db1".into(), 1));
    let mut member = Member::join(&router, "g", "m", 10).await.expect("joined");
    let removed = v1::RemoveGroupRequest {
        name: "g".into(),
        expected_version: None,
    };
    let mut client = rows::alerts(&router).await;
    client.remove_group(removed).await.expect("removed");
    let end = loop {
        match member.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::NotFound, "{end}");
    for table in [
        "group_head",
        "group_claim",
        "group_retry",
        "dead_letter",
        "outbox_hold",
    ] {
        assert_eq!(
            cluster
                .sum(&format!("select count(*) from pgbraid.{table}"))
                .await,
            0
        );
    }
    let gone = Member::join(&router, "g", "m", 1).await;
    assert_eq!(gone.err().expect("no such group").code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_the_settings_is_made_and_starts_now() {
    let options = ClusterOptions {
        config: "[groups.mailer]\nchannels = [\"c\"]\nmax_deliveries = 7\n".into(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).await;
    cluster.raise(0, 3, 10).await;
    let router = cluster.router();
    let made = until("the group", || async {
        let request = v1::ListGroupsRequest::default();
        let answer = rows::alerts(&router).await.list_groups(request).await;
        let mut groups = answer.expect("groups").into_inner().groups;
        groups.pop().filter(|group| group.instances.len() == 2)
    })
    .await;
    let settings = made.group.expect("settings");
    assert_eq!((settings.max_deliveries, settings.version), (7, 1));
    cluster.raise(0, 1, 10).await;
    let mut member = Member::join(&router, "mailer", "m", 10)
        .await
        .expect("joined");
    let delivery = member.next().await.expect("the new one");
    assert_eq!(alert_id(&delivery), ("db0".into(), 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_about_groups_say_what_is_wrong() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let mut client = rows::alerts(&router).await;
    let cases = [
        (group(""), "name"),
        (group("a b"), "name"),
        (group(&"x".repeat(64)), "name"),
        (
            v1::Group {
                visibility_timeout: for_ms(1),
                ..group("g")
            },
            "visibility_timeout",
        ),
        (
            v1::Group {
                filter: Some(v1::Filter {
                    instances: vec!["db9".into()],
                    ..Default::default()
                }),
                ..group("g")
            },
            "instances",
        ),
        (
            v1::Group {
                filter: Some(v1::Filter {
                    feeds: vec!["nope".into()],
                    ..Default::default()
                }),
                ..group("g")
            },
            "feeds",
        ),
    ];
    for (group, field) in cases {
        let request = v1::PutGroupRequest {
            group: Some(group.clone()),
            ..Default::default()
        };
        let error = client.put_group(request).await.expect_err("refused");
        assert_eq!(error.code(), Code::InvalidArgument, "{group:?}");
        assert!(error.message().contains(field), "{field}: {error}");
    }
    let channel = v1::Group {
        filter: Some(v1::Filter {
            channels: vec![String::new()],
            ..Default::default()
        }),
        ..group("g")
    };
    let request = v1::PutGroupRequest {
        group: Some(channel),
        ..Default::default()
    };
    let error = client.put_group(request).await.expect_err("no channel");
    assert!(error.message().contains("channels"), "{error}");
    // A wrong year must not pass over all that is kept.
    let request = v1::PutGroupRequest {
        group: Some(group("g")),
        ..Default::default()
    };
    client.put_group(request.clone()).await.expect("a group");
    for seconds in [253_000_000_000, i64::MAX, i64::MIN] {
        let time = prost_types::Timestamp { seconds, nanos: 0 };
        let at = Some(v1::Position {
            at: Some(v1::position::At::Time(time)),
        });
        let replay = v1::ReplayGroupRequest {
            group: "g".into(),
            from: at.clone(),
            ..Default::default()
        };
        let put = v1::PutGroupRequest {
            start: at,
            ..request.clone()
        };
        for error in [
            client.replay_group(replay).await.expect_err("a bad time"),
            client.put_group(put).await.expect_err("a bad time"),
        ] {
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(error.message().contains(".time: "), "{error}");
        }
    }
    let error = client
        .pull(v1::PullRequest {
            group: "none".into(),
            ..Default::default()
        })
        .await
        .expect_err("there is none");
    assert_eq!(error.code(), Code::NotFound);
}
