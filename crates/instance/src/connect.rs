//! How to reach one instance.

use std::{path::PathBuf, time::Duration};

use pgbraid_shardmap::InstanceName;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, Socket, config::TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{DbError, DbErrorKind, tls};

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it.
    Prefer,
    /// Always; the certificate is not verified.
    Require,
    /// Always; certificate and host name are verified against the given roots.
    VerifyFull,
}

/// What is the same for all instances.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ConnectorSettings {
    pub user: String,
    pub dbname: String,
    pub search_path: String,
    pub ssl_mode: SslMode,
    pub ssl_root_cert: Option<PathBuf>,
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    pub lock_timeout: Duration,
    pub tcp_user_timeout: Duration,
}

/// Makes connections to one instance: to whichever of its hosts can be written to.
#[derive(Clone)]
pub struct Connector {
    /// The instance.
    pub name: InstanceName,
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    /// `host:port` of each host, for messages.
    pub address: String,
    pub(crate) statement_timeout: Duration,
    connect_timeout: Duration,
    hosts: u32,
    ssl_mode: SslMode,
}

pub(crate) type RawConnection =
    Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

impl Connector {
    /// A connector.
    ///
    /// # Errors
    /// If the root certificates can't be read.
    pub fn new(
        name: InstanceName,
        hosts: &[(String, u16)],
        settings: &ConnectorSettings,
        dbname: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, DbError> {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&settings.user)
            .dbname(dbname.unwrap_or(&settings.dbname))
            .application_name("pgbraid")
            .connect_timeout(settings.connect_timeout)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3)
            .tcp_user_timeout(settings.tcp_user_timeout)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(match settings.ssl_mode {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                SslMode::Require | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            })
            .options(format!(
                "-c statement_timeout={} -c lock_timeout={} \
                 -c idle_in_transaction_session_timeout={} -c timezone=UTC -c datestyle=ISO \
                 -c extra_float_digits=1 -c client_min_messages=warning -c search_path={}",
                settings.statement_timeout.as_millis(),
                settings.lock_timeout.as_millis(),
                (settings.statement_timeout * 2).as_millis(),
                // The server splits options at blanks that are not escaped.
                settings
                    .search_path
                    .replace('\\', "\\\\")
                    .replace(' ', "\\ "),
            ));
        if let Some(password) = password {
            config.password(password);
        }
        let mut addresses = Vec::new();
        for (host, port) in hosts {
            if host.starts_with('/') {
                config.host_path(host);
            } else {
                config.host(host);
            }
            config.port(*port);
            addresses.push(if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            });
        }
        let roots = match settings.ssl_mode {
            SslMode::VerifyFull => settings.ssl_root_cert.as_deref(),
            _ => None,
        };
        Ok(Self {
            name,
            config,
            tls: tls::connector(roots)?,
            address: addresses.join(","),
            statement_timeout: settings.statement_timeout,
            connect_timeout: settings.connect_timeout,
            hosts: hosts.len().max(1) as u32,
            ssl_mode: settings.ssl_mode,
        })
    }

    /// How another instance reaches this one: a connection string for libpq. With a `passfile` (a
    /// path on that instance) it holds no password.
    pub fn conninfo(&self, passfile: Option<&str>, root_cert: Option<&str>) -> String {
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .map(|host| match host {
                tokio_postgres::config::Host::Tcp(host) => host.clone(),
                tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let ports: Vec<String> = self.config.get_ports().iter().map(u16::to_string).collect();
        let mut parts = vec![
            ("host", hosts.join(",")),
            ("port", ports.join(",")),
            (
                "user",
                self.config.get_user().unwrap_or_default().to_owned(),
            ),
            (
                "dbname",
                self.config.get_dbname().unwrap_or_default().to_owned(),
            ),
            (
                "sslmode",
                match self.ssl_mode {
                    SslMode::Disable => "disable",
                    SslMode::Prefer => "prefer",
                    SslMode::Require => "require",
                    SslMode::VerifyFull => "verify-full",
                }
                .to_owned(),
            ),
            (
                "connect_timeout",
                self.connect_timeout.as_secs().max(2).to_string(),
            ),
            ("target_session_attrs", "read-write".to_owned()),
        ];
        match (passfile, self.config.get_password()) {
            (Some(path), _) => parts.push(("passfile", path.to_owned())),
            (None, Some(password)) => {
                parts.push(("password", String::from_utf8_lossy(password).into_owned()));
            }
            (None, None) => {}
        }
        if let Some(path) = root_cert {
            parts.push(("sslrootcert", path.to_owned()));
        }
        let quoted = parts.iter().map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            format!("{name}='{value}'")
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Connects. The connection must be polled by the caller.
    pub(crate) async fn open(&self, options: &str) -> Result<(Client, RawConnection), DbError> {
        let mut config = self.config.clone();
        if !options.is_empty() {
            let all = format!("{} {options}", config.get_options().unwrap_or_default());
            config.options(all);
        }
        // The driver's own limit is for one TCP connect; a stopped server accepts and says nothing.
        let limit = self.connect_timeout * self.hosts + Duration::from_secs(1);
        match tokio::time::timeout(limit, config.connect(self.tls.clone())).await {
            Ok(connected) => connected.map_err(|error| {
                let mut error = DbError::from(error);
                // Nothing was sent yet: there is nothing to be in doubt about.
                error.kind = DbErrorKind::Outage;
                error.context(format!(
                    "can't connect to {} at {}",
                    self.name, self.address
                ))
            }),
            Err(_) => Err(DbError::new(
                DbErrorKind::Outage,
                format!(
                    "can't connect to {} at {}: no answer within {limit:?}",
                    self.name, self.address
                ),
            )),
        }
    }

    /// Connects and drives the connection in the background.
    pub(crate) async fn client(&self, options: &str) -> Result<Client, DbError> {
        let (client, connection) = self.open(options).await?;
        tokio::spawn(async move {
            // Whoever uses the client sees the error there.
            let _ = connection.await;
        });
        Ok(client)
    }
}
