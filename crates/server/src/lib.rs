//! The router: gRPC services, HTTP, and what keeps it in step with the shard map and the
//! instances. The only crate that knows tonic on the server's side.

mod auth;
pub mod fleet;
mod follow;
mod grpc;
mod http;
mod metrics;
mod node;
mod router;
mod schema;
mod state;
mod watch;

pub use router::{Router, StartError};
