//! Up, again, interrupted, down: real clusters in temporary folders.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pgbraid_devcluster::{
    ClusterSpec, DevCluster, DevClusterError, InstanceState, StopMode, TempCluster, down, status,
};

/// A folder that is taken down whatever the test does.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Self(folder)
    }

    fn cluster(&self) -> PathBuf {
        self.0.path().join("some where/it's")
    }

    fn spec(&self, instances: u16) -> ClusterSpec {
        ClusterSpec {
            dir: self.cluster(),
            instances,
            durable: false,
            settings: vec![("work_mem".to_owned(), "5MB".to_owned())],
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let dir = self.cluster();
        if !dir.join("cluster.json").exists() {
            return;
        }
        // A runtime of its own: we may be inside the test's.
        let cleaned = std::thread::spawn(move || {
            tokio::runtime::Runtime::new()
                .unwrap()
                .block_on(down(dir, true))
                .map(drop)
        });
        cleaned.join().unwrap().unwrap();
    }
}

fn pids(cluster: &DevCluster) -> Vec<i32> {
    cluster
        .instances()
        .iter()
        .map(|i| i.pid().expect("it runs"))
        .collect()
}

fn ports(cluster: &DevCluster) -> Vec<u16> {
    cluster.instances().iter().map(|i| i.port()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn text(cluster: &DevCluster, index: usize, superuser: bool, query: &str) -> String {
    let client = cluster.connect(index, superuser, "pgbraid").await.unwrap();
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn up_twice_then_more_then_down() {
    let folder = Folder::new();
    let cluster = DevCluster::up(&folder.spec(2)).await.unwrap();
    let (first_pids, first_ports) = (pids(&cluster), ports(&cluster));
    assert_eq!(text(&cluster, 1, false, "show wal_level").await, "logical");
    assert_eq!(text(&cluster, 0, false, "show work_mem").await, "5MB");
    let roles = "select string_agg(format('%s %s %s', rolname, rolsuper, rolreplication), ', '
                 order by rolname) from pg_roles where rolcanlogin";
    assert_eq!(
        text(&cluster, 0, true, roles).await,
        "pgbraid f t, postgres t t"
    );
    let identifier = "select system_identifier::text from pg_control_system()";
    assert_ne!(
        text(&cluster, 0, true, identifier).await,
        text(&cluster, 1, true, identifier).await
    );
    assert_eq!(mode(&cluster.password_file()), 0o600);
    assert_eq!(mode(&cluster.dir().join("secrets/superuser")), 0o600);
    let written = fs::read_to_string(cluster.password_file()).unwrap();
    assert_eq!(written, cluster.password());
    assert!(!format!("{cluster:?}").contains(cluster.password()));

    let again = DevCluster::up(&folder.spec(2)).await.unwrap();
    assert_eq!(pids(&again), first_pids, "up again changes nothing");

    let grown = DevCluster::up(&folder.spec(3)).await.unwrap();
    assert_eq!(pids(&grown)[..2], first_pids);
    assert_eq!(ports(&grown)[..2], first_ports);
    let fewer = DevCluster::up(&folder.spec(1)).await.unwrap_err();
    assert!(fewer.to_string().contains("has 3 instances"), "{fewer}");

    let found = status(folder.cluster()).await.unwrap();
    assert_eq!(found.len(), 3);
    assert!(
        found
            .iter()
            .all(|i| i.state == InstanceState::Running && i.data_bytes > 1_000_000)
    );

    assert_eq!(down(folder.cluster(), false).await.unwrap().stopped, 3);
    assert_eq!(down(folder.cluster(), false).await.unwrap().stopped, 0);
    let found = status(folder.cluster()).await.unwrap();
    assert!(
        found
            .iter()
            .all(|i| i.state == InstanceState::Stopped && i.pid.is_none())
    );

    // Somebody else takes a port meanwhile.
    let other = TcpListener::bind(("127.0.0.1", first_ports[0])).unwrap();
    let moved = DevCluster::up(&folder.spec(3)).await.unwrap();
    assert_ne!(ports(&moved)[0], first_ports[0]);
    assert_eq!(ports(&moved)[1..], ports(&grown)[1..]);
    drop(other);
    let attached = DevCluster::attach(folder.cluster()).unwrap();
    assert_eq!(ports(&attached), ports(&moved));
    assert_eq!(pids(&attached), pids(&moved));
    attached.connect(0, false, "pgbraid").await.unwrap();

    let ended = down(folder.cluster(), true).await.unwrap();
    assert_eq!(
        (ended.stopped, ended.removed, ended.kept.len()),
        (3, true, 0)
    );
    assert!(!folder.cluster().exists());
    let gone = down(folder.cluster(), true).await.unwrap_err();
    assert!(matches!(gone, DevClusterError::NoCluster { .. }), "{gone}");
}

#[tokio::test]
async fn changed_settings_restart_the_instance() {
    let folder = Folder::new();
    let mut spec = folder.spec(1);
    let before = pids(&DevCluster::up(&spec).await.unwrap());
    spec.settings = vec![("work_mem".to_owned(), "7MB".to_owned())];
    let cluster = DevCluster::up(&spec).await.unwrap();
    assert_ne!(pids(&cluster), before);
    assert_eq!(text(&cluster, 0, false, "show work_mem").await, "7MB");
}

#[tokio::test]
async fn an_interrupted_up_is_finished_by_the_next() {
    let folder = Folder::new();
    let cluster = DevCluster::up(&folder.spec(2)).await.unwrap();
    cluster.stop(0, StopMode::Immediate).await.unwrap();
    // As if the first up had been killed: one data folder half made, one role not made yet.
    let db0 = folder.cluster().join("db0");
    fs::rename(db0.join("data"), db0.join("data.tmp-dead")).unwrap();
    fs::remove_file(db0.join("data.tmp-dead/global/pg_control")).unwrap();
    let client = cluster.connect(1, true, "postgres").await.unwrap();
    client.batch_execute("drop database pgbraid").await.unwrap();
    client.batch_execute("drop role pgbraid").await.unwrap();

    let cluster = DevCluster::up(&folder.spec(2)).await.unwrap();
    for index in 0..2 {
        assert_eq!(
            text(&cluster, index, false, "select current_user::text").await,
            "pgbraid"
        );
    }
    assert!(!db0.join("data.tmp-dead").exists());
}

#[tokio::test]
async fn a_pid_that_went_to_another_process_does_not_stop_the_start() {
    let folder = Folder::new();
    let cluster = DevCluster::up(&folder.spec(1)).await.unwrap();
    let pid_file = cluster.instances()[0].data_dir().join("postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    cluster.kill9(0).await.unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();
    assert_eq!(cluster.instances()[0].pid(), None);
    cluster.start(0).await.unwrap();
    assert!(cluster.instances()[0].is_ready().await);
}

#[tokio::test]
async fn two_ups_at_once_make_one_cluster() {
    let folder = Folder::new();
    let spec = folder.spec(2);
    let (one, two) = tokio::join!(DevCluster::up(&spec), DevCluster::up(&spec));
    assert_eq!(pids(&one.unwrap()), pids(&two.unwrap()));
}

#[tokio::test]
async fn folders_of_others_are_left_alone() {
    let folder = Folder::new();
    let dir = folder.cluster();
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("thesis.txt"), "years of work").unwrap();
    let refused = DevCluster::up(&folder.spec(1)).await.unwrap_err();
    assert!(
        matches!(refused, DevClusterError::NotOurs { .. }),
        "{refused}"
    );
    let refused = down(&dir, true).await.unwrap_err();
    assert!(
        matches!(refused, DevClusterError::NoCluster { .. }),
        "{refused}"
    );
    fs::write(dir.join("cluster.json"), "{}").unwrap();
    for refused in [
        down(&dir, true).await.unwrap_err(),
        DevCluster::up(&folder.spec(1)).await.unwrap_err(),
        DevCluster::attach(&dir).unwrap_err(),
    ] {
        assert!(
            matches!(refused, DevClusterError::BadMarker { .. }),
            "{refused}"
        );
    }
    fs::remove_file(dir.join("cluster.json")).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing was added");
}

#[tokio::test]
async fn files_of_others_in_our_folder_are_kept() {
    let folder = Folder::new();
    let cluster = DevCluster::up(&folder.spec(1)).await.unwrap();
    let note = cluster.dir().join("note.txt");
    fs::write(&note, "mine").unwrap();
    let ended = down(folder.cluster(), true).await.unwrap();
    assert_eq!(ended.kept, std::slice::from_ref(&note));
    assert_eq!(fs::read_to_string(note).unwrap(), "mine");
}

#[tokio::test]
async fn impossible_wishes_are_refused_before_anything_is_made() {
    let folder = Folder::new();
    for instances in [0, 257] {
        let refused = DevCluster::up(&folder.spec(instances)).await.unwrap_err();
        assert!(refused.to_string().contains("1 to 256"), "{refused}");
    }
    let mut spec = folder.spec(1);
    spec.settings = vec![("port".to_owned(), "1".to_owned())];
    assert!(DevCluster::up(&spec).await.is_err());
    assert!(!folder.cluster().exists());
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_shows_its_log() {
    let refused = TempCluster::start(1, true, &[("shared_buffers", "many")])
        .await
        .unwrap_err();
    let DevClusterError::Start { log, .. } = &refused else {
        panic!("{refused}")
    };
    assert!(log.contains("shared_buffers"), "{log}");
}
