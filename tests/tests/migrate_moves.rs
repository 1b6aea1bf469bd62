//! `pgbraid migrate` against a fleet that serves: not while tables move, and routers take new columns.

use std::process::Output;

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Writer,
    rows::{self, int},
    run,
    wait::until,
};

fn migrate(cluster: &Cluster) -> Output {
    let config = cluster.config();
    tokio::task::block_in_place(|| run(&["migrate", "--config", config.to_str().expect("UTF-8")]))
}

fn said(output: &Output) -> String {
    // Its lines are folded to 80 columns.
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A second file of the user's SQL.
fn add_file(cluster: &Cluster, sql: &str) {
    std::fs::write(cluster.path("second.sql"), sql).expect("files can be written");
    let config = std::fs::read_to_string(cluster.config()).expect("the file is there");
    let config = config.replace("[\"schema.sql\"]", "[\"schema.sql\", \"second.sql\"]");
    std::fs::write(cluster.config(), config).expect("files can be written");
}

async fn columns(router: &Router) -> Vec<String> {
    let status = rows::admin(router)
        .await
        .get_status(v1::GetStatusRequest {})
        .await;
    let feed = status
        .expect("the router answers")
        .into_inner()
        .feeds
        .remove(0);
    feed.columns.into_iter().map(|column| column.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_changes_wait_for_moves_and_moves_for_them() {
    let mut options = ClusterOptions::moving(2, 4);
    // The migration waits for a lock that we hold.
    options.config = "lock_timeout = \"1m\"\n".into();
    let cluster = Cluster::start(options).await;
    let router = tokio::task::block_in_place(|| cluster.router());
    let mut wanted = cluster.owners("feed").await;
    wanted[0] = 1 - wanted[0];
    cluster.pin("feed", &wanted);
    add_file(&cluster, "alter table feed add column late int default 7;");

    // While a mover works, and once it was killed.
    cluster.map_done(&["pause"]).await;
    let mover = cluster.start_map(&["apply"]);
    let process = format!("process {}", mover.id());
    until("the mover to be at work", || async {
        let row = cluster.sql(0).await;
        let row = row.query_opt("select from pgbraid.move", &[]).await;
        row.expect("the home answers").map(|_| ())
    })
    .await;
    let refused = migrate(&cluster);
    assert_eq!(refused.status.code(), Some(1));
    let text = said(&refused);
    assert!(
        text.contains(&process) && text.contains("schema changes wait"),
        "{text}"
    );
    drop(mover);
    cluster.end_lease().await;
    let text = said(&migrate(&cluster));
    assert!(
        text.contains("until no table is on its way: feed/tbl0 from"),
        "{text}"
    );
    cluster.map_done(&["resume"]).await;
    cluster.map_done(&["apply"]).await;
    assert_eq!(cluster.owners("feed").await, wanted);

    // While it works itself. The home goes first: nothing has changed anywhere yet.
    let held = cluster.superuser(0).await;
    let lock = "begin; lock table feed in access share mode";
    held.batch_execute(lock).await.expect("a lock");
    let migration = {
        let config = cluster.config();
        tokio::task::spawn_blocking(move || {
            run(&["migrate", "--config", config.to_str().expect("UTF-8")])
        })
    };
    until("the migration to have the lease", || async {
        let row = cluster.sql(0).await;
        let row = row.query_one("select holder from pgbraid.mover", &[]).await;
        let holder: Option<String> = row.expect("the home answers").get(0);
        holder.filter(|holder| holder.starts_with("pgbraid migrate on"))
    })
    .await;
    wanted[1] = 1 - wanted[1];
    cluster.pin("feed", &wanted);
    let refused = tokio::task::block_in_place(|| cluster.run_map(&["apply"]));
    let text = said(&refused);
    assert!(text.contains("pgbraid migrate on"), "{text}");
    held.batch_execute("rollback").await.expect("no lock");
    let migrated = migration.await.expect("it ends");
    assert!(migrated.status.success(), "{}", said(&migrated));

    // The router has the column at once, and writes it to every instance.
    until("the router to have the column", || async {
        columns(&router)
            .await
            .contains(&"late".to_owned())
            .then_some(())
    })
    .await;
    let mut writer = Writer::open(&router).await;
    let all = (0..100).map(|key| (int(key), vec![int(key)]));
    writer.write(rows::rows("feed", &["late"], all)).await;
    let sum = cluster
        .sum("select coalesce(sum(late), 0)::int8 from feed")
        .await;
    assert_eq!(sum, 99 * 100 / 2);
    // And it goes along when a table moves.
    cluster.map_done(&["apply"]).await;
    assert_eq!(cluster.owners("feed").await, wanted);
    // With nothing to apply it asks nobody: an init container may run it at any time.
    cluster.map_done(&["pause"]).await;
    wanted[2] = 1 - wanted[2];
    cluster.pin("feed", &wanted);
    let mover = cluster.start_map(&["apply"]);
    until("the mover to be at work", || async {
        let row = cluster.sql(0).await;
        let open = "select from pgbraid.move where outcome is null";
        let row = row.query_opt(open, &[]).await;
        row.expect("the home answers").map(|_| ())
    })
    .await;
    let migrated = migrate(&cluster);
    assert!(migrated.status.success(), "{}", said(&migrated));
    drop(mover);
}
