//! A copy that fails is told as such, by the mover and to whoever asks, and given up in the end.

use pgbraid_tests::{Cluster, ClusterOptions, errors, wait::until};
use tokio_postgres::Client;

async fn start(patience: &str) -> (Cluster, usize) {
    let mut options = ClusterOptions::moving(2, 2);
    // The mover stands still for a moment.
    options.moves = format!(
        "lease = \"1m\"\nretry_min = \"20ms\"\nretry_max = \"500ms\"\npatience = \"{patience}\"\n"
    );
    let cluster = Cluster::start(options).await;
    let mut owners = cluster.owners("feed").await;
    let from = owners[0];
    let rows = "insert into feed (id, c1) select n, n from generate_series(1, 5000) n \
                where satisfies_hash_partition('feed'::regclass, 2, 0, n::int8)";
    let source = cluster.sql(from).await;
    source.execute(rows, &[]).await.expect("rows");
    owners[0] = 1 - from;
    cluster.pin("feed", &owners);
    (cluster, 1 - from)
}

async fn sql(client: &Client, sql: &str) {
    client.batch_execute(sql).await.expect(sql);
}

/// What `map status` says of the move.
async fn trouble(cluster: &Cluster, part: &str) -> String {
    until(&format!("the trouble {part:?} to be told"), || async {
        let output = tokio::task::block_in_place(|| cluster.run_map(&["status", "--json"]));
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let told = status["moves"][0]["trouble"].as_str()?.to_owned();
        told.contains(part).then_some(told)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_is_told_and_goes_on_once_it_is_mended() {
    let (cluster, to) = start("10m").await;
    // Before it subscribes, so that the target can be spoiled.
    let mut mover = cluster.start_map(&["apply", "--freeze-after", "publish"]);
    mover.frozen().await;
    let target = cluster.superuser(to).await;
    // The target lacks a column.
    sql(&target, "alter table feed drop column c12").await;
    mover.signal(nix::sys::signal::Signal::SIGCONT);
    let told = trouble(&cluster, "it lacks c12").await;
    assert!(
        told.contains("the copy has failed") && told.len() < 400,
        "{told}"
    );
    let text = tokio::task::block_in_place(|| cluster.run_map(&["status"]));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("it lacks c12"), "{text}");
    sql(&target, "alter table feed add column c12 int").await;
    let output = tokio::task::block_in_place(|| mover.end());
    let said = errors(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("it lacks c12"), "{said}");
    let row = cluster.sql(0).await;
    let row = row.query_one("select trouble from pgbraid.move", &[]).await;
    let trouble: Option<String> = row.expect("the home answers").get(0);
    assert_eq!(trouble, None, "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_for_long_is_given_up() {
    let (cluster, to) = start("2s").await;
    let mut mover = cluster.start_map(&["apply", "--freeze-after", "publish"]);
    mover.frozen().await;
    let target = cluster.superuser(to).await;
    // A unique violation: nothing of the shape tells it.
    sql(&target, "create unique index on feed_0 ((c1 % 10))").await;
    mover.signal(nix::sys::signal::Signal::SIGCONT);
    let output = tokio::task::block_in_place(|| mover.end());
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("its log says why"), "{said}");
    trouble(&cluster, "the copy has failed").await;
    // Disabled, as `disable_on_error` or a person does it.
    let name: String = target
        .query_one("select subname::text from pg_subscription", &[])
        .await
        .expect("a subscription")
        .get(0);
    sql(&target, &format!("alter subscription {name} disable")).await;
    let output = tokio::task::block_in_place(|| cluster.run_map(&["apply"]));
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("alter subscription {name} enable")),
        "{said}"
    );
    cluster.map_done(&["abort"]).await;
}
