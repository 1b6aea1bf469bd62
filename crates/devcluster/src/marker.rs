//! `cluster.json`: says that we made the folder, and remembers ports and settings.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::MAX_INSTANCES;
use crate::error::{DevClusterError, OrIo, Result};
use crate::paths::Paths;

const MADE_BY: &str = "pgbraid-devcluster";
const FORMAT: u32 = 1;

/// What `cluster.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marker {
    made_by: String,
    format: u32,
    /// Whether `up` made DIR itself, so that `down` may remove it when it is empty.
    pub(crate) made_dir: bool,
    pub(crate) durable: bool,
    pub(crate) settings: Vec<(String, String)>,
    /// Port of db0, db1, ...
    pub(crate) ports: Vec<u16>,
}

impl Marker {
    pub(crate) fn new(made_dir: bool) -> Self {
        Self {
            made_by: MADE_BY.to_owned(),
            format: FORMAT,
            made_dir,
            durable: false,
            settings: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Reads it; `None` if there is none.
    pub(crate) fn load(paths: &Paths) -> Result<Option<Self>> {
        let path = paths.marker();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(DevClusterError::io("read", &path, e)),
        };
        let bad = |reason: String| DevClusterError::BadMarker {
            path: path.clone(),
            reason,
        };
        let marker: Self = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if marker.made_by != MADE_BY || marker.format != FORMAT {
            return Err(bad(format!(
                "made_by {:?}, format {}: expected {MADE_BY:?}, format {FORMAT}",
                marker.made_by, marker.format
            )));
        }
        if marker.ports.len() > usize::from(MAX_INSTANCES) {
            return Err(bad(format!("{} instances", marker.ports.len())));
        }
        Ok(Some(marker))
    }

    /// Reads it, or says that there is no cluster.
    pub(crate) fn require(paths: &Paths) -> Result<Self> {
        Self::load(paths)?.ok_or_else(|| DevClusterError::NoCluster {
            dir: paths.dir().to_owned(),
        })
    }

    /// Numbers of the instances.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = u8> + use<> {
        (0..self.ports.len()).filter_map(|i| u8::try_from(i).ok())
    }

    /// Writes it so that a reader finds the old or the new one, never a half.
    pub(crate) fn save(&self, paths: &Paths) -> Result<()> {
        let (draft, path) = (paths.marker_draft(), paths.marker());
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|e| DevClusterError::io("write", &path, e.into()))?;
        text.push(b'\n');
        fs::write(&draft, text).or_io("write", &draft)?;
        fs::rename(&draft, &path).or_io("write", &path)
    }
}
