//! `status`: how the instances of a cluster are.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cluster::{canonical, instances};
use crate::error::{DevClusterError, Result};
use crate::instance::DevInstance;
use crate::marker::Marker;
use crate::secrets::Secrets;
use crate::up::blocking;

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// It answers.
    Running,
    /// It has no postmaster.
    Stopped,
    /// Its postmaster is stopped by a signal.
    Frozen,
    /// Its postmaster runs, but no connection comes about within 2 seconds.
    NotAnswering,
}

/// One line of [`status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceStatus {
    /// `db0`, `db1`, ...
    pub name: String,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Process id of the postmaster.
    pub pid: Option<i32>,
    /// How it is.
    pub state: InstanceState,
    /// Major version of the data; none if they were never made.
    pub version: Option<String>,
    /// Size of the data folder, WAL included.
    pub data_bytes: u64,
}

/// Looks at every instance of the cluster in `dir`, all at once, and changes nothing.
///
/// # Errors
/// No cluster there, or its files cannot be read.
pub async fn status(dir: impl AsRef<Path>) -> Result<Vec<InstanceStatus>> {
    let paths = canonical(dir.as_ref())?;
    let marker = Marker::require(&paths)?;
    let secrets = Secrets::load(&paths)?;
    let looks: Vec<_> = instances(&paths, &marker, &secrets)
        .into_iter()
        .map(|i| tokio::spawn(look(i)))
        .collect();
    let mut found = Vec::with_capacity(looks.len());
    for look in looks {
        found.push(
            look.await
                .map_err(|e| DevClusterError::Task(e.to_string()))??,
        );
    }
    Ok(found)
}

async fn look(instance: DevInstance) -> Result<InstanceStatus> {
    let postmaster = instance.postmaster();
    let (pid, frozen, version, data_bytes) = blocking(move || {
        let data = postmaster.data_dir();
        let version = fs::read_to_string(data.join("PG_VERSION")).ok();
        let version = version.map(|text| text.trim().to_owned());
        Ok((
            postmaster.pid(),
            postmaster.is_frozen(),
            version,
            size_of(data),
        ))
    })
    .await?;
    let state = match pid {
        None => InstanceState::Stopped,
        Some(_) if frozen => InstanceState::Frozen,
        Some(_) if instance.is_ready().await => InstanceState::Running,
        Some(_) => InstanceState::NotAnswering,
    };
    let (name, port) = (instance.name().to_owned(), instance.port());
    Ok(InstanceStatus {
        name,
        port,
        pid,
        state,
        version,
        data_bytes,
    })
}

/// Bytes of all files below; those that vanish meanwhile count nothing.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
