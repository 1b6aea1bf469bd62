//! Exit codes and messages of the real binary, as far as they need no database.

use std::fs;
use std::process::{Command, Output, Stdio};

fn pgbraid(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgbraid"))
        .args(args)
        .env_remove("PGBRAID_ROUTER")
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it prints to stderr when it exits with 1.
fn failure(args: &[&str]) -> String {
    let output = pgbraid(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    assert!(!stderr.contains('\u{1b}'), "colour codes: {stderr:?}");
    stderr
}

#[test]
fn help_and_version_are_results() {
    for args in [&["--help"][..], &["--version"], &["rules", "put", "--help"]] {
        let output = pgbraid(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let stdout = text(&output.stdout);
        assert!(
            !stdout.is_empty() && !stdout.contains('\u{1b}'),
            "{stdout:?}"
        );
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn wrong_usage_exits_with_1() {
    assert!(failure(&[]).contains("Usage: pgbraid"));
    assert!(failure(&["serv"]).contains("serve"), "it suggests");
    assert!(failure(&["dev", "up"]).contains("--dir"));
    assert!(failure(&["serve", "--grpc-listen", "nowhere"]).contains("nowhere"));
    assert!(failure(&["load", "--run-length", "5"]).contains("--keys runs"));
    assert!(failure(&["load", "--keys", "zipf", "--zipf-exponent", "nan"]).contains("0.01"));
}

#[test]
fn a_missing_file_says_so_and_what_to_do() {
    for command in ["serve", "migrate"] {
        let stderr = failure(&[command, "--config", "/nowhere/pgbraid.toml"]);
        assert!(
            stderr.starts_with("error: cannot read /nowhere/pgbraid.toml"),
            "{stderr}"
        );
        assert!(stderr.contains("\n  hint: "), "{stderr}");
    }
}

#[test]
fn a_router_that_is_not_there() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let router = format!("http://{}", socket.local_addr().expect("its address"));
    drop(socket);
    for command in [
        &["status"][..],
        &["alerts", "tail"],
        &["load", "--feed", "orders"],
        &["rules", "list"],
    ] {
        let stderr = failure(&[command, &["--router", &router]].concat());
        assert!(stderr.contains(&router), "{stderr}");
        assert!(stderr.contains("pgbraid serve"), "{stderr}");
    }
    let stderr = failure(&["status", "--router", "127.0.0.1:7432"]);
    assert!(stderr.contains("http://"), "{stderr}");
}

#[test]
fn check_finds_mistakes() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("pgbraid.toml");
    let map = dir.path().join("shardmap.toml");
    let config_arg = config.to_str().expect("UTF-8");
    fs::write(&config, "[ingest]\nbatch_rows = 0\n").expect("written");
    fs::write(
        &map,
        "[instances.db0]\nhost = \"h\"\n[feeds.orders]\ntables = 4\n",
    )
    .expect("written");

    let bad = pgbraid(&["check", "--config", config_arg]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        text(&bad.stdout).starts_with("error: "),
        "{}",
        text(&bad.stdout)
    );
    let bad = pgbraid(&["check", "--config", config_arg, "--json"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stdout).starts_with(r#"{"ok":false,"findings":[{"level":"error""#));

    fs::write(&config, "").expect("written");
    let good = pgbraid(&["check", "--config", config_arg]);
    assert_eq!(good.status.code(), Some(0));
    assert_eq!(
        text(&good.stdout),
        "ok: 1 instance, feed orders of 4 tables\n"
    );
    let shown = pgbraid(&["map", "show", "--config", config_arg]);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    assert!(
        text(&shown.stdout).contains("db0       4  0-3"),
        "{}",
        text(&shown.stdout)
    );
}

#[test]
fn rules_of_a_broken_file_never_reach_a_router() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("rules.toml");
    fs::write(&file, "[[rule]]\nname = \"a\"\nwen = \"x\"\n").expect("written");
    let stderr = failure(&["rules", "put", "-f", file.to_str().expect("UTF-8")]);
    assert!(stderr.contains("rules.toml:3:1"), "{stderr}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgbraid"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
