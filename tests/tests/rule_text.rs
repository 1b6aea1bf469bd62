//! Triggers that another version of pgbraid has made of the same rules: older ones are made anew
//! without an edit, newer ones are left alone.

use pgbraid_tests::{
    Cluster, ClusterOptions,
    rules::{edge, put},
    run, wait,
};
use tokio_postgres::Client;

/// As another version would have left it: with its number, and other triggers.
async fn made_by(sql: &Client, text: &str) {
    let text = format!(
        "update pgbraid.rule_set set {text};
         drop trigger pgbraid_rules_update on public.feed;
         alter function pgbraid.rules_feed() set work_mem = '1MB';"
    );
    sql.batch_execute(&text).await.expect("it can be changed");
}

/// Whether the triggers are those of the rules, as this version makes them.
async fn is_ours(sql: &Client) -> bool {
    let query = "select (select count(*) from pg_trigger where tgrelid = 'public.feed'::regclass \
                  and tgname like 'pgbraid\\_rules\\_%') = 2 \
                 and (select proconfig::text not like '%work_mem%' from pg_proc \
                  where proname = 'rules_feed') and text_version = version from pgbraid.rule_set";
    sql.query_one(query, &[]).await.expect("a query").get(0)
}

async fn renewed(sql: &Client) {
    wait::until("triggers as this version makes them", || async {
        is_ours(sql).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn older_triggers_are_made_anew_and_newer_ones_are_left_alone() {
    let cluster = Cluster::start(ClusterOptions {
        instances: 3,
        feeds: vec![("feed".into(), 3)],
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    let rules = [edge("high", "c1 > 10"), edge("low", "c1 < 0")];
    put(&router, rules).await.expect("the rules are taken");
    drop(router);
    let (home, other, newer) = (
        cluster.sql(0).await,
        cluster.sql(1).await,
        cluster.sql(2).await,
    );
    for sql in [&home, &other, &newer] {
        assert!(is_ours(sql).await);
    }

    made_by(&home, "trigger_text = 0").await;
    // It did not know of the number, and has edited the rules.
    made_by(&other, "text_version = version - 1").await;
    made_by(&newer, "trigger_text = 1000000").await;
    let router = cluster.router();
    renewed(&home).await;
    renewed(&other).await;
    assert!(!is_ours(&newer).await, "a newer version's are replaced");
    drop(router);

    made_by(&home, "trigger_text = 0").await;
    let config = cluster.config();
    let migrated = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    assert!(migrated.status.success());
    assert!(is_ours(&home).await);
    assert!(!is_ours(&newer).await, "a newer version's are replaced");

    // An edit by this version makes all of them its own: they are of its rules.
    let router = cluster.router();
    put(&router, [edge("higher", "c1 > 20")])
        .await
        .expect("taken");
    assert!(is_ours(&newer).await);
}
