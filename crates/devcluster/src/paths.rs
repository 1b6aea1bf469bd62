//! Where things are in a cluster's folder.

use std::path::{Path, PathBuf};

/// The paths of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    dir: PathBuf,
}

impl Paths {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn marker(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    pub(crate) fn marker_draft(&self) -> PathBuf {
        self.dir.join("cluster.json.tmp")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.dir.join("secrets")
    }

    pub(crate) fn instance(&self, index: u8) -> InstancePaths {
        InstancePaths {
            dir: self.dir.join(instance_name(index)),
        }
    }
}

/// `db0` to `db255`.
pub(crate) fn instance_name(index: u8) -> String {
    format!("db{index}")
}

/// The paths of one instance.
#[derive(Clone, Debug)]
pub(crate) struct InstancePaths {
    dir: PathBuf,
}

impl InstancePaths {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.dir.join("pgbraid.conf")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}
