//! One instance of a cluster: where it is, whether it runs, connecting to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::error::{DevClusterError, Result};
use crate::paths::{InstancePaths, Paths, instance_name};
use crate::postmaster::Postmaster;
use crate::secrets::{Password, Secrets};

/// The role that pgbraid uses, and its database.
pub(crate) const ROLE: &str = "pgbraid";
/// The superuser that initdb makes, and its database.
pub(crate) const SUPERUSER: &str = "postgres";

/// A connection must be there within this time: a frozen server accepts but never answers.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const READY_DEADLINE: Duration = Duration::from_secs(2);

/// One PostgreSQL instance of a [`DevCluster`](crate::DevCluster).
#[derive(Clone, Debug)]
pub struct DevInstance {
    index: u8,
    name: String,
    port: u16,
    data_dir: PathBuf,
    paths: InstancePaths,
    secrets: Secrets,
}

impl DevInstance {
    pub(crate) fn new(paths: &Paths, index: u8, port: u16, secrets: Secrets) -> Self {
        let paths = paths.instance(index);
        let data_dir = paths.data_dir();
        Self {
            index,
            name: instance_name(index),
            port,
            data_dir,
            paths,
            secrets,
        }
    }

    /// Its number, from 0.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Its name, `db0` for number 0.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its log file.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.paths.log()
    }

    /// The process id of its postmaster, if that is alive and really this data folder's.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.postmaster().pid()
    }

    /// Whether it answers a connection within 2 seconds.
    pub async fn is_ready(&self) -> bool {
        self.postmaster().pid_file().is_some_and(|file| file.ready)
            && self
                .connect_within(READY_DEADLINE, SUPERUSER, SUPERUSER)
                .await
                .is_ok()
    }

    pub(crate) fn postmaster(&self) -> Postmaster {
        Postmaster::new(self.name.clone(), self.data_dir.clone())
    }

    pub(crate) fn paths(&self) -> &InstancePaths {
        &self.paths
    }

    pub(crate) fn set_port(&mut self, port: u16) {
        self.port = port;
    }

    pub(crate) fn password(&self) -> &Password {
        &self.secrets.password
    }

    /// Connects; a task carries the connection until the client is dropped.
    pub(crate) async fn connect(&self, role: &str, database: &str) -> Result<Client> {
        self.connect_within(CONNECT_DEADLINE, role, database).await
    }

    pub(crate) async fn connect_within(
        &self,
        deadline: Duration,
        role: &str,
        database: &str,
    ) -> Result<Client> {
        let secrets = &self.secrets;
        let password = if role == SUPERUSER {
            &secrets.superuser
        } else {
            &secrets.password
        };
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(role)
            .password(password.as_str())
            .dbname(database)
            .application_name("pgbraid-devcluster")
            .connect_timeout(deadline);
        let connected = tokio::time::timeout(deadline, config.connect(NoTls)).await;
        let (client, connection) = match connected {
            Ok(Ok(both)) => both,
            Ok(Err(source)) => {
                let what = format!("cannot connect as {role} to database {database}");
                return Err(self.postgres_error(what, source));
            }
            Err(_) => {
                let (name, seconds) = (self.name.clone(), deadline.as_secs());
                return Err(DevClusterError::Deadline {
                    name,
                    until: "it answers",
                    seconds,
                });
            }
        };
        let name = self.name.clone();
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("{name}: connection ended: {e}");
            }
        });
        Ok(client)
    }

    pub(crate) fn postgres_error(
        &self,
        what: impl Into<String>,
        source: tokio_postgres::Error,
    ) -> DevClusterError {
        DevClusterError::Postgres {
            name: self.name.clone(),
            what: what.into(),
            source,
        }
    }
}
