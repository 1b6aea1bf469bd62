//! `down`: stops a cluster, and removes it if asked to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::cluster::canonical;
use crate::error::{DevClusterError, OrIo, Result};
use crate::initdb::wait_for_running;
use crate::lock::DirLock;
use crate::marker::Marker;
use crate::paths::{Paths, instance_name};
use crate::postmaster::{Postmaster, StopMode, drop_shared_memory, stop_all};
use crate::up::blocking;

/// Fast, then immediate, then SIGKILL.
const STEPS: [(StopMode, Duration); 2] = [
    (StopMode::Fast, Duration::from_secs(10)),
    (StopMode::Immediate, Duration::from_secs(10)),
];

/// What [`down`] did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Down {
    /// Instances that were running, or had processes left.
    pub stopped: usize,
    /// Whether the cluster's files were removed.
    pub removed: bool,
    /// Files in the folder that we did not make; they stay, and so does the folder.
    pub kept: Vec<PathBuf>,
}

/// Stops every instance of the cluster in `dir`: thaws it if it is frozen, then a fast shutdown, an
/// immediate one after 10 seconds, SIGKILL after 20. No process is left. With `remove`, what `up`
/// made is deleted, and the folder itself if `up` made it and nothing else is in it.
///
/// # Errors
/// No cluster there, another `up` or `down` at work, or processes or files of another user.
pub async fn down(dir: impl AsRef<Path>, remove: bool) -> Result<Down> {
    let paths = canonical(dir.as_ref())?;
    Marker::require(&paths)?;
    let _lock = DirLock::take(&paths).await?;
    // Somebody may have removed it while we waited.
    let marker = Marker::require(&paths)?;
    blocking(move || {
        let postmasters = postmasters(&paths, &marker);
        let stopped = stop_all(&postmasters, &STEPS)?;
        let kept = if remove {
            delete(&paths, &marker, &postmasters)?
        } else {
            Vec::new()
        };
        Ok(Down {
            stopped,
            removed: remove,
            kept,
        })
    })
    .await
}

/// The postmasters of every instance that the marker names.
pub(crate) fn postmasters(paths: &Paths, marker: &Marker) -> Vec<Postmaster> {
    let made = |index| Postmaster::new(instance_name(index), paths.instance(index).data_dir());
    marker.indexes().map(made).collect()
}

/// Deletes what `up` made, the marker last, so that an interrupted `down` can be repeated.
fn delete(paths: &Paths, marker: &Marker, postmasters: &[Postmaster]) -> Result<Vec<PathBuf>> {
    wait_for_running(paths.dir())?;
    for postmaster in postmasters {
        drop_shared_memory(postmaster);
    }
    for index in marker.indexes() {
        remove_folder(paths.instance(index).dir())?;
    }
    remove_folder(&paths.secrets())?;
    for file in [paths.marker_draft(), paths.marker(), paths.lock()] {
        match fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(DevClusterError::io("remove", &file, e));
            }
            _ => {}
        }
    }
    let dir = paths.dir();
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir).or_io("read", dir)? {
        kept.push(entry.or_io("read", dir)?.path());
    }
    if kept.is_empty() && marker.made_dir {
        fs::remove_dir(dir).or_io("remove", dir)?;
    }
    Ok(kept)
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(DevClusterError::io("remove", path, e))
        }
        _ => Ok(()),
    }
}
