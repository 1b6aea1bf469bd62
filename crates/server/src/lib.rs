//! The router: gRPC services, HTTP, and what keeps it in step with the shard map and the
//! instances. The only crate that knows tonic on the server's side.

mod auth;
mod auto;
pub mod fleet;
mod follow;
mod groups;
mod grpc;
mod http;
mod metrics;
mod news;
mod node;
mod publish;
mod rescue;
mod retention;
mod router;
mod schema;
mod state;
mod sweep;
mod watch;

pub use router::{Router, StartError};

/// Parts of the hot path, for the benchmarks that measure them alone. No API: they change freely.
#[doc(hidden)]
pub mod hot {
    pub use crate::grpc::hot::{block, lone_rows, wire_block};

    /// Records metrics as a router does. What is returned is to be called now and then, as a
    /// router does: histograms grow until then.
    pub fn record_metrics() -> impl Fn() + Send + 'static {
        let metrics = crate::metrics::install();
        move || metrics.run_upkeep()
    }
}
