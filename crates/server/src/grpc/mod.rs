//! The gRPC services.

mod admin;
mod alerts;
mod changes;
mod consume;
mod decode;
mod groups;
pub(crate) mod hot;
mod ingest;
mod raw_stream;
mod rows;
pub(crate) mod status;
mod together;
mod wire;
mod write_stream;

use std::sync::Arc;

pub(crate) use admin::current;

use pgbraid_proto::v1;
use tonic::service::{Routes, interceptor::InterceptedService};

use crate::{auth::Auth, state::Shared};

/// All services, behind the token check, with health and reflection beside them.
pub(crate) fn routes(
    shared: Arc<Shared>,
    auth: Auth,
    max_message: usize,
    health: impl tonic::server::NamedService
    + tower::Service<
        tonic::codegen::http::Request<tonic::body::Body>,
        Response = tonic::codegen::http::Response<tonic::body::Body>,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static,
) -> Result<Routes, tonic_reflection::server::Error> {
    let ingest = raw_stream::RawIngest::new(shared.clone(), max_message);
    let rows = v1::rows_server::RowsServer::new(rows::Service(shared.clone()))
        .max_decoding_message_size(max_message)
        .max_encoding_message_size(usize::MAX);
    let alerts = v1::alerts_server::AlertsServer::new(alerts::Service(shared.clone()));
    let admin = v1::admin_server::AdminServer::new(admin::Service(shared.clone()));
    let changes = v1::changes_server::ChangesServer::new(changes::Service(shared));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pgbraid_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    // Older clients, grpcio-reflection among them, ask for this one.
    let reflection_alpha = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pgbraid_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1alpha()?;
    Ok(Routes::new(InterceptedService::new(ingest, auth.clone()))
        .add_service(InterceptedService::new(rows, auth.clone()))
        .add_service(InterceptedService::new(alerts, auth.clone()))
        .add_service(InterceptedService::new(admin, auth.clone()))
        .add_service(InterceptedService::new(changes, auth.clone()))
        .add_service(InterceptedService::new(reflection, auth.clone()))
        .add_service(InterceptedService::new(reflection_alpha, auth))
        .add_service(health))
}
