//! A checker of the client's cache: it never serves a value older than the last change it has seen.
//!
//! Each key has one writer, which counts the key's column `c1` up. In the transaction of each
//! update it also inserts a *mark*: a row of the same feed, on the same instance, whose key says
//! which version of which key this was. So the change stream itself tells, right behind the change,
//! which version the cache has just been told of, and every look-up that begins after that must
//! return at least that version.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use pgbraid_client::{Backoff, Cache, CacheConfig, ChangeEvent, Client, ClientConfig};
use pgbraid_tests::{
    Cluster, ClusterOptions, Layout, run,
    wait::{limited, until},
};
use rand::RngExt;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const KEYS: i64 = 24;
const FIRST_MARK: i64 = 1_000_000_000;
/// Numbers that a mark can choose from to get to the instance of its key.
const SALTS: i64 = 256;
const VERSIONS: i64 = 100_000;

/// The last version of each key that the cache was told of.
#[derive(Clone)]
struct Seen(Arc<Vec<AtomicU64>>);

impl Seen {
    fn note(&self, event: &ChangeEvent) {
        let ChangeEvent::Changes(batch) = event else {
            return;
        };
        for key in batch.changes.iter().flat_map(|change| &change.keys) {
            let number: i64 = key.parse().expect("an int8");
            if number >= FIRST_MARK {
                let mark = (number - FIRST_MARK) / SALTS;
                let (key, version) = (mark / VERSIONS, mark % VERSIONS);
                self.0[key as usize].fetch_max(version as u64, Ordering::SeqCst);
            }
        }
    }

    fn of(&self, key: i64) -> u64 {
        self.0[key as usize].load(Ordering::SeqCst)
    }
}

fn mark(layout: &Layout, key: i64, version: i64) -> i64 {
    let first = FIRST_MARK + (key * VERSIONS + version) * SALTS;
    (first..first + SALTS)
        .find(|mark| layout.owner(*mark) == layout.owner(key))
        .expect("one of so many is on the same instance")
}

/// Forwards connections to whichever router there is: a client's endpoint stays the same.
async fn proxy(target: Arc<Mutex<String>>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let task = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let to = target.lock().expect("target").clone();
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(to).await {
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    (address, task)
}

/// Writes the keys of this writer until told to stop; returns how many versions were committed.
async fn write(cluster: Arc<Cluster>, layout: Layout, own: Vec<i64>, stop: Arc<AtomicBool>) -> i64 {
    let mut clients = [cluster.sql(0).await, cluster.sql(1).await];
    let mut versions = vec![0; own.len()];
    while !stop.load(Ordering::Relaxed) {
        let place = rand::rng().random_range(0..own.len());
        let (key, version) = (own[place], versions[place] + 1);
        let undo = rand::rng().random_bool(0.1);
        let client = &mut clients[layout.owner(key)];
        let transaction = client.transaction().await.expect("begin");
        let upsert = "insert into feed (id, c1) values ($1, $2) \
                      on conflict (id) do update set c1 = excluded.c1";
        let number = version as i32;
        transaction
            .execute(upsert, &[&key, &number])
            .await
            .expect("upsert");
        let insert = "insert into feed (id) values ($1)";
        let mark = mark(&layout, key, version);
        transaction.execute(insert, &[&mark]).await.expect("mark");
        if undo {
            transaction.rollback().await.expect("rollback");
        } else {
            transaction.commit().await.expect("commit");
            versions[place] = version;
        }
    }
    versions.iter().sum()
}

fn version(row: Option<&str>) -> u64 {
    let Some(row) = row else {
        return 0;
    };
    let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
    row["c1"].as_u64().expect("a version")
}

async fn read(cache: Cache, seen: Seen, stop: Arc<AtomicBool>) -> u64 {
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = rand::rng().random_range(0..KEYS);
        let told = seen.of(key);
        // While there is no router there is an error, never an old value.
        match cache.get(key).await {
            Ok(row) => {
                let got = version(row.as_deref());
                assert!(
                    got >= told,
                    "key {key}: served version {got}, but was told of {told} before"
                );
                served += 1;
                tokio::task::yield_now().await;
            }
            Err(error) => {
                assert!(error.is_retriable(), "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    served
}

/// Breaks the connections on which routers listen to an instance. They are known by the question
/// that they are asked every so often.
async fn break_listeners(cluster: &Cluster, instance: usize) {
    let broken = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                  where pid <> pg_backend_pid() and query like '%pg_listening_channels%'";
    let sql = cluster.sql(instance).await;
    until("a router to listen", || async {
        let row = sql.query_one(broken, &[]).await;
        let count: i64 = row.expect("backends can be ended").get(0);
        (count > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_never_serves_what_is_older_than_the_last_change_it_has_seen() {
    let cluster = Cluster::start(ClusterOptions {
        config: "[alerts]\nheartbeat = \"100ms\"\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let map = cluster.map(2, &[("feed".into(), 16)]);
    cluster.write_map(&map.replace("tables = 16", "tables = 16\nchanges = true"));
    let config = cluster.config();
    let migrated = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    assert!(migrated.status.success(), "{migrated:?}");
    let cluster = Arc::new(cluster);
    let layout = Layout::of(&cluster, "feed").await;
    let mut router = cluster.router();
    let target = Arc::new(Mutex::new(router.grpc.clone()));
    let (address, forwarding) = proxy(target.clone()).await;

    let seen = Seen(Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect()));
    let client = Client::connect(ClientConfig::new(format!("http://{address}"))).await;
    let observed = seen.clone();
    let mut wanted = CacheConfig::new("feed");
    wanted.heartbeat = Duration::from_millis(200);
    wanted.silence = Duration::from_secs(2);
    wanted.backoff = Backoff {
        min: Duration::from_millis(10),
        max: Duration::from_millis(200),
    };
    wanted.observer = Some(Arc::new(move |event| observed.note(event)));
    let cache = Cache::start(client.expect("a connection"), wanted).await;
    let cache = cache.expect("the feed tells of its changes");
    limited("the cache to be live", cache.live())
        .await
        .expect("live");

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|number| {
            let own = (0..KEYS).filter(|key| key % 3 == number).collect();
            tokio::spawn(write(cluster.clone(), layout.clone(), own, stop.clone()))
        })
        .collect();
    let readers: Vec<_> = (0..6)
        .map(|_| tokio::spawn(read(cache.clone(), seen.clone(), stop.clone())))
        .collect();
    let told = || (0..KEYS).map(|key| seen.of(key)).sum::<u64>();
    let progress = async |what: &str| {
        let (hits, before) = (cache.stats().hits, told());
        until(what, || async {
            let failed = readers.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a reader has failed");
            (cache.stats().hits > hits + 200 && told() > before + 200).then_some(())
        })
        .await;
    };
    progress("the cache to serve rows that change").await;
    for round in 0..3 {
        for instance in 0..2 {
            let resets = cache.stats().resets;
            break_listeners(&cluster, instance).await;
            until("a RESET", || async {
                (cache.stats().resets > resets).then_some(())
            })
            .await;
            progress(&format!("round {round}: the cache to go on after a RESET")).await;
        }
        router.signal(Signal::SIGKILL);
        drop(router);
        router = cluster.router();
        target.lock().expect("target").clone_from(&router.grpc);
        progress(&format!(
            "round {round}: the cache to go on with another router"
        ))
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut committed = 0;
    for writer in writers {
        committed += writer.await.expect("a writer does not fail");
    }
    for reader in readers {
        reader.await.expect("a reader never gets an old value");
    }
    // In the end it has what is stored.
    limited("the cache to be live again", cache.live())
        .await
        .expect("live");
    assert_eq!(
        cluster
            .sum("select coalesce(sum(c1), 0)::int8 from feed")
            .await,
        committed
    );
    until("the cache to have what is stored", || async {
        let mut sum = 0;
        for key in 0..KEYS {
            let row = cache.get(key).await.expect("a row");
            sum += version(row.as_deref()) as i64;
        }
        (sum == committed).then_some(())
    })
    .await;
    let stats = cache.stats();
    assert!(stats.hits > 1000 && stats.invalidated > 500, "{stats:?}");
    assert!(stats.not_stored > 0, "no read met a change: {stats:?}");
    assert!(stats.resets >= 9, "{stats:?}");
    assert!(router.metric("pgbraid_changes_delivered_total", &[]) > 0.0);
    assert_eq!(router.metric("pgbraid_change_subscribers", &[]), 1.0);
    forwarding.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_nobody_told_is_read_again() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let map = cluster.map(2, &[("feed".into(), 16)]);
    cluster.write_map(&map.replace("tables = 16", "tables = 16\nchanges = true"));
    let config = cluster.config();
    let migrated = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    assert!(migrated.status.success(), "{migrated:?}");
    let layout = Layout::of(&cluster, "feed").await;
    let sql = [cluster.sql(0).await, cluster.sql(1).await];
    let upsert = "insert into feed (id, c1) values ($1, $2) \
                  on conflict (id) do update set c1 = excluded.c1";
    let router = cluster.router();
    let target = Arc::new(Mutex::new(router.grpc.clone()));
    let (address, forwarding) = proxy(target.clone()).await;
    let client = Client::connect(ClientConfig::new(format!("http://{address}"))).await;
    let cache = Cache::start(client.expect("a connection"), CacheConfig::new("feed")).await;
    let cache = cache.expect("the feed tells of its changes");
    limited("the cache to be live", cache.live())
        .await
        .expect("live");
    for key in 0..KEYS {
        assert_eq!(cache.get(key).await.expect("an answer"), None);
    }
    assert_eq!(cache.stats().rows, KEYS as u64);
    let resets = cache.stats().resets;
    router.signal(Signal::SIGKILL);
    drop(router);
    for key in 0..KEYS {
        let written = sql[layout.owner(key)].execute(upsert, &[&key, &7]).await;
        written.expect("SQL");
    }
    let router = cluster.router();
    target.lock().expect("target").clone_from(&router.grpc);
    until("a RESET", || async {
        (cache.stats().resets > resets).then_some(())
    })
    .await;
    limited("the cache to be live again", cache.live())
        .await
        .expect("live");
    for key in 0..KEYS {
        let row = cache.get(key).await.expect("an answer");
        assert_eq!(version(row.as_deref()), 7, "key {key}");
    }
    forwarding.abort();
}
