//! Starts a router and stops it again.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use pgbraid_alerts::{Hub, HubConfig, Source};
use pgbraid_config::{RouterConfig, ShardMap};
use pgbraid_ingest::{Ingest, IngestConfig, Sink};
use pgbraid_instance::DbError;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming};
use tracing::{info, warn};

use crate::{
    auth::Auth,
    auto, fleet, follow,
    groups::{self, Groups},
    grpc, http, metrics, news,
    node::Node,
    publish, retention,
    state::Shared,
    sweep, watch as map,
};

/// Windows of HTTP/2: the default (64 KiB a stream) would make a 1000-row request wait.
const WINDOW: u32 = 16 << 20;
/// Time that connections get to read their last answers.
const GOODBYE: Duration = Duration::from_secs(3);

/// Why a router does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A settings file.
    #[error(transparent)]
    Config(#[from] pgbraid_config::ConfigError),
    /// Instances.
    #[error(transparent)]
    Fleet(#[from] fleet::FleetError),
    /// An address can't be listened on.
    #[error("can't listen on {address} for {what}: {source}")]
    Listen {
        /// gRPC or HTTP.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The instances are not what the map says, or none answers.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Instances(Vec<DbError>),
    /// TLS.
    #[error("gRPC: {0}")]
    Tls(#[source] tonic::transport::Error),
    /// The services.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A running router.
pub struct Router {
    shared: Arc<Shared>,
    grpc: SocketAddr,
    http: SocketAddr,
    stop: Vec<oneshot::Sender<()>>,
    servers: Vec<JoinHandle<()>>,
    health: tonic_health::server::HealthReporter,
    mover: Option<JoinHandle<()>>,
    _watcher: Option<Box<dyn Send + Sync>>,
}

async fn bind(
    what: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen {
        what,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Router {
    /// Binds, asks the instances, makes missing tables, and serves. `map_path` is the file that is
    /// watched.
    ///
    /// # Errors
    /// If an address is taken, no instance answers, or an instance is not what the map says.
    pub async fn start(
        config: RouterConfig,
        map: ShardMap,
        map_path: PathBuf,
    ) -> Result<Self, StartError> {
        let exporter = metrics::install();
        config.check_map(&map)?;
        let config = Arc::new(config);
        let (grpc_listener, grpc) = bind("gRPC", config.grpc.listen).await?;
        let (http_listener, http) = bind("HTTP", config.http.listen).await?;
        let token = config.grpc.token()?;
        let mut builder = Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW * 4)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .tcp_nodelay(true);
        if let Some(tls) = &config.grpc.tls {
            let pem = tls.read()?;
            let mut settings =
                ServerTlsConfig::new().identity(Identity::from_pem(pem.cert, pem.key));
            if let Some(ca) = pem.client_ca {
                settings = settings.client_ca_root(Certificate::from_pem(ca));
            }
            builder = builder.tls_config(settings).map_err(StartError::Tls)?;
        }
        let map = Arc::new(map);
        metrics::map_info("", &map.fingerprint);
        let shared = Self::state(&config, map, map_path).await?;
        let watcher: Option<Box<dyn Send + Sync>> = if config.map.watch {
            match map::watch(&shared.map_path, shared.reload.clone()) {
                Ok(watcher) => Some(Box::new(watcher)),
                Err(error) => {
                    warn!("the shard map's folder can't be watched, only SIGHUP reloads: {error}");
                    None
                }
            }
        } else {
            None
        };
        let weak = Arc::downgrade(&shared);
        shared.hub.on_ownership(move |instance| {
            if let Some(shared) = weak.upgrade() {
                shared.heard_from.lock().insert(instance);
                shared.news.notify_one();
            }
        });
        let mover = (config.moves.auto).then(|| tokio::spawn(auto::follow(shared.clone())));
        tokio::spawn(follow::follow(shared.clone()));
        tokio::spawn(news::follow_news(shared.clone()));
        tokio::spawn(map::reloader(shared.clone()));
        tokio::spawn(sweep::sweep(shared.clone()));
        tokio::spawn(groups::make_configured(shared.clone()));
        tokio::spawn(retention::maintain(shared.clone()));
        tokio::spawn(metrics::sample(shared.clone(), exporter.clone()));
        let stale = shared.ingest.stale_routing();
        let refresh = shared.refresh.clone();
        let weak = Arc::downgrade(&shared);
        tokio::spawn(async move {
            while weak.strong_count() > 0 {
                stale.notified().await;
                refresh.notify_one();
            }
        });
        let (health, service) = tonic_health::server::health_reporter();
        health
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let limit = config.grpc.max_message_bytes as usize;
        let routes = grpc::routes(shared.clone(), Auth::new(token), limit, service)?;
        let incoming = TcpIncoming::from(grpc_listener).with_nodelay(Some(true));
        let (stop_grpc, grpc_stopped) = oneshot::channel::<()>();
        let (stop_http, http_stopped) = oneshot::channel::<()>();
        let grpc_server = tokio::spawn(async move {
            let served = builder
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, async {
                    let _ = grpc_stopped.await;
                });
            if let Err(error) = served.await {
                warn!("gRPC ended: {error}");
            }
        });
        let http_shared = shared.clone();
        let http_server = tokio::spawn(async move {
            let stopped = async {
                let _ = http_stopped.await;
            };
            if let Err(error) = http::serve(http_listener, http_shared, exporter, stopped).await {
                warn!("HTTP ended: {error}");
            }
        });
        shared.ready.store(true, Ordering::Release);
        info!(%grpc, %http, cluster = %shared.cluster, "serving");
        Ok(Self {
            shared,
            grpc,
            http,
            stop: vec![stop_grpc, stop_http],
            servers: vec![grpc_server, http_server],
            health,
            mover,
            _watcher: watcher,
        })
    }

    async fn state(
        config: &Arc<RouterConfig>,
        map: Arc<ShardMap>,
        map_path: PathBuf,
    ) -> Result<Arc<Shared>, StartError> {
        let password = config.postgres.password()?;
        let mut nodes = BTreeMap::new();
        for name in map.instances.keys() {
            let instance = fleet::instance(config, &map, *name, password.as_deref())?;
            nodes.insert(*name, Node::new(instance));
        }
        let (cluster, mut topology) = follow::first_look(config, map, nodes)
            .await
            .map_err(StartError::Instances)?;
        topology
            .read_schemas(config)
            .await
            .map_err(|error| StartError::Instances(vec![error]))?;
        topology.resolve_owners();
        topology.make_missing(config).await;
        let ingest = Ingest::new(IngestConfig {
            batch_rows: config.ingest.batch_rows,
            linger: config.ingest.linger,
            queue_bytes: config.ingest.queue_bytes,
            queue_bytes_per_instance: config.ingest.queue_bytes_per_instance,
            retry_min: config.ingest.retry_min,
            retry_max: config.ingest.retry_max,
            stall_after: config.ingest.stall_after,
        });
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        for node in topology.nodes.values() {
            let sink: Arc<dyn Sink> = node.clone();
            ingest.add_instance(sink, config.postgres.writers as usize);
            sources.push(node.clone());
        }
        let alerts = &config.alerts;
        let hub = Hub::new(
            HubConfig {
                heartbeat: alerts.heartbeat,
                reconnect_min: alerts.reconnect_min,
                reconnect_max: alerts.reconnect_max,
                ring_alerts: alerts.ring_alerts,
                read_batch: alerts.read_batch as u32,
                max_subscribers: alerts.max_subscribers,
                channels: alerts.channels.clone(),
                ..HubConfig::default()
            },
            cluster.into_bytes(),
            sources,
        );
        let shared = Arc::new(Shared {
            config: config.clone(),
            map_path,
            cluster,
            ingest,
            hub: Arc::new(hub),
            groups: Groups::default(),
            topology: ArcSwap::from_pointee(topology.clone()),
            publishing: parking_lot::Mutex::default(),
            map_error: ArcSwap::from_pointee(None),
            refresh: Arc::new(Notify::new()),
            heard_from: parking_lot::Mutex::default(),
            news: Notify::new(),
            told: Notify::new(),
            map_changed: Notify::new(),
            auto: Arc::default(),
            reload: Arc::new(Notify::new()),
            kept: retention::KeptByInstance::default(),
            started: SystemTime::now(),
            ready: AtomicBool::new(false),
            draining: watch::Sender::new(false),
        });
        publish::publish(&shared, topology);
        shared.refresh.notify_one();
        Ok(shared)
    }

    /// Where gRPC is served.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Reads the shard map again.
    pub fn reload(&self) {
        self.shared.reload.notify_one();
    }

    /// Takes nothing new, writes what was taken and answers it, then stops. Returns the rows that
    /// could not be written within `ingest.drain_timeout`.
    pub async fn shutdown(mut self) -> u64 {
        info!("draining");
        self.health
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
        self.shared.draining.send_replace(true);
        let deadline = Instant::now() + self.shared.config.ingest.drain_timeout;
        let left = self.shared.ingest.drain(deadline).await;
        if let Some(mover) = self.mover.take()
            && tokio::time::timeout(auto::GOODBYE, mover).await.is_err()
        {
            warn!(
                "a move of a table was cut short: another router, or `map apply`, goes on with it"
            );
        }
        for stop in self.stop.drain(..) {
            let _ = stop.send(());
        }
        for mut server in self.servers.drain(..) {
            if tokio::time::timeout(GOODBYE, &mut server).await.is_err() {
                server.abort();
            }
        }
        self.shared.hub.close();
        if left > 0 {
            warn!("{left} rows were not written and not acknowledged");
        }
        left
    }
}
