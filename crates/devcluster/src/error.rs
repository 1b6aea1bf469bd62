//! What can go wrong with a local cluster, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Any failure of this crate. The text is meant for the person at the keyboard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevClusterError {
    /// No usable PostgreSQL server on this machine.
    #[error(
        "found no PostgreSQL server programs (initdb, postgres, pg_ctl in one folder, \
         version {min} or newer)\nlooked in:\n{looked}\ninstall them:\n\
         \x20 Debian/Ubuntu  sudo apt-get install postgresql\n\
         \x20 Fedora         sudo dnf install postgresql-server postgresql-contrib\n\
         \x20 macOS          brew install postgresql@16\n\
         or set PGBRAID_PG_BIN to the folder that has them"
    )]
    NoPostgres {
        /// Oldest version that would do.
        min: u32,
        /// One line for each place, with what was wrong there.
        looked: String,
    },
    /// We are root and there is nobody to run PostgreSQL as.
    #[error(
        "PostgreSQL does not run as root, and this system has neither a user `postgres` nor \
         `nobody`; make one (useradd --system postgres) or run pgbraid as a normal user"
    )]
    NoAccount,
    /// The account that PostgreSQL runs as cannot get into the folder.
    #[error(
        "PostgreSQL would run as user `{account}`, who cannot enter {folder} (mode {mode:04o}), \
         a parent of {dir}; choose a folder elsewhere, or: chmod o+x {folder}"
    )]
    NotReachable {
        /// The account's name.
        account: String,
        /// The parent that is closed.
        folder: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The cluster's folder.
        dir: PathBuf,
    },
    /// A wish that cannot be granted: number of instances, a setting, an instance's number.
    #[error("{0}")]
    Invalid(String),
    /// The folder holds something else.
    #[error(
        "{dir} is not empty and was not made by pgbraid (it has no cluster.json); \
         choose a new or an empty folder"
    )]
    NotOurs {
        /// The folder.
        dir: PathBuf,
    },
    /// There is no cluster in the folder.
    #[error("{dir} has no pgbraid cluster (no cluster.json); make one with: pgbraid dev up")]
    NoCluster {
        /// The folder.
        dir: PathBuf,
    },
    /// `cluster.json` cannot be understood.
    #[error("{path}: {reason}; if pgbraid did not make this folder, use another one")]
    BadMarker {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another `up` or `down` is at work in the folder.
    #[error(
        "another pgbraid has been working on {dir} for {seconds} s (it holds {dir}/lock); \
         wait for it, or stop it"
    )]
    Locked {
        /// The cluster's folder.
        dir: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// The data were made by another major version.
    #[error(
        "{data_dir} was made by PostgreSQL {found}, but {bin} is PostgreSQL {have}; set \
         PGBRAID_PG_BIN to the folder of version {found}, or remove the cluster and start anew"
    )]
    WrongVersion {
        /// The data folder.
        data_dir: PathBuf,
        /// Its version.
        found: String,
        /// The folder of the programs that we found.
        bin: PathBuf,
        /// Their major version.
        have: u32,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program of PostgreSQL failed.
    #[error("{what} failed ({status}):\n{output}")]
    Program {
        /// Which program, for which instance.
        what: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// The port is used by somebody else.
    #[error("{name}: port {port} is used by another process\n{log}")]
    PortTaken {
        /// The instance.
        name: String,
        /// The port.
        port: u16,
        /// What the server said.
        log: String,
    },
    /// The server ended, or never answered.
    #[error("{name} did not start: {reason}\nthe end of {log_file}:\n{log}")]
    Start {
        /// The instance.
        name: String,
        /// What was seen.
        reason: String,
        /// The server's log.
        log_file: PathBuf,
        /// Its last lines.
        log: String,
    },
    /// A condition did not come true in time.
    #[error("{name}: gave up after {seconds} s waiting until {until}")]
    Deadline {
        /// The instance.
        name: String,
        /// What was waited for.
        until: &'static str,
        /// How long.
        seconds: u64,
    },
    /// The instance has no running postmaster.
    #[error("{name} is not running (no postmaster for {data_dir}); start it first")]
    NotRunning {
        /// The instance.
        name: String,
        /// Its data folder.
        data_dir: PathBuf,
    },
    /// A process could not be signalled.
    #[error("{name}: cannot signal process {pid}: {source}; run as the user who made the cluster")]
    Signal {
        /// The instance.
        name: String,
        /// The process.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// A connection or a statement failed.
    #[error("{name}: {what}: {source}")]
    Postgres {
        /// The instance.
        name: String,
        /// What was tried.
        what: String,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// A background task of ours ended early.
    #[error("a task of the cluster ended early: {0}")]
    Task(String),
}

impl DevClusterError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Result of this crate.
pub(crate) type Result<T> = std::result::Result<T, DevClusterError>;

/// `result.or_io("write", path)`: names what was done to which file.
pub(crate) trait OrIo<T> {
    fn or_io(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> OrIo<T> for io::Result<T> {
    fn or_io(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| DevClusterError::io(action, path, e))
    }
}
