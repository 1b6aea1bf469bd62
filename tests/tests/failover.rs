//! A standby is promoted under load: rows that were acked before stay, producers are told nothing
//! but to try again, and writing resumes.

use std::time::{Duration, Instant};

use pgbraid_tests::{Cluster, ClusterOptions, Layout, Load, Standby, Writer, rows, wait::until};

/// The instance that fails over.
const FAILING: usize = 1;
/// From the end of the promotion until rows are acked again, on a busy machine.
const BOUND: Duration = Duration::from_secs(10);

/// Commits wait for the standby from here on, so that what is acked is there too.
async fn replicate_synchronously(cluster: &Cluster) {
    let admin = cluster.superuser(FAILING).await;
    for sql in [
        "alter system set synchronous_standby_names = '*'",
        "select pg_reload_conf()",
    ] {
        admin.batch_execute(sql).await.expect("a superuser may");
    }
    until("the standby to be synchronous", || async {
        let sql = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        let row = admin.query_one(sql, &[]).await.expect("it can be asked");
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_promoted_under_load() {
    let cluster = Cluster::start(ClusterOptions {
        config: "connect_timeout = \"1s\"\nstatement_timeout = \"3s\"\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let standby = Standby::of(&cluster, FAILING).await;
    replicate_synchronously(&cluster).await;
    let feeds = [("feed".to_owned(), 16)];
    let hosts = format!(
        "[instances.db{FAILING}]\nhosts = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n",
        cluster.postgres.instances()[FAILING].port(),
        standby.port()
    );
    cluster.write_map(&(cluster.map(1, &feeds) + &hosts));
    let layout = Layout::of(&cluster, "feed").await;
    let load = Load::start(&cluster, 512, Duration::from_secs(5)).await;
    // Rows that are written once, up to the very end of the primary.
    let router = load.router().await;
    let mut writer = Writer::open(&router).await;
    let late = layout.keys(1000, |layout, key| {
        key >= 512 && layout.owner(key) == FAILING
    });
    let mut acked: Vec<i64> = Vec::new();
    for keys in late.chunks(10) {
        let values = keys
            .iter()
            .map(|key| (rows::int(*key), vec![rows::int(*key)]));
        writer.write(rows::rows("feed", &["c2"], values)).await;
        acked.extend(keys);
    }
    cluster
        .postgres
        .kill9(FAILING)
        .await
        .expect("db1 can be killed");
    standby.promote(&cluster, FAILING).await;
    let promoted = Instant::now();
    let before = load.acked().of(FAILING);
    until("rows to be acked by the new primary", || async {
        (load.acked().of(FAILING) > before + 256).then_some(())
    })
    .await;
    let resumed = promoted.elapsed();
    println!("writing resumed {resumed:?} after the promotion");
    assert!(resumed < BOUND, "it took {resumed:?}");
    assert_eq!(load.breaks(), 0, "streams live through a failover");
    let sql = standby.sql().await;
    let count = "select count(*) from feed where id = any ($1) and c2 = id";
    let kept: i64 = sql.query_one(count, &[&acked]).await.expect("rows").get(0);
    assert_eq!(kept, 1000, "rows that were acked before stay");
    // It refuses nothing but for a while, and its last acked values are in their places.
    let acked = load.acked().clone();
    let mut producer = load.stop().await;
    let finished = producer.finish(&router, &acked).await;
    finished.expect("the stream goes on");
    let here = cluster.sql(0).await;
    for (key, value) in producer.keys.iter().zip(&producer.acked) {
        let (owner, other) = match layout.owner(*key) {
            FAILING => (&sql, &here),
            _ => (&here, &sql),
        };
        let count = "select count(*) from feed where id = $1";
        let there = format!("{count} and c1 = {value}");
        let there: i64 = owner.query_one(&there, &[key]).await.expect("row").get(0);
        let elsewhere: i64 = other.query_one(count, &[key]).await.expect("row").get(0);
        assert_eq!((there, elsewhere), (1, 0), "key {key}");
    }
    drop(router);
}
