//! The connection to a router.

use std::fmt;
use std::time::Duration;

use pgbraid_proto::v1::admin_client::AdminClient;
use pgbraid_proto::v1::alerts_client::AlertsClient;
use pgbraid_proto::v1::changes_client::ChangesClient;
use pgbraid_proto::v1::ingest_client::IngestClient;
use pgbraid_proto::v1::rows_client::RowsClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::config::ClientConfig;
use crate::error::{ClientError, chain};

/// A stream that waits for acks must not wait for window updates as well.
const WINDOW_BYTES: u32 = 16 << 20;
pub(crate) const MESSAGE_BYTES: usize = 64 << 20;
const PING_EVERY: Duration = Duration::from_secs(10);

/// What the calls of a [`Client`] go through.
pub type Transport = InterceptedService<Channel, Auth>;

/// Adds the token to every call.
#[derive(Clone)]
pub struct Auth {
    bearer: Option<MetadataValue<Ascii>>,
}

/// A connection to a router. Clones share it; it reconnects by itself.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    endpoint: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .finish()
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the endpoint, a certificate or the token cannot be used,
    /// [`ClientError::Unreachable`] when there is no connection.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let auth = Auth::new(config.token.as_deref())?;
        let channel = endpoint(&config)?.connect().await;
        let channel = channel.map_err(|error| ClientError::Unreachable {
            endpoint: config.endpoint.clone(),
            cause: chain(&error),
        })?;
        Ok(Self {
            transport: InterceptedService::new(channel, auth),
            endpoint: config.endpoint,
        })
    }

    /// The endpoint it was made for.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// Writing, as the protocol has it; see [`Producer`](crate::Producer) for the stream.
    pub fn ingest(&self) -> IngestClient<Transport> {
        IngestClient::new(self.transport.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Alerts, as the protocol has them; see [`Subscriber`](crate::Subscriber).
    pub fn alerts(&self) -> AlertsClient<Transport> {
        AlertsClient::new(self.transport.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Reading rows by key.
    pub fn rows(&self) -> RowsClient<Transport> {
        RowsClient::new(self.transport.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Changes, as the protocol has them; see [`ChangeFollower`](crate::ChangeFollower).
    pub fn changes(&self) -> ChangesClient<Transport> {
        ChangesClient::new(self.transport.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Rules and the state of the cluster.
    pub fn admin(&self) -> AdminClient<Transport> {
        AdminClient::new(self.transport.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }
}

impl Auth {
    fn new(token: Option<&str>) -> Result<Self, ClientError> {
        let bearer = token.map(|token| format!("Bearer {token}").parse());
        let bearer = bearer.transpose().map_err(|_| {
            ClientError::Config("the token has characters that a header cannot carry".into())
        })?;
        let bearer = bearer.map(|mut value: MetadataValue<Ascii>| {
            value.set_sensitive(true);
            value
        });
        Ok(Self { bearer })
    }
}

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.bearer {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

fn endpoint(config: &ClientConfig) -> Result<Endpoint, ClientError> {
    let text = &config.endpoint;
    let wrong = |what: String| ClientError::Config(format!("{text}: {what}"));
    let secure = text.starts_with("https://");
    if !secure && !text.starts_with("http://") {
        let what = "not the address of a router: write http://host:port or https://host:port";
        return Err(wrong(what.into()));
    }
    let mut endpoint = Endpoint::from_shared(text.clone())
        .map_err(|error| wrong(format!("not an address: {}", chain(&error))))?
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(config.keep_alive_timeout)
        .keep_alive_while_idle(true);
    if secure {
        let Some(ca) = &config.tls.ca_cert_pem else {
            let what = "https needs the certificate of who signed the router's (ca_cert_pem)";
            return Err(wrong(what.into()));
        };
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        if let Some(name) = &config.tls.domain_name {
            tls = tls.domain_name(name);
        }
        if let Some(own) = &config.tls.identity {
            tls = tls.identity(tonic::transport::Identity::from_pem(
                &own.cert_pem,
                &own.key_pem,
            ));
        }
        endpoint = endpoint
            .tls_config(tls)
            .map_err(|error| wrong(format!("TLS: {}", chain(&error))))?;
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_that_cannot_be() {
        for (text, part) in [
            ("127.0.0.1:7432", "write http://"),
            ("http://", "not an address"),
            ("https://127.0.0.1:7432", "ca_cert_pem"),
        ] {
            let error = Client::connect(ClientConfig::new(text)).await.err();
            let error = error.map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn nobody_there() {
        // Bound, never listening for gRPC, and closed again.
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", socket.local_addr().unwrap());
        drop(socket);
        let error = Client::connect(ClientConfig::new(&endpoint)).await.err();
        assert!(matches!(error, Some(ClientError::Unreachable { .. })));
    }
}
