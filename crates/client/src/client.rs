//! The connection to a router.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// A connection to a router, or to one of several. Clones share it; it reconnects by itself.
#[derive(Clone)]
pub struct Client {
    routers: Arc<Routers>,
}

struct Routers {
    /// At least one.
    all: Vec<Router>,
    /// Where calls go now; counts on, and is taken modulo their number.
    current: AtomicUsize,
}

struct Router {
    endpoint: String,
    transport: Transport,
}

/// Where a stream goes, to say later that it was lost there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.routers.all.iter().map(|router| &router.endpoint);
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint())
            .field("all", &all.collect::<Vec<_>>())
            .finish()
    }
}

impl Client {
    /// Connects to a router, or to any of several.
    ///
    /// # Errors
    /// [`ClientError::Config`] when an endpoint, a certificate or the token cannot be used,
    /// [`ClientError::Unreachable`] when there is no connection.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let auth = Auth::new(config.token.as_deref())?;
        let texts = std::iter::once(&config.endpoint).chain(&config.fallbacks);
        let endpoints = texts.map(|text| Ok((text.clone(), endpoint(text, &config)?)));
        let endpoints: Vec<(String, Endpoint)> = endpoints.collect::<Result<_, ClientError>>()?;
        // Any of them, so that the clients of several routers spread over these.
        let first = rand::random_range(0..endpoints.len());
        let mut unreachable = Vec::new();
        for turn in 0..endpoints.len() {
            let at = (first + turn) % endpoints.len();
            match endpoints[at].1.connect().await {
                Ok(channel) => return Ok(Self::new(&endpoints, at, channel, &auth)),
                Err(error) => unreachable.push((endpoints[at].0.clone(), chain(&error))),
            }
        }
        let (endpoints, mut causes): (Vec<_>, Vec<_>) = unreachable.into_iter().unzip();
        causes.dedup();
        Err(ClientError::Unreachable {
            endpoint: endpoints.join(", "),
            cause: causes.join("; "),
        })
    }

    fn new(endpoints: &[(String, Endpoint)], at: usize, channel: Channel, auth: &Auth) -> Self {
        let router = |(index, (text, endpoint)): (usize, &(String, Endpoint))| Router {
            endpoint: text.clone(),
            transport: InterceptedService::new(
                if index == at {
                    channel.clone()
                } else {
                    endpoint.connect_lazy()
                },
                auth.clone(),
            ),
        };
        let routers = Routers {
            all: endpoints.iter().enumerate().map(router).collect(),
            current: AtomicUsize::new(at),
        };
        Self {
            routers: Arc::new(routers),
        }
    }

    fn router(&self) -> &Router {
        let all = &self.routers.all;
        &all[self.place().0 % all.len()]
    }

    /// The endpoint that calls go to now.
    pub fn endpoint(&self) -> &str {
        &self.router().endpoint
    }

    /// Where a stream that starts now goes.
    pub(crate) fn place(&self) -> Place {
        Place(self.routers.current.load(Ordering::Relaxed))
    }

    /// A stream was lost there: what follows goes to the next router, unless another stream has
    /// found the same already.
    pub(crate) fn lost(&self, place: Place) {
        let next = place.0.wrapping_add(1);
        let current = &self.routers.current;
        let _ = current.compare_exchange(place.0, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn transport(&self) -> Transport {
        self.router().transport.clone()
    }

    /// Writing, as the protocol has it; see [`Producer`](crate::Producer) for the stream.
    pub fn ingest(&self) -> IngestClient<Transport> {
        IngestClient::new(self.transport())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Alerts, as the protocol has them; see [`Subscriber`](crate::Subscriber).
    pub fn alerts(&self) -> AlertsClient<Transport> {
        AlertsClient::new(self.transport()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Reading rows by key.
    pub fn rows(&self) -> RowsClient<Transport> {
        RowsClient::new(self.transport())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Changes, as the protocol has them; see [`ChangeFollower`](crate::ChangeFollower).
    pub fn changes(&self) -> ChangesClient<Transport> {
        ChangesClient::new(self.transport()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Rules and the state of the cluster.
    pub fn admin(&self) -> AdminClient<Transport> {
        AdminClient::new(self.transport()).max_decoding_message_size(MESSAGE_BYTES)
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

fn endpoint(text: &str, config: &ClientConfig) -> Result<Endpoint, ClientError> {
    let wrong = |what: String| ClientError::Config(format!("{text}: {what}"));
    let secure = text.starts_with("https://");
    if !secure && !text.starts_with("http://") {
        let what = "not the address of a router: write http://host:port or https://host:port";
        return Err(wrong(what.into()));
    }
    let mut endpoint = Endpoint::from_shared(text.to_owned())
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

    #[tokio::test]
    async fn one_of_several_is_enough_and_a_loss_moves_on_once() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = format!("http://{}", socket.local_addr().unwrap());
        drop(socket);
        let router = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = format!("http://{}", router.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(router);
        let none = tonic::service::Routes::default();
        let serve = tonic::transport::Server::builder().add_routes(none);
        tokio::spawn(serve.serve_with_incoming(incoming));
        for _ in 0..4 {
            let mut config = ClientConfig::new(&gone);
            config.fallbacks = vec![there.clone()];
            let client = Client::connect(config).await.unwrap();
            assert_eq!(client.endpoint(), there);
            let place = client.place();
            client.lost(place);
            client.clone().lost(place);
            assert_eq!(client.endpoint(), gone);
            client.lost(client.place());
            assert_eq!(client.endpoint(), there);
        }
    }
}
