//! Faults: stopping, killing, freezing; and a temporary cluster that ends with its owner.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgbraid_devcluster::{
    DevCluster, DevClusterError, InstanceState, StopMode, TempCluster, down, status,
};

/// Set for a test that runs again in a process of its own, as the owner of a cluster.
const OWNER: &str = "PGBRAID_TEST_OWNER";

async fn state(cluster: &DevCluster, index: usize) -> InstanceState {
    status(cluster.dir()).await.unwrap()[index].state
}

#[tokio::test]
async fn killed_and_started_again_keeps_the_commits() {
    let settings = [("synchronous_commit", "on")];
    let cluster = TempCluster::start(1, false, &settings).await.unwrap();
    let instance = &cluster.instances()[0];
    let (pid, port) = (instance.pid().unwrap(), instance.port());
    let client = cluster.connect(0, false, "pgbraid").await.unwrap();
    client
        .batch_execute("create table t (a int); insert into t values (42)")
        .await
        .unwrap();

    cluster.kill9(0).await.unwrap();
    assert_eq!(instance.pid(), None);
    assert!(!instance.is_ready().await);
    assert!(client.query("select 1", &[]).await.is_err());
    assert_eq!(state(&cluster, 0).await, InstanceState::Stopped);
    let twice = cluster.kill9(0).await.unwrap_err();
    assert!(
        matches!(twice, DevClusterError::NotRunning { .. }),
        "{twice}"
    );

    cluster.start(0).await.unwrap();
    cluster.start(0).await.unwrap();
    assert_ne!(instance.pid().unwrap(), pid);
    assert_eq!(cluster.instances()[0].port(), port);
    let client = cluster.connect(0, false, "pgbraid").await.unwrap();
    let row = client.query_one("select a from t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
}

#[tokio::test]
async fn frozen_answers_nobody_and_goes_on_when_thawed() {
    let cluster = TempCluster::start(2, false, &[]).await.unwrap();
    let client = cluster.connect(0, false, "pgbraid").await.unwrap();
    cluster.freeze(0).await.unwrap();
    assert_eq!(state(&cluster, 0).await, InstanceState::Frozen);
    assert_eq!(
        state(&cluster, 1).await,
        InstanceState::Running,
        "its neighbour is not harmed"
    );
    assert!(!cluster.instances()[0].is_ready().await);
    let wait = Duration::from_millis(300);
    assert!(
        tokio::time::timeout(wait, client.query("select 1", &[]))
            .await
            .is_err()
    );

    cluster.thaw(0).await.unwrap();
    cluster.thaw(0).await.unwrap();
    client.query("select 1", &[]).await.unwrap();
    assert_eq!(state(&cluster, 0).await, InstanceState::Running);

    // The other operations do not hang on a frozen instance.
    cluster.freeze(0).await.unwrap();
    cluster.stop(0, StopMode::Fast).await.unwrap();
    let stopped = cluster.freeze(0).await.unwrap_err();
    assert!(
        matches!(stopped, DevClusterError::NotRunning { .. }),
        "{stopped}"
    );
    cluster.start(0).await.unwrap();
    cluster.freeze(0).await.unwrap();
    cluster.kill9(0).await.unwrap();
    cluster.start(0).await.unwrap();
    cluster.freeze(0).await.unwrap();
    assert_eq!(down(cluster.dir(), false).await.unwrap().stopped, 2);
}

#[tokio::test]
async fn stopped_both_ways_and_restarted() {
    let cluster = TempCluster::start(1, false, &[]).await.unwrap();
    let _client = cluster.connect(0, false, "pgbraid").await.unwrap();
    cluster.stop(0, StopMode::Fast).await.unwrap();
    cluster.stop(0, StopMode::Fast).await.unwrap();
    cluster.start(0).await.unwrap();
    cluster.stop(0, StopMode::Immediate).await.unwrap();
    cluster.start(0).await.unwrap();
    let before = cluster.instances()[0].pid();
    cluster.restart(0).await.unwrap();
    assert_ne!(cluster.instances()[0].pid(), before);
    let missing = cluster.restart(1).await.unwrap_err();
    assert!(missing.to_string().contains("no instance db1"), "{missing}");
}

#[tokio::test]
async fn dropping_leaves_nothing() {
    let begin = Instant::now();
    let cluster = TempCluster::start(4, false, &[]).await.unwrap();
    println!("4 instances up in {:?}", begin.elapsed());
    let dir = cluster.dir().to_owned();
    // Dropped in every condition an instance can be in.
    cluster.kill9(1).await.unwrap();
    cluster.freeze(2).await.unwrap();
    cluster.stop(3, StopMode::Fast).await.unwrap();
    let begin = Instant::now();
    drop(cluster);
    println!("dropped in {:?}", begin.elapsed());
    assert!(!dir.exists());
    assert_eq!(processes_of(&dir), Vec::<String>::new());
}

#[test]
fn an_aborted_start_leaves_nothing() {
    if is_owner() {
        return runtime().block_on(async {
            for millis in [5, 100, 400, 800] {
                let start = TempCluster::start(2, false, &[]);
                drop(tokio::time::timeout(Duration::from_millis(millis), start).await);
            }
        });
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let mut owner = as_owner("an_aborted_start_leaves_nothing", folder.path());
    assert!(owner.wait().unwrap().success());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(processes_of(folder.path()), Vec::<String>::new());
}

#[test]
fn a_killed_owner_leaves_nothing() {
    if is_owner() {
        return runtime().block_on(async {
            let cluster = TempCluster::start(3, false, &[]).await.unwrap();
            cluster.kill9(1).await.unwrap();
            cluster.freeze(2).await.unwrap();
            println!("cluster in {}", cluster.dir().display());
            std::future::pending::<()>().await;
        });
    }
    let mut owner = as_owner("a_killed_owner_leaves_nothing", &std::env::temp_dir());
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let dir = lines
        .map_while(Result::ok)
        .find_map(|line| {
            line.split_once("cluster in ")
                .map(|(_, dir)| PathBuf::from(dir))
        })
        .expect("the owner says where its cluster is");
    assert!(dir.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while dir.exists() || !processes_of(&dir).is_empty() {
        assert!(
            Instant::now() < end,
            "left behind: {} {:?}",
            dir.display(),
            processes_of(&dir)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_owner() -> bool {
    std::env::var_os(OWNER).is_some()
}

/// Runs the named test of this file in another process, as the owner of clusters in `folder`.
fn as_owner(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(OWNER, "1")
        .env("TMPDIR", folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// Command lines that name the folder.
fn processes_of(dir: &Path) -> Vec<String> {
    let found = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(dir.to_str()?).then_some(line)
        });
    found.collect()
}
