//! Everything that alerts pass through is killed with -9, again and again, while writers commit, roll
//! back, wait and prepare. Every committed alert reaches every subscriber and is acked in every
//! group, none that was rolled back does, and the order of a key's alerts holds where it was asked for.
//!
//! `PGBRAID_CHAOS_ALERTS` says how many alerts; the default suits continuous integration.

mod members;
mod writers;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgbraid_proto::v1::{self, Filter, subscribe_request::Start, subscribe_response::Event};
use pgbraid_tests::{Cluster, ClusterOptions, Layout, Router, Subscriber, member, raised, rows};
use rand::RngExt;
use tokio::task::JoinSet;

use members::{Log, Order};
use writers::Writers;

const INSTANCES: u16 = 4;
const ROUTERS: usize = 2;
/// Longest that the last alerts may take once nothing is killed any more: this, and a millisecond each.
const SETTLE: Duration = Duration::from_secs(120);

/// An alert: the number of its instance, and its seq. Millions of them are kept.
pub type Id = (u8, i64);
type Alerts = BTreeSet<Id>;

/// The id of an alert of an instance of this name.
pub fn id(instance: &str, seq: i64) -> Id {
    let number = instance.strip_prefix("db").map(str::parse);
    (number.expect("dbN").expect("a number"), seq)
}

/// What the parts of the test share.
pub struct World {
    cluster: Cluster,
    routers: Vec<Mutex<Router>>,
    /// Nothing is killed any more, and writers end.
    stop: AtomicBool,
    /// Most alerts that a member holds. Of so many acks nobody hears the answer when its router is
    /// killed: not more than the rate needs.
    in_flight: u32,
}

impl World {
    /// The address of one of the routers; it may be dead.
    pub fn address(&self) -> String {
        let at = rand::rng().random_range(0..self.routers.len());
        self.routers[at].lock().expect("no panic").grpc.clone()
    }

    /// Whether nothing is killed any more.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn alerts() -> usize {
    let wanted = std::env::var("PGBRAID_CHAOS_ALERTS").ok();
    wanted.map_or(12_000, |wanted| wanted.parse().expect("a number of alerts"))
}

/// Kills routers and instances in turn until it is over; returns how many of each.
async fn kill(world: Arc<World>) -> [u32; 2] {
    let mut kills = [0, 0];
    while !world.is_over() {
        let pause = rand::rng().random_range(1000..2500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let which = usize::from(kills[0] > kills[1]);
        if which == 0 {
            let at = rand::rng().random_range(0..ROUTERS);
            let world = world.clone();
            let started = tokio::task::spawn_blocking(move || {
                world.routers[at]
                    .lock()
                    .expect("no panic")
                    .signal(Signal::SIGKILL);
                // The old address stays until there is a new one: members try in vain meanwhile.
                let router = world.cluster.router();
                *world.routers[at].lock().expect("no panic") = router;
            });
            started.await.expect("a router starts");
        } else {
            let at = rand::rng().random_range(0..usize::from(INSTANCES));
            let postgres = &world.cluster.postgres;
            postgres.kill9(at).await.expect("an instance can be killed");
            postgres.start(at).await.expect("it starts again");
        }
        kills[which] += 1;
    }
    kills
}

/// Follows all alerts, from the last token whenever the connection breaks, or this is killed.
async fn subscribe(world: Arc<World>, seen: Arc<Mutex<(Alerts, Option<String>)>>) {
    loop {
        let token = seen.lock().expect("no panic").1.clone();
        let start = match token {
            Some(token) => Start::Token(token),
            None => Start::Earliest(v1::Earliest {}),
        };
        let opened = Subscriber::open_at(&world.address(), start, Filter::default()).await;
        let Ok(mut subscriber) = opened else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while let Ok(event) = subscriber.next().await {
            let mut seen = seen.lock().expect("no panic");
            if let Event::Alert(alert) = event {
                seen.0.insert(id(&alert.instance, alert.seq));
            }
            if !subscriber.token.is_empty() {
                seen.1 = Some(subscriber.token.clone());
            }
        }
    }
}

/// A subscriber that is killed now and then, and resumes.
async fn mortal(world: Arc<World>, seen: Arc<Mutex<(Alerts, Option<String>)>>) {
    loop {
        let life = Duration::from_millis(rand::rng().random_range(500..4000));
        let subscriber = subscribe(world.clone(), seen.clone());
        let _ = tokio::time::timeout(life, subscriber).await;
    }
}

async fn put_rule_and_groups(world: &World) {
    let mut admin = rows::admin_at(&world.address()).await.expect("a router");
    let rule = v1::Rule {
        name: "all".into(),
        feed: "feed".into(),
        expression: "c1 >= 0".into(),
        channel: "c".into(),
        reason: "each write".into(),
        mode: v1::RuleMode::Level.into(),
        ..Default::default()
    };
    let put = v1::PutRulesRequest {
        rules: vec![v1::RulePut {
            rule: Some(rule),
            expected_version: None,
        }],
        ..Default::default()
    };
    admin.put_rules(put).await.expect("the rule is taken");
    for (name, order_by_key) in [("free", false), ("ordered", true)] {
        let group = v1::Group {
            visibility_timeout: Duration::from_secs(4).try_into().ok(),
            max_deliveries: 10_000,
            order_by_key,
            ..member::group(name)
        };
        let router = world.address();
        let mut client = rows::alerts_at(&router).await.expect("a router");
        let put = v1::PutGroupRequest {
            group: Some(group),
            ..Default::default()
        };
        client.put_group(put).await.expect("the group is taken");
    }
}

/// Waits until all of them were seen; or says how many are missing.
///
/// `count` is cheap, and says only whether it is worth while to look.
async fn all_seen(
    what: &str,
    raised: &Alerts,
    count: impl Fn() -> usize,
    seen: impl Fn() -> Alerts,
) {
    let started = Instant::now();
    loop {
        let late = started.elapsed() > SETTLE + Duration::from_millis(raised.len() as u64);
        if late || count() >= raised.len() {
            let seen = seen();
            let missing: Vec<_> = raised.difference(&seen).take(5).collect();
            if missing.is_empty() {
                let invented: Vec<_> = seen.difference(raised).take(5).collect();
                assert!(invented.is_empty(), "{what}: no such alerts: {invented:?}");
                return;
            }
            assert!(
                !late,
                "{what}: {} of {} alerts lost: {missing:?}",
                raised.difference(&seen).count(),
                raised.len(),
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_every_committed_alert_arrives_and_is_acked_once() {
    let cluster = Cluster::start(ClusterOptions {
        instances: INSTANCES,
        config: "statement_timeout = \"3s\"\nconnect_timeout = \"1s\"\n\
                 [alerts]\nheartbeat = \"500ms\"\nreconnect_max = \"500ms\"\n"
            .into(),
        settings: vec![("max_prepared_transactions", "20")],
        ..ClusterOptions::default()
    })
    .await;
    let routers = (0..ROUTERS).map(|_| Mutex::new(cluster.router())).collect();
    let layout = Layout::of(&cluster, "feed").await;
    let world = Arc::new(World {
        cluster,
        routers,
        stop: AtomicBool::new(false),
        in_flight: (alerts() / 1000).clamp(50, 200) as u32,
    });
    put_rule_and_groups(&world).await;

    let mut background = JoinSet::new();
    let steady = Arc::new(Mutex::new((Alerts::new(), None)));
    let killed = Arc::new(Mutex::new((Alerts::new(), None)));
    background.spawn(subscribe(world.clone(), steady.clone()));
    background.spawn(mortal(world.clone(), killed.clone()));
    let free = Arc::new(Log::new(Order::Any));
    let ordered = Arc::new(Log::new(Order::OfKey));
    for number in 0..4 {
        let name = format!("m{number}");
        background.spawn(members::work(
            world.clone(),
            "free",
            name.clone(),
            free.clone(),
        ));
        background.spawn(members::work(
            world.clone(),
            "ordered",
            name,
            ordered.clone(),
        ));
    }
    let started = Instant::now();
    let killer = tokio::spawn(kill(world.clone()));
    let writers = Writers::start(&world, &layout, alerts());
    writers.join(&world).await;
    world.stop.store(true, Ordering::SeqCst);
    let [routers, instances] = killer.await.expect("the killer ends");

    let raised: Alerts = raised(&world.cluster)
        .await
        .iter()
        .map(|(instance, seq)| id(instance, *seq))
        .collect();
    println!(
        "{} alerts written in {:?}, {routers} routers and {instances} instances killed",
        raised.len(),
        started.elapsed()
    );
    if raised.len() > 5000 {
        assert!(routers > 0 && instances > 0, "nothing was killed");
    }
    for (what, log) in [
        ("steady subscriber", &steady),
        ("killed subscriber", &killed),
    ] {
        let count = || log.lock().expect("no panic").0.len();
        let seen = || log.lock().expect("no panic").0.clone();
        all_seen(what, &raised, count, seen).await;
    }
    println!("all seen by both subscribers after {:?}", started.elapsed());
    for (name, log) in [("free", &free), ("ordered", &ordered)] {
        all_seen(name, &raised, || log.certain(), || log.acked()).await;
        log.assert_sound();
        println!("all acked in group {name} after {:?}", started.elapsed());
        let mut client = rows::alerts_at(&world.address()).await.expect("a router");
        let request = v1::ListGroupsRequest { name: name.into() };
        // What a member that was killed held is settled already: it comes back once more at most.
        let started = Instant::now();
        loop {
            let state = client
                .list_groups(request.clone())
                .await
                .expect("the group");
            let state = state.into_inner().groups.remove(0);
            let left: u64 = state
                .instances
                .iter()
                .map(|at| at.lag_alerts + at.in_flight + at.delayed + at.waiting + at.dead)
                .sum();
            if left == 0 && state.instances.len() == usize::from(INSTANCES) {
                break;
            }
            let limit = SETTLE + Duration::from_millis(raised.len() as u64);
            assert!(started.elapsed() < limit, "{name} is not done: {state:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    background.shutdown().await;
}
