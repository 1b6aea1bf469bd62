//! The harness of the end to end tests: real PostgreSQL clusters, the real binary, and a plain
//! gRPC client, so that the tests see what any user sees.
//!
//! Every cluster and router lives in a temporary folder of its own and ends with the test.

mod alert_log;
mod churn;
mod cluster;
mod details;
mod layout;
mod load;
pub mod member;
mod mover;
pub mod orders;
mod process;
mod producer;
pub mod rows;
pub mod rules;
mod standby;
mod subscriber;
pub mod wait;
pub mod wide;
mod writer;

pub use alert_log::{AlertLog, Seen, raised};
pub use churn::Churn;
pub use cluster::{Cluster, ClusterOptions};
pub use details::Refusal;
pub use layout::Layout;
pub use load::Load;
pub use member::Member;
pub use mover::{Mover, QUICK, QUICK_WORKERS, errors};
pub use process::{Router, binary, run};
pub use producer::{Acked, Producer};
pub use standby::Standby;
pub use subscriber::Subscriber;
pub use writer::Writer;

/// The folder with published data and workloads, where it is there.
pub fn shared_folder() -> Option<std::path::PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    folder.is_dir().then_some(folder)
}
