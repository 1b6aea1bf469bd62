//! A cluster for one test: it ends with its owner.

use std::env;
use std::fs;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::cluster::{ClusterSpec, DevCluster};
use crate::down::postmasters;
use crate::error::{DevClusterError, OrIo, Result};
use crate::initdb::wait_for_running;
use crate::marker::Marker;
use crate::paths::Paths;
use crate::postmaster::{StopMode, drop_shared_memory, stop_all};
use crate::secrets::random_hex;

/// Cleans up when its standard input ends, which is when the owner is gone.
const WATCHDOG: &str = include_str!("watchdog.sh");

/// How long dropping may try to stop and delete.
const DROP_DEADLINE: Duration = Duration::from_secs(15);

/// A cluster in the system's folder for temporary files. Dropping it stops the instances at once
/// and deletes everything, blocking the thread for the some tens of milliseconds that takes. If
/// the owning process dies instead, even by SIGKILL, a watchdog process does the same.
///
/// Dereferences to its [`DevCluster`].
#[derive(Debug)]
pub struct TempCluster {
    cluster: DevCluster,
    _folder: TempFolder,
}

impl TempCluster {
    /// Makes and starts a cluster; see [`ClusterSpec`] for the meaning of the arguments.
    ///
    /// # Errors
    /// As [`DevCluster::up`]. Nothing is left behind then.
    pub async fn start(instances: u16, durable: bool, settings: &[(&str, &str)]) -> Result<Self> {
        let folder = TempFolder::make()?;
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let settings = settings.iter().map(own).collect();
        let dir = folder.dir.clone();
        let cluster = DevCluster::up(&ClusterSpec {
            dir,
            instances,
            durable,
            settings,
        })
        .await?;
        Ok(Self {
            cluster,
            _folder: folder,
        })
    }
}

impl Deref for TempCluster {
    type Target = DevCluster;

    fn deref(&self) -> &DevCluster {
        &self.cluster
    }
}

/// A folder that goes away, with every PostgreSQL in it.
#[derive(Debug)]
struct TempFolder {
    dir: PathBuf,
    watchdog: Option<Child>,
}

impl TempFolder {
    fn make() -> Result<Self> {
        let parent = env::temp_dir();
        let parent = parent.canonicalize().or_io("look at", &parent)?;
        let dir = parent.join(format!("pgbraid-{}", random_hex(6)?));
        let account = Account::for_cluster(&Paths::new(dir.clone()))?;
        account.check_reachable(&dir)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .or_io("make", &dir)?;
        let mut folder = Self {
            dir,
            watchdog: None,
        };
        account.let_pass(&folder.dir)?;
        folder.watchdog = Some(watch(&folder.dir)?);
        Ok(folder)
    }

    /// Stops and deletes; to be repeated while an aborted `up` may still be at work.
    fn clear(&self) -> Result<()> {
        let paths = Paths::new(self.dir.clone());
        wait_for_running(&self.dir)?;
        if let Some(marker) = Marker::load(&paths)? {
            let postmasters = postmasters(&paths, &marker);
            stop_all(
                &postmasters,
                &[(StopMode::Immediate, Duration::from_secs(5))],
            )?;
            for postmaster in &postmasters {
                drop_shared_memory(postmaster);
            }
        }
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(DevClusterError::io("remove", &self.dir, e))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let end = Instant::now() + DROP_DEADLINE;
        while let Err(e) = self.clear() {
            if Instant::now() > end {
                tracing::error!("cannot clean up {}: {e}", self.dir.display());
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        if let Some(mut watchdog) = self.watchdog.take() {
            // Its input ends; it finds the folder gone, or tries once more itself.
            drop(watchdog.stdin.take());
            if let Err(e) = watchdog.wait() {
                tracing::error!("the watchdog of {}: {e}", self.dir.display());
            }
        }
    }
}

/// Starts the watchdog. We hold the only writing end of its input: descriptors of Rust's standard
/// library are closed on exec, so no server inherits it.
fn watch(dir: &Path) -> Result<Child> {
    let shell = Path::new("/bin/sh");
    Command::new(shell)
        .args(["-c", WATCHDOG, "pgbraid-watchdog"])
        .arg(dir)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .or_io("run", shell)
}
