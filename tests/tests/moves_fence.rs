//! Who may write a table that moves: nobody but its owner's writers, however they come.

use std::sync::Arc;

use nix::sys::signal::Signal;
use pgbraid_tests::{
    Cluster, ClusterOptions, Layout, Router, Writer,
    rows::{self, int},
    wait::until,
};
use tokio_postgres::Client;

async fn start() -> (Cluster, Arc<Router>, Layout, Vec<usize>) {
    let cluster = Cluster::start(ClusterOptions::moving(2, 4)).await;
    let router = Arc::new(cluster.router());
    let layout = Layout::of(&cluster, "feed").await;
    let owners = cluster.owners("feed").await;
    (cluster, router, layout, owners)
}

fn keys_of(layout: &Layout, table: usize, count: usize) -> Vec<i64> {
    layout.keys(count, |layout, key| layout.table(key) == table)
}

fn upsert(keys: &[i64], value: i64) -> pgbraid_proto::v1::WriteRequest {
    let rows = keys.iter().map(|key| (int(*key), vec![int(value)]));
    rows::rows("feed", &["c1"], rows)
}

/// Moves table 0 to the other instance. Returns the old and the new owner.
async fn move_table(cluster: &Cluster, owners: &[usize]) -> (usize, usize) {
    let mut wanted = owners.to_vec();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    cluster.map_done(&["apply"]).await;
    (owners[0], wanted[0])
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.expect("it counts").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_moved_away_takes_no_write_from_anybody() {
    let (cluster, router, layout, owners) = start().await;
    let keys = keys_of(&layout, 0, 20);
    let mut writer = Writer::open(&router).await;
    writer.write(upsert(&keys[..10], 1)).await;
    let (old, new) = move_table(&cluster, &owners).await;
    writer.write(upsert(&keys, 2)).await;
    let there = cluster.sql(old).await;
    let (stored, new_key) = (keys[0], keys[10]);
    for sql in [
        format!("insert into feed_0 (id) values ({new_key})"),
        format!("insert into feed (id) values ({new_key})"),
        format!("update feed set c1 = 9 where id = {stored}"),
        format!("update feed_0 set c1 = 9 where id = {stored}"),
        format!("delete from feed where id = {stored}"),
        // Finds no row here, but there is one at the owner.
        format!("delete from feed_0 where id = {new_key}"),
        "truncate feed_0".to_owned(),
        "truncate feed".to_owned(),
    ] {
        let error = there.batch_execute(&sql).await.expect_err(&sql);
        let error = error.as_db_error().expect("PostgreSQL says so");
        assert_eq!(error.code().code(), "PB001", "{sql}: {error}");
        assert_eq!(
            error.message(),
            format!("tbl0 of feed feed moved to db{new}"),
            "{sql}"
        );
        let detail = format!("feed=feed table=0 state=moved moved_to=db{new} epoch=2");
        assert_eq!(error.detail(), Some(detail.as_str()), "{sql}");
    }
    assert_eq!(
        count(&there, "select count(*) from feed_0 where c1 = 1").await,
        10
    );
    let here = cluster.sql(new).await;
    assert_eq!(
        count(&here, "select count(*) from feed_0 where c1 = 2").await,
        20
    );
    // Reading goes to the owner.
    let request = pgbraid_proto::v1::GetRequest {
        feed: "feed".into(),
        keys: Some(rows::int64s("", &keys)),
        ..Default::default()
    };
    let answer = rows::reads(&router).await.get(request).await;
    let answer = answer.expect("the rows can be read").into_inner();
    assert!(
        answer
            .rows
            .iter()
            .all(|row| row.found && row.instance == format!("db{new}"))
    );
}

/// The copy takes no early write either, by whatever name.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_takes_no_write_before_it_is_owned() {
    let (cluster, router, layout, owners) = start().await;
    let keys = keys_of(&layout, 0, 20);
    let mut writer = Writer::open(&router).await;
    writer.write(upsert(&keys, 1)).await;
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    let output =
        tokio::task::block_in_place(|| cluster.run_map(&["apply", "--stop-after", "caught-up"]));
    assert!(!output.status.success());
    let target = cluster.sql(wanted[0]).await;
    assert_eq!(count(&target, "select count(*) from feed_0").await, 20);
    for sql in [
        "update feed set c1 = 9",
        "delete from feed_0",
        "truncate feed_0",
    ] {
        let error = target.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().map(|code| code.code()), Some("PB001"), "{sql}");
    }
    // What is written at the owner follows; both sides are compared at one moment.
    writer.write(upsert(&keys, 2)).await;
    let told = cluster.map_done(&["verify"]).await;
    assert!(told.contains("has 20 rows, checksums equal"), "{told}");
    // A difference is found.
    let admin = cluster.superuser(wanted[0]).await;
    let sabotage = "set session_replication_role = replica; update feed_0 set c2 = 7 where id in \
         (select id from feed_0 limit 1)";
    admin
        .batch_execute(sabotage)
        .await
        .expect("a superuser may");
    let output = tokio::task::block_in_place(|| cluster.run_map(&["verify", "--json"]));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"equal\":false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_slept_through_a_move_writes_to_the_new_place() {
    let (cluster, router, layout, owners) = start().await;
    let keys = keys_of(&layout, 0, 50);
    let mut writer = Writer::open(&router).await;
    writer.write(upsert(&keys, 1)).await;
    router.signal(Signal::SIGSTOP);
    let (old, new) = move_table(&cluster, &owners).await;
    // It wakes up with rows to write, the old routing, and no news read. Some of what it deletes was
    // never at the old owner; other tables' rows go with that, so that it goes through the parent.
    let here = cluster.sql(new).await;
    let late = &keys_of(&layout, 0, 60)[50..];
    for key in late {
        let insert = format!("insert into feed (id) values ({key})");
        here.batch_execute(&insert)
            .await
            .expect("the owner takes it");
    }
    let others = layout.keys(20, |layout, key| {
        layout.owner(key) == old && layout.table(key) != 0
    });
    let deleted = late.iter().chain(&others).map(|key| int(*key));
    writer
        .send(rows::deletes("feed", deleted))
        .await
        .expect("the stream is open");
    writer
        .send(upsert(&keys, 2))
        .await
        .expect("the stream is open");
    router.signal(Signal::SIGCONT);
    writer.settle().await;
    let late: Vec<String> = late.iter().map(ToString::to_string).collect();
    let left = format!(
        "select count(*) from feed_0 where id in ({})",
        late.join(",")
    );
    assert_eq!(count(&here, &left).await, 0, "deleted rows are gone");
    let there = cluster.sql(old).await;
    assert_eq!(
        count(&there, "select count(*) from feed_0 where c1 = 2").await,
        0
    );
    assert_eq!(
        count(&here, "select count(*) from feed_0 where c1 = 2").await,
        50
    );
}

/// It knows nothing of the new instance: rows are refused for a while, not put into the old place.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_with_the_old_map_writes_nothing_to_the_old_place() {
    let cluster = Cluster::start_bare(&ClusterOptions::moving(3, 4)).await;
    let feeds = [("feed".to_owned(), 4)];
    cluster.write_map(&cluster.map(2, &feeds));
    let config = cluster.config().to_str().expect("UTF-8").to_owned();
    let migrated = pgbraid_tests::run(&["migrate", "--config", &config]);
    assert!(migrated.status.success());
    // Two routers: one reads the map that will change, the other a copy that will not.
    let old = std::fs::read_to_string(cluster.config()).expect("the settings");
    let stale = cluster.path("stale.toml");
    std::fs::write(&stale, old.replace("shardmap.toml", "stale-map.toml")).expect("a file");
    std::fs::copy(
        cluster.path("shardmap.toml"),
        cluster.path("stale-map.toml"),
    )
    .expect("a copy");
    let (router, stale) = (cluster.router(), Router::start(&stale));
    let owners = {
        let client = cluster.sql(0).await;
        let sql = "select tbl from pgbraid.ownership where state = 'owned'";
        let rows = client.query(sql, &[]).await.expect("ownership");
        let tables: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        (0..4)
            .map(|table| usize::from(!tables.contains(&table)))
            .collect::<Vec<_>>()
    };
    let keys: Vec<i64> = (0..200).collect();
    Writer::open(&router).await.write(upsert(&keys, 1)).await;
    let mut wanted = owners.clone();
    wanted[0] = 2;
    cluster.pin("feed", &wanted);
    let migrated = pgbraid_tests::run(&["migrate", "--config", &config]);
    assert!(migrated.status.success());
    cluster.map_done(&["apply"]).await;
    Writer::open(&router).await.write(upsert(&keys, 2)).await;

    let mut writer = Writer::open(&stale).await;
    let mut request = upsert(&keys, 3);
    request.timeout = Some(
        std::time::Duration::from_secs(3)
            .try_into()
            .expect("a time"),
    );
    writer.send(request).await.expect("the stream is open");
    let (_, answer) = writer.answer().await.expect("an answer");
    let layout = Layout::of(&cluster, "feed").await;
    let moved: Vec<u32> = (keys.iter().enumerate())
        .filter(|(_, key)| layout.table(**key) == 0)
        .map(|(at, _)| at as u32)
        .collect();
    let refused: Vec<u32> = answer.refused.iter().map(|row| row.index).collect();
    assert_eq!(refused, moved, "only the moved table's rows are refused");
    assert!(
        answer
            .refused
            .iter()
            .all(|row| row.code == tonic::Code::Unavailable as i32)
    );
    let rows = cluster.rows_everywhere("c1").await;
    for key in &keys {
        let expected = if layout.table(*key) == 0 { "2" } else { "3" };
        let owner = layout.owner(*key);
        assert!(
            rows[key].contains(&(owner, expected.into())),
            "{key}: {:?}",
            rows[key]
        );
        let elsewhere = rows[key]
            .iter()
            .find(|(at, value)| *at != owner && value != "1");
        assert_eq!(elsewhere, None, "{key} was written in the wrong place");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_movers_do_not_meet_and_a_paused_one_goes_on() {
    let (cluster, router, layout, owners) = start().await;
    let keys = keys_of(&layout, 0, 20);
    Writer::open(&router).await.write(upsert(&keys, 1)).await;
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    cluster.map_done(&["pause"]).await;
    let first = cluster.start_map(&["apply"]);
    until("the first to be at work", || async {
        let output = tokio::task::block_in_place(|| cluster.run_map(&["status", "--json"]));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text.contains(&format!("process {}", first.id())) && text.contains("feed/tbl0"))
            .then_some(())
    })
    .await;
    let second = tokio::task::block_in_place(|| cluster.run_map(&["apply"]));
    assert_eq!(second.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&second.stderr).into_owned();
    let holder = format!("process {} carries out moves already", first.id());
    assert!(errors.contains(&holder), "{errors}");
    assert_eq!(
        cluster.owners("feed").await,
        owners,
        "nothing moves while paused"
    );
    cluster.map_done(&["resume"]).await;
    let done = tokio::task::block_in_place(|| first.end());
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(cluster.owners("feed").await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_plan_is_carried_out_or_stale() {
    let (cluster, _router, _, owners) = start().await;
    let plan = cluster
        .path("plan.json")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let planned = |arguments: &[&str]| {
        let mut all = vec!["plan", "--detailed-exitcode"];
        all.extend_from_slice(arguments);
        tokio::task::block_in_place(|| cluster.run_map(&all))
    };
    cluster.pin("feed", &owners);
    assert_eq!(planned(&[]).status.code(), Some(0));
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    wanted[1] = 1 - owners[1];
    cluster.pin("feed", &wanted);
    let output = planned(&["--out", &plan]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.lines()
            .all(|line| line.chars().count() <= 80 || line.contains("carry it out"))
    );
    assert!(text.contains("2 tables to move"), "{text}");
    // The file has changed since.
    cluster.pin("feed", &owners);
    let stale = tokio::task::block_in_place(|| cluster.run_map(&["apply", &plan]));
    let errors = String::from_utf8_lossy(&stale.stderr).into_owned();
    assert!(
        errors.contains("the plan is stale: it was made from map"),
        "{errors}"
    );
    assert_eq!(cluster.owners("feed").await, owners);
    // Interrupted, the same plan goes on.
    cluster.pin("feed", &wanted);
    let killed = tokio::task::block_in_place(|| {
        cluster.run_map(&["apply", &plan, "--at-once", "1", "--stop-after", "closed"])
    });
    assert!(!killed.status.success());
    cluster.map_done(&["apply", &plan]).await;
    assert_eq!(cluster.owners("feed").await, wanted);
    let again = planned(&["--json"]);
    assert_eq!(again.status.code(), Some(0));
}

/// Restored from a backup, or edited by hand: two instances say that they own a table.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_owned_twice_is_written_nowhere_until_one_gives_it_up() {
    let (cluster, router, layout, owners) = start().await;
    let keys = keys_of(&layout, 0, 5);
    let mut writer = Writer::open(&router).await;
    writer.write(upsert(&keys, 1)).await;
    let other = cluster.sql(1 - owners[0]).await;
    let plant = "create table feed_0 partition of feed for values with (modulus 4, remainder 0); \
         insert into pgbraid.ownership (feed, tbl, epoch, state) values ('feed', 0, 5, 'owned'); \
         notify pgbraid_ownership";
    other.batch_execute(plant).await.expect("it can be planted");
    until("the router to say so", || async {
        (router.metric("pgbraid_map_conflict_tables", &[]) == 1.0).then_some(())
    })
    .await;
    writer.send(upsert(&keys, 2)).await.expect("the stream");
    let (_, answer) = writer.answer().await.expect("an answer");
    assert_eq!(answer.refused.len(), keys.len());
    assert!(
        answer
            .refused
            .iter()
            .all(|row| row.reason == "TABLE_OWNED_TWICE"),
        "{:?}",
        answer.refused
    );
    let output = tokio::task::block_in_place(|| cluster.run_map(&["plan"]));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("tbl0 of feed feed is owned by db0 and db1 at once"),
        "{text}"
    );
    let give_up = "delete from pgbraid.ownership where tbl = 0 and epoch = 5; \
         notify pgbraid_ownership";
    other.batch_execute(give_up).await.expect("it gives up");
    until("the conflict to be over", || async {
        (router.metric("pgbraid_map_conflict_tables", &[]) == 0.0).then_some(())
    })
    .await;
    writer.write(upsert(&keys, 3)).await;
    let planted = "select count(*) from feed_0";
    assert_eq!(count(&other, planted).await, 0, "nothing was written there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_over_that_takes_too_long_is_undone_and_tried_again() {
    let (cluster, router, layout, owners) = start().await;
    let keys = keys_of(&layout, 0, 20);
    let mut writer = Writer::open(&router).await;
    writer.write(upsert(&keys, 1)).await;
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    let killed =
        tokio::task::block_in_place(|| cluster.run_map(&["apply", "--stop-after", "caught-up"]));
    assert!(!killed.status.success());
    // The target can't apply what comes now.
    let target = cluster.superuser(wanted[0]).await;
    let lock = "begin; lock table feed_0 in share mode";
    target.batch_execute(lock).await.expect("it locks");
    writer.write(upsert(&keys, 2)).await;
    until("the lease to end", || async {
        let output = tokio::task::block_in_place(|| cluster.run_map(&["status"]));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("nobody carries out moves").then_some(())
    })
    .await;
    let mover = cluster.start_map(&["apply"]);
    let source = cluster.sql(owners[0]).await;
    until("two cut-overs to be undone", || async {
        let cuts = "select cut::int8 from pgbraid.ownership where tbl = 0";
        (count(&source, cuts).await > 2).then_some(())
    })
    .await;
    // Writes go on meanwhile.
    writer.write(upsert(&keys, 3)).await;
    let decided = "select count(*) from pgbraid.ownership where tbl = 0 and state = 'moved'";
    assert_eq!(count(&source, decided).await, 0);
    target.batch_execute("commit").await.expect("it lets go");
    let done = tokio::task::block_in_place(|| mover.end());
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{told}");
    assert!(
        told.contains("had not caught up within 1s; again in"),
        "{told}"
    );
    assert_eq!(cluster.owners("feed").await, wanted);
    let here = cluster.sql(wanted[0]).await;
    assert_eq!(
        count(&here, "select count(*) from feed_0 where c1 = 3").await,
        20
    );
}

/// Partitions of another modulus would take keys that are elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_map_with_another_number_of_tables_moves_nothing() {
    let (cluster, _router, _layout, owners) = start().await;
    let before = cluster.footprint().await;
    for wrong in [&owners[..2], &[owners.clone(), owners.clone()].concat()[..]] {
        let turned: Vec<usize> = wrong.iter().map(|owner| 1 - owner).collect();
        cluster.pin("feed", &turned);
        for command in ["plan", "apply"] {
            let output = tokio::task::block_in_place(|| cluster.run_map(&[command]));
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                !output.status.success(),
                "{command} with {} tables",
                wrong.len()
            );
            assert!(errors.contains("was made with 4 tables"), "{errors}");
        }
    }
    assert_eq!(cluster.footprint().await, before);
}
