//! A local cluster: what one asks for, and the handle on what is there.

use std::path::{Path, PathBuf};

use tokio_postgres::Client;

use crate::account::Account;
use crate::binaries::PgBinaries;
use crate::error::{DevClusterError, OrIo, Result};
use crate::instance::{DevInstance, ROLE, SUPERUSER};
use crate::marker::Marker;
use crate::paths::Paths;
use crate::secrets::Secrets;
use crate::{MAX_INSTANCES, settings, up};

/// What [`DevCluster::up`] shall bring about.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// The cluster's folder: new, empty, or made by an earlier `up`.
    pub dir: PathBuf,
    /// Number of instances, 1 to 256. A cluster can grow, not shrink.
    pub instances: u16,
    /// Whether every acknowledged commit survives a crash of the machine. `false` turns `fsync`,
    /// `full_page_writes` and `synchronous_commit` off: much faster, but then even
    /// [`kill9`](DevCluster::kill9) may lose the last commits. For a test of that, set
    /// `synchronous_commit` to `on` in `settings`: it needs no disk to be quick.
    pub durable: bool,
    /// More settings for postgresql.conf, as name and value; they override our defaults.
    pub settings: Vec<(String, String)>,
}

impl ClusterSpec {
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=MAX_INSTANCES).contains(&self.instances) {
            return Err(DevClusterError::Invalid(format!(
                "a cluster has 1 to {MAX_INSTANCES} instances, not {}",
                self.instances
            )));
        }
        settings::check(&self.settings)
    }
}

/// A local cluster. Dropping it leaves the instances running.
#[derive(Debug)]
pub struct DevCluster {
    paths: Paths,
    binaries: PgBinaries,
    account: Account,
    secrets: Secrets,
    instances: Vec<DevInstance>,
}

impl DevCluster {
    /// Makes what is missing, starts what is stopped, thaws what is frozen, and returns when every
    /// instance answers and has the role `pgbraid` with its database. Doing it again changes
    /// nothing; an instance whose settings changed is restarted. Interrupted at any point, the
    /// next `up` goes on from there.
    ///
    /// # Errors
    /// Bad numbers or settings, no PostgreSQL, a folder that is not ours or not reachable, fewer
    /// instances than there are, or an instance that does not start (with the end of its log).
    /// Instances that did start stay up.
    pub async fn up(spec: &ClusterSpec) -> Result<Self> {
        up::up(spec).await
    }

    /// A handle on the cluster in `dir`, whether or not its instances run.
    ///
    /// # Errors
    /// No cluster there, no PostgreSQL programs, or its files cannot be read.
    pub fn attach(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let paths = canonical(dir)?;
        let marker = Marker::require(&paths)?;
        let account = Account::for_cluster(&paths)?;
        let secrets = Secrets::load(&paths)?;
        Ok(Self::new(
            paths,
            PgBinaries::find()?,
            account,
            secrets,
            &marker,
        ))
    }

    pub(crate) fn new(
        paths: Paths,
        binaries: PgBinaries,
        account: Account,
        secrets: Secrets,
        marker: &Marker,
    ) -> Self {
        let instances = instances(&paths, marker, &secrets);
        Self {
            paths,
            binaries,
            account,
            secrets,
            instances,
        }
    }

    /// The instances, db0 first.
    #[must_use]
    pub fn instances(&self) -> &[DevInstance] {
        &self.instances
    }

    /// The cluster's folder, canonical.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.paths.dir()
    }

    /// The PostgreSQL programs in use.
    #[must_use]
    pub fn binaries(&self) -> &PgBinaries {
        &self.binaries
    }

    /// Password of the role `pgbraid`, the same on every instance.
    #[must_use]
    pub fn password(&self) -> &str {
        self.secrets.password.as_str()
    }

    /// The file that holds only that password, mode 0600.
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.paths.secrets().join("password")
    }

    /// Password of the superuser `postgres`, the same on every instance.
    #[must_use]
    pub fn superuser_password(&self) -> &str {
        self.secrets.superuser.as_str()
    }

    /// The file that holds only that password, mode 0600.
    #[must_use]
    pub fn superuser_password_file(&self) -> PathBuf {
        self.paths.secrets().join("superuser")
    }

    /// Connects to instance `index` as `postgres` or as `pgbraid`. A task carries the connection
    /// until the client is dropped.
    ///
    /// # Errors
    /// No such instance, or no connection within 10 seconds.
    pub async fn connect(
        &self,
        index: usize,
        as_superuser: bool,
        database: &str,
    ) -> Result<Client> {
        let role = if as_superuser { SUPERUSER } else { ROLE };
        self.instance(index)?.connect(role, database).await
    }

    pub(crate) fn instance(&self, index: usize) -> Result<&DevInstance> {
        self.instances.get(index).ok_or_else(|| {
            DevClusterError::Invalid(format!(
                "there is no instance db{index}: {} has {}",
                self.dir().display(),
                self.instances.len()
            ))
        })
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }
}

/// The paths of the cluster in `dir`, which must exist.
pub(crate) fn canonical(dir: &Path) -> Result<Paths> {
    if !dir.exists() {
        return Err(DevClusterError::NoCluster {
            dir: dir.to_owned(),
        });
    }
    Ok(Paths::new(dir.canonicalize().or_io("look at", dir)?))
}

pub(crate) fn instances(paths: &Paths, marker: &Marker, secrets: &Secrets) -> Vec<DevInstance> {
    let made = |(index, &port)| DevInstance::new(paths, index, port, secrets.clone());
    marker.indexes().zip(&marker.ports).map(made).collect()
}
