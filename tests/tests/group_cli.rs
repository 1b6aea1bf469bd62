//! Groups from the command line: the real binary against real clusters.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::Instant,
};

use pgbraid_tests::{
    Cluster, ClusterOptions, Router, binary, rows,
    wait::{LIMIT, until},
};
use serde_json::Value;

/// What a command came to.
#[derive(Debug)]
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).expect("a JSON object on each line");
        self.stdout.lines().map(parse).collect()
    }
}

async fn alerts(router: &Router, args: &[&str]) -> Done {
    let mut command = Command::new(binary());
    command
        .arg("alerts")
        .args(args)
        .env("PGBRAID_ROUTER", format!("http://{}", router.grpc))
        .stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(LIMIT, ended).await;
    let output = output.expect("it ends in time").expect("no panic");
    let output = output.expect("pgbraid starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Its stdout, of a command that succeeds.
async fn ok(router: &Router, args: &[&str]) -> String {
    let done = alerts(router, args).await;
    assert_eq!(done.code, 0, "{args:?}: {done:?}");
    done.stdout
}

/// Its stderr, of a command that fails.
async fn fails(router: &Router, args: &[&str]) -> String {
    let done = alerts(router, args).await;
    assert_eq!(done.code, 1, "{args:?}: {done:?}");
    assert_eq!(done.stdout, "", "{args:?}");
    done.stderr
}

async fn json(router: &Router, args: &[&str]) -> Value {
    let text = ok(router, args).await;
    serde_json::from_str(&text).expect("one JSON object")
}

/// A fleet whose feed raises an alert for each row with a positive c1, on channel a or b.
async fn cluster() -> (Cluster, Router) {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let rules = [("positive", "c1 > 0", "a"), ("negative", "c1 < 0", "b")];
    cluster.put_rules(&router, "feed", &rules).await;
    (cluster, router)
}

async fn write(router: &Router, keys: std::ops::Range<i64>, value: i32) {
    let keys: Vec<i64> = keys.collect();
    let values = vec![value; keys.len()];
    let columns = vec![rows::int32s("c1", &values)];
    let request = rows::columnar("feed", rows::int64s("", &keys), columns);
    let answer = rows::ingest(router).await.write(request).await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_put_listed_paused_and_removed() {
    let (_cluster, router) = cluster().await;
    let none = alerts(&router, &["groups"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    assert!(none.stderr.contains("groups put"), "{}", none.stderr);

    let put = [
        "groups",
        "put",
        "mail",
        "--channel",
        "a",
        "--max-deliveries",
        "3",
    ];
    assert_eq!(ok(&router, &put).await, "created: mail (version 1)\n");
    // Only what is given changes.
    let put = [
        "groups",
        "put",
        "mail",
        "--visibility-timeout",
        "5m",
        "--order-by-key",
    ];
    assert_eq!(ok(&router, &put).await, "changed: mail (version 2)\n");
    let listed = json(&router, &["groups", "--json"]).await;
    let group = &listed["groups"][0];
    assert_eq!(group["filter"]["channels"][0], "a", "{group}");
    assert_eq!(group["max_deliveries"], 3, "{group}");
    assert_eq!(group["visibility_timeout_seconds"], 300.0, "{group}");
    assert_eq!(group["order_by_key"], true, "{group}");
    assert_eq!(group["instances"].as_array().map(Vec::len), Some(2));
    let put = [
        "groups",
        "put",
        "mail",
        "--order-by-key=false",
        "--no-filter",
    ];
    ok(&router, &put).await;
    let listed = json(&router, &["groups", "list", "--group", "mail", "--json"]).await;
    let group = &listed["groups"][0];
    assert_eq!(group["order_by_key"], false, "{group}");
    assert_eq!(
        group["filter"]["channels"].as_array().map(Vec::len),
        Some(0)
    );

    let paused = ok(&router, &["groups", "pause", "mail"]).await;
    assert_eq!(paused, "changed: mail (version 4, paused)\n");
    write(&router, 0..7, 1).await;
    let table = ok(&router, &["groups"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(
        (cells[0], cells[1], cells[7]),
        ("mail", "7", "paused"),
        "{table}"
    );
    let shown = ok(&router, &["groups", "--group", "mail"]).await;
    assert!(
        shown.starts_with("mail (version 4, paused)\n  300s to ack, delivered 3"),
        "{shown}"
    );
    assert!(shown.contains("\ndb1 "), "{shown}");

    // What another editor did is not overwritten.
    let stale = fails(&router, &["groups", "resume", "mail", "--expect", "3"]).await;
    assert!(stale.contains("version"), "{stale}");
    ok(&router, &["groups", "resume", "mail", "--expect", "4"]).await;
    let new = fails(&router, &["groups", "put", "mail", "--expect", "0"]).await;
    assert!(new.contains("mail"), "{new}");
    let moved = fails(&router, &["groups", "put", "mail", "--from", "earliest"]).await;
    assert!(moved.contains("alerts replay --group mail"), "{moved}");

    for (args, told) in [
        (&["groups", "put", "a b"][..], "letters, digits"),
        (&["groups", "put", "x", "--feed", "nope"], "nope"),
        (&["groups", "put", "x", "--rule", "nope"], "nope"),
        (
            &["groups", "put", "x", "--visibility-timeout", "soon"],
            "such as 30s",
        ),
        (
            &["groups", "put", "x", "--visibility-timeout", "48h"],
            "visibility_timeout",
        ),
        (&["groups", "put", "x", "--paused", "--resume"], "--resume"),
        (
            &["groups", "put", "x", "--from", "yesterday"],
            "neither now",
        ),
        (&["groups", "pause", "nope"], "there is no group"),
        (&["groups", "remove", "nope"], "nope"),
        (&["groups", "--group", "nope"], "nope"),
        (&["consume", "--group", "nope"], "nope"),
        (&["consume"], "--group"),
        (&["dead", "list", "--group", "nope"], "nope"),
        (&["dead", "drop", "--group", "mail"], "--all"),
        (&["dead", "drop", "--group", "mail", "17"], "db3/17"),
        (&["replay", "--group", "mail"], "--from"),
        (
            &[
                "replay",
                "--group",
                "mail",
                "--from",
                "now",
                "--instance",
                "db77",
            ],
            "db77",
        ),
    ] {
        let stderr = fails(&router, args).await;
        assert!(stderr.contains(told), "{args:?}: {stderr}");
    }
    assert_eq!(
        ok(&router, &["groups", "remove", "mail"]).await,
        "removed: mail\n"
    );
    let listed = json(&router, &["groups", "--json"]).await;
    assert_eq!(listed["groups"].as_array().map(Vec::len), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consume_prints_and_acks_and_replay_brings_back() {
    let (_cluster, router) = cluster().await;
    write(&router, 0..5, 1).await;
    write(&router, 5..9, -1).await;
    ok(
        &router,
        &[
            "groups",
            "put",
            "mail",
            "--channel",
            "a",
            "--from",
            "earliest",
        ],
    )
    .await;
    let keys = |done: &Done| -> BTreeSet<String> {
        let lines = done.lines();
        let key = |line: &Value| line["key"].as_str().expect("a key").to_owned();
        lines.iter().map(key).collect()
    };
    let consume = |count: &'static str| {
        let args = ["consume", "--group", "mail", "--json", "--count", count];
        let router = &router;
        async move {
            let done = alerts(router, &args).await;
            assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
            done
        }
    };
    let (first, second) = (consume("2").await, consume("3").await);
    assert_eq!((keys(&first).len(), keys(&second).len()), (2, 3));
    let all: BTreeSet<String> = (0..5).map(|key| key.to_string()).collect();
    let both: BTreeSet<String> = keys(&first).union(&keys(&second)).cloned().collect();
    assert_eq!(both, all);
    let line = &first.lines()[0];
    assert_eq!(
        (&line["group"], &line["delivery"]),
        (&"mail".into(), &1.into())
    );
    assert_eq!(
        (&line["event"], &line["row"]["c1"]),
        (&"alert".into(), &1.into())
    );
    assert!(line["deadline"].is_string(), "{line}");

    // Nothing is left; after a replay of one instance, what is on that one comes again.
    let behind = json(&router, &["groups", "--json"]).await;
    let on = |name: &str| {
        let lines = [first.lines(), second.lines()].concat();
        lines.iter().filter(|line| line["instance"] == name).count()
    };
    for instance in behind["groups"][0]["instances"].as_array().expect("a list") {
        assert_eq!(instance["in_flight"], 0, "{instance}");
    }
    let replayed = [
        "replay",
        "--group",
        "mail",
        "--from",
        "-1h",
        "--instance",
        "db1",
    ];
    assert_eq!(ok(&router, &replayed).await, "replayed: mail on db1\n");
    let count: &'static str = on("db1").to_string().leak();
    if on("db1") > 0 {
        let again = consume(count).await;
        assert!(again.lines().iter().all(|line| line["instance"] == "db1"));
    }
    let replayed = json(
        &router,
        &["replay", "--group", "mail", "--from", "earliest", "--json"],
    );
    assert_eq!(replayed.await["replayed"], "mail");
    let text = ok(&router, &["consume", "--group", "mail", "--count", "5"]).await;
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains(" positive "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_brings_it_again_and_then_to_the_dead() {
    let (cluster, router) = cluster().await;
    let put = [
        "groups",
        "put",
        "g",
        "--max-deliveries",
        "2",
        "--from",
        "earliest",
    ];
    ok(&router, &put).await;
    write(&router, 0..4, 1).await;
    let got = cluster.path("got");
    // Key 3 fails, all others are noted.
    let command = format!(
        "line=$(cat); case $line in *'\"key\":\"3\"'*) exit 7;; esac; echo \"$line\" >> {}",
        got.display()
    );
    let consume = [
        "consume",
        "--group",
        "g",
        "--member",
        "m1",
        "--exec",
        &command,
        "--count",
        "5",
        "--retry-delay",
        "0",
    ];
    let done = alerts(&router, &consume).await;
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
    assert!(done.stderr.contains("exit status: 7"), "{done:?}");
    assert!(
        done.stderr.contains("3 acked, 2 to be delivered again"),
        "{done:?}"
    );
    let lines = std::fs::read_to_string(&got).expect("commands ran");
    let mut keys: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["key"].clone())
        .collect();
    keys.sort_by_key(ToString::to_string);
    assert_eq!(keys, ["0", "1", "2"]);

    let dead = alerts(&router, &["dead", "list", "--group", "g", "--json"]).await;
    let [letter] = &dead.lines()[..] else {
        panic!("{dead:?}")
    };
    assert_eq!(
        (&letter["alert"]["key"], &letter["deliveries"]),
        (&"3".into(), &2.into())
    );
    assert_eq!(letter["history"][0]["member"], "m1", "{letter}");
    let reason = letter["history"][1]["reason"].as_str().expect("a reason");
    assert!(reason.contains("exit status: 7"), "{letter}");
    let id = letter["id"].as_str().expect("an id");
    let text = ok(&router, &["dead", "list", "--group", "g"]).await;
    assert!(text.starts_with(id) && text.lines().count() == 1, "{text}");

    let requeued = ok(&router, &["dead", "requeue", "--group", "g", id]).await;
    assert_eq!(requeued, "requeued: 1\n");
    let twice = alerts(&router, &["dead", "requeue", "--group", "g", id]).await;
    assert_eq!((twice.code, twice.stdout.as_str()), (1, "requeued: 0\n"));
    assert!(
        twice.stderr.contains("1 of 1 are no dead letters"),
        "{twice:?}"
    );
    let consume = [
        "consume",
        "--group",
        "g",
        "--exec",
        "exit 1",
        "--count",
        "2",
        "--retry-delay",
        "0",
    ];
    assert_eq!(alerts(&router, &consume).await.code, 0);
    let dropped = json(
        &router,
        &["dead", "drop", "--group", "g", "--all", "--json"],
    )
    .await;
    assert_eq!(dropped["dropped"], 1, "{dropped}");
    assert_eq!(ok(&router, &["dead", "list", "--group", "g"]).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_told_to_stop_gives_back_what_it_holds() {
    let (_cluster, router) = cluster().await;
    let put = [
        "groups",
        "put",
        "g",
        "--visibility-timeout",
        "10m",
        "--max-deliveries",
        "1",
        "--from",
        "earliest",
    ];
    ok(&router, &put).await;
    write(&router, 0..3, 1).await;
    let url = format!("http://{}", router.grpc);
    let member = self::member(&url, "sleep 1; exit 0");
    held(&router).await;
    let pid = nix::unistd::Pid::from_raw(member.id() as i32);
    let started = Instant::now();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    let ended = tokio::task::spawn_blocking(move || member.wait_with_output());
    let output = ended.await.expect("no panic").expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    // The one that ran is acked, the others come again at once, and not as if they had been tried.
    let rest = ["consume", "--group", "g", "--count", "2", "--json"];
    let rest = alerts(&router, &rest).await.lines();
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert!(rest.iter().all(|line| line["delivery"] == 1), "{rest:?}");
    assert_eq!(ok(&router, &["dead", "list", "--group", "g"]).await, "");

    // What a member that dies has held was tried: it may be what it died of.
    write(&router, 3..4, 1).await;
    let mut member = self::member(&url, "while kill -0 $PPID; do sleep 0.05; done");
    held(&router).await;
    member.kill().expect("it runs");
    member.wait().expect("it ends");
    let dead = until("the dead letter", || async {
        let list = ["dead", "list", "--group", "g", "--json"];
        alerts(&router, &list).await.lines().pop()
    })
    .await;
    let reason = dead["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("the connection to the member was lost"),
        "{dead}"
    );
}

fn member(url: &str, exec: &str) -> std::process::Child {
    Command::new(binary())
        .args(["alerts", "consume", "--group", "g", "--router", url])
        .args(["--exec", exec, "--max-in-flight", "3"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pgbraid starts")
}

async fn held(router: &Router) {
    until("something to be held", || async {
        let listed = json(router, &["groups", "--json"]).await;
        let all = listed["groups"][0]["instances"].as_array().cloned()?;
        let held: u64 = all.iter().filter_map(|one| one["in_flight"].as_u64()).sum();
        (held > 0).then_some(())
    })
    .await;
}
