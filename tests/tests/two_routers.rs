//! Two routers on the same files: keys they share, and deadlocks that others provoke.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pgbraid_proto::v1::{self, column::Values};
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Writer,
    rows::{self, absent, int, int32s, int64s, text},
    wait::{limited, until},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::{JoinHandle, JoinSet};

/// Keys that all producers write.
const KEYS: i64 = 300;
/// Requests of one producer.
const REQUESTS: usize = 80;
/// Producers on each router. The last one makes unary calls, the others have a stream.
const PRODUCERS: usize = 4;
/// Requests of one stream under way.
const IN_FLIGHT: usize = 12;

/// What a producer wrote last for each key, all of it acked.
type Written = BTreeMap<i64, i32>;

/// A producer's requests: its own column with a number that grows, and `c12`, which is everybody's.
struct Requests {
    random: StdRng,
    column: String,
    number: i32,
    written: Written,
}

impl Requests {
    fn new(producer: usize) -> Self {
        Self {
            random: StdRng::seed_from_u64(producer as u64),
            column: format!("c{}", producer + 1),
            number: 0,
            written: Written::new(),
        }
    }

    /// Rows of random keys, some of them more than once.
    fn rows(&mut self) -> Vec<(i64, i32)> {
        let count = self.random.random_range(1..200);
        (0..count)
            .map(|_| {
                let key = self.random.random_range(0..KEYS);
                self.number += 1;
                self.written.insert(key, self.number);
                (key, self.number)
            })
            .collect()
    }

    /// A request in one of the forms.
    fn next(&mut self) -> v1::WriteRequest {
        let written = self.rows();
        let keys: Vec<i64> = written.iter().map(|(key, _)| *key).collect();
        let numbers: Vec<i32> = written.iter().map(|(_, number)| *number).collect();
        let own = self.column.as_str();
        match self.random.random_range(0..5) {
            0 => rows::columnar("feed", int64s("id", &keys), vec![int32s(own, &numbers)]),
            1 => {
                let texts = numbers.iter().map(ToString::to_string).collect();
                let texts = Values::Texts(v1::Texts { values: texts });
                let keys = Values::Ints(v1::Ints { values: keys });
                rows::columnar(
                    "feed",
                    rows::column("", keys),
                    vec![rows::column(own, texts)],
                )
            }
            2 => {
                let rows = written
                    .iter()
                    .map(|(key, number)| (int(*key), vec![int((*number).into())]));
                rows::rows("feed", &[own], rows)
            }
            3 => {
                // With a column that others write too, set in some of the rows.
                let rows = written.iter().map(|(key, number)| {
                    let shared = if number % 3 == 0 {
                        absent()
                    } else {
                        int((number % 5).into())
                    };
                    (int(*key), vec![shared, text(number.to_string())])
                });
                rows::rows("feed", &["c12", own], rows)
            }
            _ => {
                let shared: Vec<i32> = numbers.iter().map(|number| number % 7).collect();
                let columns = vec![int32s(own, &numbers), int32s("c12", &shared)];
                rows::columnar("feed", int64s("id", &keys), columns)
            }
        }
    }
}

fn committed(answer: &v1::WriteResponse) {
    assert_eq!(answer.status, None);
    assert_eq!(answer.refused, []);
}

async fn stream(router: Arc<Router>, producer: usize) -> (usize, Written) {
    let mut requests = Requests::new(producer);
    let mut writer = Writer::open(&router).await;
    for _ in 0..REQUESTS {
        writer
            .send(requests.next())
            .await
            .expect("the stream is open");
        while writer.in_flight() >= IN_FLIGHT {
            committed(&writer.answer().await.expect("the stream goes on").1);
        }
    }
    writer.settle().await;
    (producer, requests.written)
}

async fn unary(router: Arc<Router>, producer: usize) -> (usize, Written) {
    let mut requests = Requests::new(producer);
    let mut client = rows::ingest(&router).await;
    for _ in 0..REQUESTS {
        let answer = client.write(requests.next()).await;
        committed(answer.expect("the request is taken").get_ref());
    }
    (producer, requests.written)
}

/// Every producer at once; returns what each wrote.
async fn produce(routers: &[Arc<Router>]) -> BTreeMap<usize, Written> {
    let mut producers = JoinSet::new();
    for (at, router) in routers.iter().enumerate() {
        for number in 0..PRODUCERS {
            let (router, producer) = (router.clone(), at * PRODUCERS + number);
            if number + 1 == PRODUCERS {
                producers.spawn(unary(router, producer));
            } else {
                producers.spawn(stream(router, producer));
            }
        }
    }
    limited("the producers", producers.join_all())
        .await
        .into_iter()
        .collect()
}

/// Every column of every key holds what its producer wrote last, seen through either router.
async fn check(routers: &[Arc<Router>], written: &BTreeMap<usize, Written>) {
    let keys: Vec<i64> = (0..KEYS).collect();
    for router in routers {
        let request = v1::GetRequest {
            feed: "feed".into(),
            keys: Some(int64s("", &keys)),
            ..Default::default()
        };
        let answer = rows::reads(router).await.get(request).await;
        let answer = answer.expect("the rows can be read").into_inner();
        for (key, row) in keys.iter().zip(&answer.rows) {
            let row: serde_json::Value = serde_json::from_str(&row.json).expect("a JSON object");
            for (producer, written) in written {
                let column = format!("c{}", producer + 1);
                let found = row[column.as_str()].as_i64();
                let expected = written.get(key).copied().map(i64::from);
                assert_eq!(found, expected, "{column} of key {key}");
            }
        }
    }
}

async fn start(deadlock_timeout: &'static str) -> (Cluster, [Arc<Router>; 2]) {
    let cluster = Cluster::start(ClusterOptions {
        instances: 3,
        settings: vec![("deadlock_timeout", deadlock_timeout)],
        ..Default::default()
    })
    .await;
    let routers = [(); 2].map(|()| Arc::new(cluster.router()));
    (cluster, routers)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routers_share_keys_and_nobody_hears_of_a_deadlock() {
    let (_cluster, routers) = start("1s").await;
    let written = produce(&routers).await;
    check(&routers, &written).await;
    // Sorted batches of two routers do not even meet in one.
    for router in &routers {
        assert_eq!(
            router.metric("pgbraid_retries_total", &["class=\"40\""]),
            0.0
        );
    }
}

/// Locks rows of an instance in an order of its own, as a careless service would.
fn rude(cluster: &Cluster, instance: usize, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    let port = cluster.postgres.instances()[instance].port();
    let password = cluster.postgres.superuser_password().to_owned();
    let mut random = StdRng::seed_from_u64(instance as u64);
    tokio::spawn(async move {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user("postgres");
        config.password(password).dbname("pgbraid");
        let (client, connection) = config
            .connect(tokio_postgres::NoTls)
            .await
            .expect("it answers");
        tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) {
            let mut update = String::from("begin;");
            for _ in 0..40 {
                let key = random.random_range(0..KEYS);
                let _ = write!(update, "update feed set c11 = 1 where id = {key};");
            }
            // It may be the one that PostgreSQL ends: not our matter here.
            if client
                .batch_execute(&format!("{update} commit"))
                .await
                .is_err()
            {
                client
                    .batch_execute("rollback")
                    .await
                    .expect("a rollback works");
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_with_another_writer_is_tried_again() {
    let (cluster, routers) = start("10ms").await;
    let stop = Arc::new(AtomicBool::new(false));
    let rude: Vec<JoinHandle<()>> = (0..3).map(|at| rude(&cluster, at, stop.clone())).collect();
    let retried = || {
        let metric =
            |router: &Arc<Router>| router.metric("pgbraid_retries_total", &["class=\"40\""]);
        routers.iter().map(metric).sum::<f64>()
    };
    // It is PostgreSQL that chooses whom to end, so again until it was one of ours. Each round
    // writes the same numbers; the last one's must be there.
    until("a deadlock that ends a router's batch", || async {
        let written = produce(&routers).await;
        check(&routers, &written).await;
        (retried() > 0.0).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for task in rude {
        limited("the other writer", task).await.expect("it goes on");
    }
}
