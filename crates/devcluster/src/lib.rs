//! Local PostgreSQL clusters for `pgbraid dev`, the demo, tests and benches.
//!
//! A [`DevCluster`] is a folder with up to 256 PostgreSQL instances, each from its own `initdb`
//! (so each has its own system identifier), listening on 127.0.0.1 only. The folder:
//!
//! ```text
//! DIR/cluster.json        the marker: made by us; names, ports, settings
//! DIR/lock                held while `up` or `down` runs
//! DIR/secrets/password    password of the role `pgbraid`   (0600)
//! DIR/secrets/superuser   password of the role `postgres`  (0600)
//! DIR/dbN/data            the data folder
//! DIR/dbN/pgbraid.conf    our settings, included by data/postgresql.conf
//! DIR/dbN/log             what the server says
//! ```
//!
//! A dev cluster outlives the process that started it and ends with [`down`]. A [`TempCluster`]
//! ends with its owner, even when the owner is killed with -9. PostgreSQL refuses to run as root:
//! for root, the instances run as the user `postgres`, or `nobody`.
//!
//! Nothing outside DIR is read or changed, and no process is signalled that is not the postmaster
//! of a data folder in DIR or its child.

mod account;
mod binaries;
mod cluster;
mod down;
mod error;
mod faults;
mod initdb;
mod instance;
mod launch;
mod lock;
mod marker;
mod paths;
mod ports;
mod postmaster;
mod procs;
mod roles;
mod secrets;
mod settings;
mod status;
mod temp;
mod up;

pub use binaries::PgBinaries;
pub use cluster::{ClusterSpec, DevCluster};
pub use down::{Down, down};
pub use error::DevClusterError;
pub use instance::DevInstance;
pub use postmaster::StopMode;
pub use status::{InstanceState, InstanceStatus, status};
pub use temp::TempCluster;

/// The most instances a cluster can have.
pub const MAX_INSTANCES: u16 = 256;
