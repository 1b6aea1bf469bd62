//! One `up` or `down` at a time in a folder.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{DevClusterError, OrIo, Result};
use crate::paths::Paths;

/// `up` of 256 instances takes minutes; longer than this, somebody hangs.
const DEADLINE: Duration = Duration::from_secs(300);

/// Holds the folder's lock until dropped; the kernel lets go of it if we are killed.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: Flock<File>,
}

impl DirLock {
    /// Waits for the lock.
    pub(crate) async fn take(paths: &Paths) -> Result<Self> {
        Self::take_within(paths, DEADLINE).await
    }

    pub(crate) async fn take_within(paths: &Paths, wait: Duration) -> Result<Self> {
        let path = paths.lock();
        let end = Instant::now() + wait;
        loop {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)
                .or_io("open", &path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // `down` with remove deletes the file while it holds the lock: what we then get
                // is a lock on nothing, so look again.
                Ok(file) if is_at(&file, paths) => return Ok(Self { _file: file }),
                Ok(_) | Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => {}
                Err((_, errno)) => return Err(errno.into()).or_io("lock", &path),
            }
            if Instant::now() > end {
                let dir = paths.dir().to_owned();
                return Err(DevClusterError::Locked {
                    dir,
                    seconds: wait.as_secs(),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn is_at(file: &File, paths: &Paths) -> bool {
    match (file.metadata(), std::fs::metadata(paths.lock())) {
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}
