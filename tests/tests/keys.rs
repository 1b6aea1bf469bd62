//! Keys of text and uuid: each is written to its owner, and found there.

use pgbraid_proto::v1::{self, column::Values};
use pgbraid_tests::{
    Cluster, ClusterOptions, Writer,
    rows::{self, column, int, text},
};

#[tokio::test]
async fn keys_of_text_and_uuid_find_their_rows() {
    for (ty, keys) in [
        (
            "text",
            vec!["", "a", "Ä ö/\"'", "\u{1F980}", " ", "null", "0"],
        ),
        (
            "uuid",
            vec![
                "00000000-0000-0000-0000-000000000000",
                "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            ],
        ),
    ] {
        let cluster = Cluster::start(ClusterOptions {
            schema: format!(
                "create table feed (id {ty} primary key, i4 int) partition by hash (id);"
            ),
            ..ClusterOptions::default()
        })
        .await;
        let router = cluster.router();
        let mut writer = Writer::open(&router).await;
        let all = keys
            .iter()
            .enumerate()
            .map(|(at, key)| (text(*key), vec![int(at as i64)]));
        writer.write(rows::rows("feed", &["i4"], all)).await;
        let texts = keys.iter().map(|key| (*key).to_owned()).collect();
        let keys_column = column("id", Values::Texts(v1::Texts { values: texts }));
        let request = v1::GetRequest {
            feed: "feed".into(),
            keys: Some(keys_column),
            columns: vec!["i4".into(), "id".into()],
            format: v1::Format::Row.into(),
        };
        let read = rows::reads(&router).await.get(request).await;
        let read = read.expect("rows are read").into_inner().rows;
        for (at, (row, key)) in read.iter().zip(&keys).enumerate() {
            assert!(row.found, "{ty} {key:?}");
            assert_eq!(row.values[0], int(at as i64), "{ty} {key:?}");
            assert_eq!(row.values.last(), Some(&text(*key)), "{ty} {key:?}");
            let owner: usize = row.instance["db".len()..].parse().expect("a number");
            let table = format!("public.feed_{}", &row.table["tbl".len()..]);
            let there = format!(
                "select count(*) from {table} where id = '{}'",
                key.replace('\'', "''")
            );
            let count = cluster.sql(owner).await.query_one(&there, &[]).await;
            assert_eq!(
                count.expect("the table is there").get::<_, i64>(0),
                1,
                "{ty} {key:?}"
            );
        }
    }
}
