//! `moves.auto`: an edit of the shard map moves the tables, by one router, whoever that is.

use std::{os::unix::fs::symlink, path::Path, sync::Arc};

use nix::sys::signal::Signal;
use pgbraid_proto::v1;
use pgbraid_tests::{Cluster, ClusterOptions, Load, Router, rows, wait::until};
use tokio_postgres::Client;

fn options(instances: u16, tables: u32, more: &str) -> ClusterOptions {
    let mut options = ClusterOptions::moving(instances, tables);
    options.moves.push_str("auto = true\n");
    options.moves.push_str(more);
    options
}

async fn auto(router: &Router) -> v1::AutoMoves {
    let status = rows::admin(router)
        .await
        .get_status(v1::GetStatusRequest {})
        .await;
    let status = status.expect("the router answers").into_inner();
    status.auto_moves.expect("moves.auto is on")
}

/// Waits until the router says why it moves nothing; an empty text: nothing is in its way.
async fn waits(router: &Router, part: &str) {
    until(
        &format!("a router that waits because of {part:?}"),
        || async {
            let waiting = auto(router).await.waiting;
            match part {
                "" => waiting.is_empty(),
                part => waiting.contains(part),
            }
            .then_some(())
        },
    )
    .await;
    let gauge = router.metric("pgbraid_auto_moves_waiting", &[]);
    assert_eq!(gauge, f64::from(u8::from(!part.is_empty())));
}

/// Moves in the home: under way, done, undone.
async fn moves(cluster: &Cluster) -> (i64, i64, i64) {
    let sql = "select count(*) filter (where outcome is null), \
               count(*) filter (where outcome = 'done'), \
               count(*) filter (where outcome = 'aborted') from pgbraid.move";
    let row = cluster.sql(0).await.query_one(sql, &[]).await;
    let row = row.expect("the home answers");
    (row.get(0), row.get(1), row.get(2))
}

/// Waits until so many moves are done and none is under way.
async fn done(cluster: &Cluster, wanted: i64) {
    until(&format!("{wanted} moves to be done"), || async {
        let (open, done, _) = moves(cluster).await;
        (open == 0 && done == wanted).then_some(())
    })
    .await;
}

async fn agreed(router: &Router) {
    until("places to be agreed on", || async {
        (!auto(router).await.agreed_places.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_moves_tables_under_load_and_a_killed_router_is_followed() {
    const TABLES: usize = 9;
    let cluster = Cluster::start(options(3, TABLES as u32, "at_once = 1\n")).await;
    let load = Load::start(&cluster, 512, std::time::Duration::from_secs(50)).await;
    let other = Arc::new(tokio::task::block_in_place(|| cluster.router()));
    agreed(&other).await;
    let before = cluster.owners("feed").await;
    let wanted: Vec<usize> = before.iter().map(|owner| (owner + 1) % 3).collect();
    cluster.pin("feed", &wanted);
    until("some tables to have moved, and some not", || async {
        let (_, done, _) = moves(&cluster).await;
        (done >= 2).then_some(())
    })
    .await;
    let state = auto(&other).await;
    let first = load.router().await;
    let of = |router: &Router| state.mover.ends_with(&format!("process {}", router.pid()));
    assert!(of(&first) || of(&other), "{state:?}");
    assert_eq!(
        state.waiting, "",
        "the other one waits for nobody but the first"
    );
    if of(&first) {
        drop(first);
        load.kill_router(&cluster).await;
    } else {
        other.signal(Signal::SIGKILL);
    }
    let (open, _, _) = moves(&cluster).await;
    assert!(open > 0, "it was killed in the middle");
    done(&cluster, TABLES as i64).await;
    assert_eq!(cluster.owners("feed").await, wanted);
    // What the tables left behind is there: nothing is dropped.
    let left = "select count(*) from pg_class where relname ~ '^feed_[0-9]+$' and relkind = 'r'";
    assert_eq!(cluster.sum(left).await, 2 * TABLES as i64);
    load.goes_on("at the new owners").await;
    for name in ["db0", "db1", "db2"] {
        let clean = ["clean", "--older-than", "0", "--confirm", name];
        cluster.map_done(&clean).await;
    }
    let refused = load.check(&cluster).await;
    assert!(refused.is_empty(), "rows were refused: {refused:?}");
}

/// The map of a second router.
fn second_map(cluster: &Cluster, pins: &[usize]) {
    let new = cluster.path("other.toml.new");
    std::fs::write(&new, cluster.pinned("feed", pins)).expect("files can be written");
    std::fs::rename(new, cluster.path("other.toml")).expect("files can be renamed");
}

fn second_router(cluster: &Cluster) -> Router {
    let config = std::fs::read_to_string(cluster.config()).expect("the file is there");
    let config = config.replace("\"shardmap.toml\"", "\"other.toml\"");
    let path = cluster.path("router2.toml");
    std::fs::write(&path, config).expect("files can be written");
    Router::start(Path::new(&path))
}

/// Two routers with different files move no table to and fro, whichever is started or edited.
#[tokio::test(flavor = "multi_thread")]
async fn routers_with_different_files_keep_to_the_one_that_was_edited_last_in_step() {
    let cluster = Cluster::start(options(2, 4, "")).await;
    let owners = cluster.owners("feed").await;
    cluster.pin("feed", &owners);
    let swapped: Vec<usize> = owners.iter().map(|owner| 1 - owner).collect();
    second_map(&cluster, &swapped);
    let one = tokio::task::block_in_place(|| cluster.router());
    agreed(&one).await;
    let two = tokio::task::block_in_place(|| second_router(&cluster));
    waits(&two, "wants other places than what is agreed on").await;
    // An edit of the router in step counts, the other's does not.
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    done(&cluster, 1).await;
    let mut third = owners.clone();
    third[1] = 1 - owners[1];
    second_map(&cluster, &third);
    until("the other router to have the edit in force", || async {
        let drift = two.metric("pgbraid_map_drift_tables", &["\"feed\""]);
        (drift == 2.0).then_some(())
    })
    .await;
    waits(&two, "wants other places than what is agreed on").await;
    // The same file everywhere: either of them may go on.
    second_map(&cluster, &wanted);
    waits(&two, "").await;
    assert_eq!(one.stop(), 0);
    second_map(&cluster, &swapped);
    done(&cluster, 4).await;
    assert_eq!(cluster.owners("feed").await, swapped);
    // The first one comes back with its old file, and leaves the tables where they are.
    let one = tokio::task::block_in_place(|| cluster.router());
    waits(&one, "wants other places than what is agreed on").await;
    // By hand it counts.
    cluster
        .map_done(&["clean", "--older-than", "0", "--confirm", "db0"])
        .await;
    cluster
        .map_done(&["clean", "--older-than", "0", "--confirm", "db1"])
        .await;
    cluster.map_done(&["apply"]).await;
    waits(&one, "").await;
    waits(&two, "wants other places than what is agreed on").await;
    assert_eq!(cluster.owners("feed").await, wanted);
    assert_eq!(moves(&cluster).await, (0, 7, 0));
}

/// The map comes as a ConfigMap: links through `..data`, and that link is swapped.
fn swap(cluster: &Cluster, folder: &str, pins: &[usize]) {
    std::fs::create_dir(cluster.path(folder)).expect("a folder can be made");
    let file = cluster.path(folder).join("shardmap.toml");
    std::fs::write(file, cluster.pinned("feed", pins)).expect("a file");
    symlink(folder, cluster.path("..data_tmp")).expect("a link");
    std::fs::rename(cluster.path("..data_tmp"), cluster.path("..data")).expect("a swap");
}

/// Keeps a table from being cut over.
async fn hold(cluster: &Cluster, instance: usize, table: usize) -> Client {
    let client = cluster.superuser(instance).await;
    let sql = format!("begin; lock table feed_{table} in row exclusive mode");
    client.batch_execute(&sql).await.expect("a lock");
    client
}

async fn under_way(cluster: &Cluster, phase: &str) {
    until(&format!("a move to {phase}"), || async {
        let sql = "select phase from pgbraid.move where outcome is null";
        let row = cluster.sql(0).await.query_opt(sql, &[]).await;
        let found: String = row.expect("the home answers")?.get(0);
        (found == phase).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_told_once_and_an_edit_or_an_abort_is_heeded() {
    let cluster = Cluster::start(options(3, 3, "")).await;
    let owners = cluster.owners("feed").await;
    let mut wanted = owners.clone();
    swap(&cluster, "..1", &wanted);
    std::fs::remove_file(cluster.path("shardmap.toml")).expect("the file makes room");
    symlink("..data/shardmap.toml", cluster.path("shardmap.toml")).expect("a link");
    let router = tokio::task::block_in_place(|| cluster.router());
    agreed(&router).await;

    // Somebody has altered one instance alone.
    wanted[0] = (owners[0] + 1) % 3;
    let target = cluster.superuser(wanted[0]).await;
    let alter = "alter table feed add column extra int";
    target.batch_execute(alter).await.expect("a column");
    swap(&cluster, "..2", &wanted);
    waits(&router, "has other columns").await;
    until("it to be tried again", || async {
        let failures = router.metric("pgbraid_auto_move_failures_total", &["refused"]);
        (failures >= 2.0).then_some(())
    })
    .await;
    let told = router
        .log()
        .matches("tables are not moved by this router")
        .count();
    assert_eq!(told, 1, "it is told once");
    let alter = "alter table feed drop column extra";
    target.batch_execute(alter).await.expect("no column");
    done(&cluster, 1).await;
    waits(&router, "").await;

    // Another edit while a table is on its way to where it is not wanted any more.
    let held = hold(&cluster, owners[1], 1).await;
    wanted[1] = (owners[1] + 1) % 3;
    swap(&cluster, "..3", &wanted);
    under_way(&cluster, "catch up").await;
    wanted[1] = (owners[1] + 2) % 3;
    swap(&cluster, "..4", &wanted);
    until("the first way to be undone", || async {
        (moves(&cluster).await.2 == 1).then_some(())
    })
    .await;
    held.batch_execute("rollback").await.expect("no lock");
    done(&cluster, 2).await;

    // Undone by hand: it stays so until the next edit.
    let held = hold(&cluster, owners[2], 2).await;
    wanted[2] = (owners[2] + 1) % 3;
    swap(&cluster, "..5", &wanted);
    under_way(&cluster, "catch up").await;
    cluster.map_done(&["abort"]).await;
    held.batch_execute("rollback").await.expect("no lock");
    waits(&router, "nobody has edited it").await;
    assert_eq!(moves(&cluster).await, (0, 2, 2));
    wanted[2] = (owners[2] + 2) % 3;
    swap(&cluster, "..6", &wanted);
    done(&cluster, 3).await;
    assert_eq!(cluster.owners("feed").await, wanted);
    let ended = |outcome| router.metric("pgbraid_moves_total", &[outcome]);
    assert_eq!((ended("done"), ended("aborted")), (3.0, 1.0));
    assert_eq!(router.metric("pgbraid_moves_under_way", &[]), 0.0);
}
