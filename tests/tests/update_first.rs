//! Large batches are updates first, and inserts of what the update did not find: nobody can tell
//! from the rows, nor from the triggers, which way they went.

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Writer,
    rows::{self, int32s, int64s},
    wait,
};

const SCHEMA: &str = r#"
create table feed (
    id int8 primary key,
    c1 int constraint c1_not_negative check (c1 >= 0),
    c2 int default 5,
    top int,
    first int
) partition by hash (id);
create table log (op text, statement text, id int8, c1 int);
create function note() returns trigger language plpgsql as $$
begin
    insert into log values (tg_op, split_part(current_query(), ' ', 1), new.id, new.c1);
    return null;
end $$;
create trigger note after insert or update on feed for each row execute function note();
"#;

/// So many batches of stored rows, and the router takes them for that.
const SOON: i32 = 20;

async fn start() -> (Cluster, Router) {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        schema: SCHEMA.into(),
        // One table: a request is a batch.
        feeds: vec![("feed".into(), 1)],
        config: "[feeds.feed]\nmerge = { top = \"max\", first = \"keep_first\" }\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    (cluster, router)
}

/// Writes c1, top and first of some keys.
async fn write(
    router: &Router,
    keys: impl Iterator<Item = i64>,
    value: impl Fn(i64) -> i32,
) -> v1::WriteResponse {
    let keys: Vec<i64> = keys.collect();
    let values: Vec<i32> = keys.iter().map(|key| value(*key)).collect();
    let columns = ["c1", "top", "first"].map(|name| int32s(name, &values));
    let mut writer = Writer::open(router).await;
    let request = rows::columnar("feed", int64s("", &keys), columns.into());
    writer.send(request).await.expect("the stream is open");
    writer.answer().await.expect("there is an answer").1
}

async fn logged(cluster: &Cluster, condition: &str) -> i64 {
    let sql = format!("select count(*) from public.log where {condition}");
    cluster.sum(&sql).await
}

async fn stored(cluster: &Cluster, condition: &str) -> i64 {
    let sql = format!("select count(*) from public.feed where {condition}");
    cluster.sum(&sql).await
}

#[tokio::test]
async fn stored_and_missing_rows_of_a_batch_are_each_written_once() {
    let (cluster, router) = start().await;
    // None is stored: the update finds nothing, and all are inserted.
    let answer = write(&router, 0..2000, |_| 10).await;
    assert_eq!((answer.rows_committed, answer.refused.len()), (2000, 0));
    assert_eq!(logged(&cluster, "op = 'INSERT'").await, 2000);
    assert_eq!(stored(&cluster, "c1 = 10 and c2 = 5").await, 2000);

    // All are stored, often enough for the router to know.
    for value in (0..SOON).map(|n| if n % 2 == 0 { 12 } else { 8 }) {
        let answer = write(&router, 0..2000, |_| value).await;
        assert_eq!(answer.rows_committed, 2000);
    }
    assert_eq!(
        logged(&cluster, "op = 'UPDATE'").await,
        i64::from(SOON) * 2000
    );
    assert!(
        logged(&cluster, "statement = 'update'").await > 0,
        "no batch was an update"
    );
    let merged = "c1 = 8 and c2 = 5 and top = 12 and first = 10";
    assert_eq!(stored(&cluster, merged).await, 2000);

    // A few are missing.
    let answer = write(&router, 0..2100, |_| 20).await;
    assert_eq!((answer.rows_committed, answer.refused.len()), (2100, 0));
    assert_eq!(
        logged(
            &cluster,
            "c1 = 20 and op = 'UPDATE' and statement = 'update'"
        )
        .await,
        2000
    );
    assert_eq!(logged(&cluster, "c1 = 20 and op = 'INSERT'").await, 100);
    assert_eq!(stored(&cluster, "c1 = 20 and top = 20").await, 2100);
    assert_eq!(stored(&cluster, "first = 10").await, 2000);
}

/// Somebody inserts a key after the update has looked for it and before the insert does: neither
/// writes it, and the write must not be lost.
#[tokio::test]
async fn a_row_inserted_between_update_and_insert_is_written_too() {
    let (cluster, router) = start().await;
    let other = cluster.sql(0).await;
    for _ in 0..SOON {
        write(&router, 0..2000, |_| 1).await;
    }
    // The update ends when the gate is open.
    other
        .batch_execute(
            "create function gate() returns trigger language plpgsql as $$ begin
                 if new.id = 0 and new.c1 = 2 then perform pg_advisory_xact_lock_shared(4711); end if;
                 return null;
             end $$;
             create trigger gate after update on feed for each row execute function gate();
             select pg_advisory_lock(4711)",
        )
        .await
        .expect("the gate is made");
    let keys = 0..2001;
    let (answer, ()) = tokio::join!(write(&router, keys, |_| 2), async {
        wait::until("the update stands at the gate", || async {
            let waiting = "select from pg_locks where locktype = 'advisory' and not granted";
            let found = other.query_opt(waiting, &[]).await.expect("db0 answers");
            found.map(drop)
        })
        .await;
        let between = "insert into feed (id, c1, c2) values (2000, 9, 9); \
                       select pg_advisory_unlock(4711)";
        other.batch_execute(between).await.expect("it is inserted");
    });
    assert_eq!((answer.rows_committed, answer.refused.len()), (2001, 0));
    assert_eq!(
        stored(&cluster, "c1 = 2").await,
        2001,
        "an acked write is lost"
    );
    assert_eq!(stored(&cluster, "id = 2000 and c2 = 9").await, 1);
    assert_eq!(logged(&cluster, "c1 = 2").await, 2001);
}

#[tokio::test]
async fn a_missing_row_that_is_refused_takes_back_the_update_beside_it() {
    let (cluster, router) = start().await;
    write(&router, 0..2000, |_| 1).await;
    for _ in 0..SOON {
        write(&router, 0..2000, |_| 2).await;
    }
    // 2007 is not stored, and may not be.
    let answer = write(&router, 0..2010, |key| if key == 2007 { -1 } else { 3 }).await;
    assert_eq!(answer.rows_committed, 2009);
    let [refused] = answer.refused.as_slice() else {
        panic!("one row is refused: {:?}", answer.refused)
    };
    assert_eq!(
        (refused.index, refused.constraint.as_str()),
        (2007, "c1_not_negative")
    );
    assert_eq!(stored(&cluster, "c1 = 3").await, 2009);
    assert_eq!(
        logged(&cluster, "c1 = 3").await,
        2009,
        "no write was seen twice by triggers"
    );
}
