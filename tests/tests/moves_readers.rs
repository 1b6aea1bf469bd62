//! Tables move while others read or lock them for as long as they like, and arrive with all that they
//! had.

use nix::sys::signal::Signal;
use pgbraid_tests::{Cluster, ClusterOptions, Writer, rows, wait::until};
use tokio_postgres::Client;

/// Something of each that a table can have.
const SCHEMA: &str = "\
    create table kind (name text primary key); \
    insert into kind values ('a'); \
    create table feed ( \
        id int8 primary key, \
        c1 int not null default 7 check (c1 >= 0), \
        kind text references kind (name), \
        long text collate \"C\", \
        doubled int generated always as (c1 * 2) stored, \
        constraint small check (c1 < 1000) \
    ) partition by hash (id); \
    alter table feed alter long set storage external; \
    create index on feed (c1) where c1 > 5; \
    create statistics feed_statistics on c1, kind from feed; \
    create function noted() returns trigger language plpgsql as $$ begin return new; end $$; \
    create trigger noted before insert on feed for each row execute function noted();";

/// What a partition is made of, but for the triggers of moves.
const SHAPE: &str = "\
    select format('column %s %s %s %s %s %s %s %s', attname, format_type(atttypid, atttypmod), \
           attnotnull, attgenerated, attcollation, attstorage, attislocal, \
           (select pg_get_expr(adbin, adrelid) from pg_attrdef \
            where adrelid = attrelid and adnum = attnum)) \
    from pg_attribute where attrelid = 'feed_0'::regclass and attnum > 0 \
    union all \
    select format('constraint %s %s %s %s', conname, pg_get_constraintdef(oid), conislocal, \
           coninhcount) from pg_constraint where conrelid = 'feed_0'::regclass \
    union all \
    select format('index %s %s %s', pg_get_indexdef(indexrelid), indisvalid, \
           exists (select from pg_inherits where inhrelid = indexrelid)) \
    from pg_index where indrelid = 'feed_0'::regclass \
    union all \
    select format('trigger %s %s', tgname, tgenabled) from pg_trigger \
    where tgrelid = 'feed_0'::regclass and not tgisinternal and tgname not like 'pgbraid_fence%' \
    union all \
    select format('table %s %s %s', reloptions, pg_get_partition_constraintdef(oid), \
           (select count(*) from pg_statistic_ext where stxrelid = c.oid)) \
    from pg_class c where oid = 'feed_0'::regclass \
    order by 1";

async fn shape(client: &Client) -> Vec<String> {
    let rows = client.query(SHAPE, &[]).await.expect("the catalog answers");
    let lines = rows.iter().map(|row| row.get::<_, String>(0));
    // The oid of the parent is another on each instance.
    lines
        .map(|line| match line.split_once("satisfies_hash_partition(") {
            Some((before, after)) => {
                let after = after.split_once("::oid").map_or(after, |(_, after)| after);
                format!("{before}satisfies_hash_partition({after}")
            }
            None => line,
        })
        .collect()
}

/// Keys of each table.
fn upsert(value: i64) -> pgbraid_proto::v1::WriteRequest {
    let rows = (0..400).map(|key| (rows::int(key), vec![rows::int(value)]));
    rows::rows("feed", &["c1"], rows)
}

/// Takes a table's lock as a long report does.
async fn report(cluster: &Cluster, instance: usize) -> Client {
    let reader = cluster.sql(instance).await;
    let begin = "begin; select count(*) from feed";
    reader.batch_execute(begin).await.expect("it reads");
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_report_holds_up_neither_a_move_nor_who_writes_meanwhile() {
    let cluster = Cluster::start(ClusterOptions {
        schema: SCHEMA.into(),
        ..ClusterOptions::moving(2, 4)
    })
    .await;
    let router = cluster.router();
    let mut writer = Writer::open(&router).await;
    writer.write(upsert(1)).await;
    let owners = cluster.owners("feed").await;
    let (old, new) = (owners[0], 1 - owners[0]);
    let before = shape(&cluster.sql(old).await).await;
    assert!(before.len() > 12, "{before:#?}");

    let readers = [report(&cluster, old).await, report(&cluster, new).await];
    let mut wanted = owners.clone();
    wanted[0] = new;
    cluster.pin("feed", &wanted);
    cluster.map_done(&["apply"]).await;
    writer.write(upsert(2)).await;
    for reader in &readers {
        reader.batch_execute("commit").await.expect("it has read");
    }

    assert_eq!(cluster.owners("feed").await, wanted);
    let after = shape(&cluster.sql(new).await).await;
    assert_eq!(
        after, before,
        "left: on its new instance, right: on its old"
    );
    let written = cluster.sum("select count(*) from feed where c1 = 2").await;
    assert_eq!(written, 400);
}

/// What can't be handed over is not decided.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_locks_the_copy_keeps_no_writer_waiting() {
    let cluster = Cluster::start(ClusterOptions::moving(2, 4)).await;
    let router = cluster.router();
    let owners = cluster.owners("feed").await;
    let mut writer = Writer::open(&router).await;
    writer.write(upsert(1)).await;
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    let mut mover = cluster.start_map(&["apply", "--freeze-after", "caught-up"]);
    mover.frozen().await;
    let locker = cluster.sql(wanted[0]).await;
    // As a vacuum does: the copy goes on, but cannot be handed over.
    let lock = "begin; lock table feed_0 in share update exclusive mode";
    locker.batch_execute(lock).await.expect("it is locked");
    mover.signal(Signal::SIGCONT);
    until("a cut-over to be put off", || async {
        let sql = "select cut from pgbraid.ownership where tbl = 0";
        let source = cluster.sql(owners[0]).await;
        let cuts: i32 = source.query_one(sql, &[]).await.ok()?.get(0);
        (cuts >= 2).then_some(())
    })
    .await;
    // Meanwhile rows go to the source.
    writer.write(upsert(2)).await;
    assert_eq!(cluster.owners("feed").await, owners);
    locker
        .batch_execute("commit")
        .await
        .expect("it is unlocked");
    let output = tokio::task::block_in_place(|| mover.end());
    assert!(output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("could not be locked within"), "{errors}");
    assert_eq!(cluster.owners("feed").await, wanted);
    writer.write(upsert(3)).await;
}
