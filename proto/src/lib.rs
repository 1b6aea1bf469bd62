//! Generated types and service traits of the `pgbraid.v1` protocol.

/// The protocol, version 1. The comments are those of `proto/pgbraid/v1/*.proto`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("pgbraid.v1");
}

/// The protocol as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
