//! How to reach a router.

use std::fmt;
use std::time::Duration;

/// How to reach a router.
#[derive(Clone)]
pub struct ClientConfig {
    /// `http://host:port`, or `https://host:port` for TLS.
    pub endpoint: String,
    /// Further routers of the same cluster. A client starts with any of all these that answers, and
    /// streams that lose their router go on at the next one.
    pub fallbacks: Vec<String>,
    /// For `https://` only.
    pub tls: TlsOptions,
    /// Sent as `authorization: Bearer <token>` with every call.
    pub token: Option<String>,
    /// For making one connection.
    pub connect_timeout: Duration,
    /// A router that answers no ping for this long is given up. Pings go every 10 s.
    pub keep_alive_timeout: Duration,
}

/// What TLS needs to know.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Who signs the router's certificate, in PEM form. `https://` needs it.
    pub ca_cert_pem: Option<Vec<u8>>,
    /// The name in the router's certificate, where it is not the host of the endpoint.
    pub domain_name: Option<String>,
    /// Our own certificate, for routers that ask for one.
    pub identity: Option<Identity>,
}

/// A certificate and its key, both in PEM form.
#[derive(Clone)]
pub struct Identity {
    /// The certificate and its chain.
    pub cert_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
}

impl ClientConfig {
    /// The defaults, for an endpoint such as `http://127.0.0.1:7432`.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            fallbacks: Vec::new(),
            tls: TlsOptions::default(),
            token: None,
            connect_timeout: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(10),
        }
    }
}

// By hand: the token and the key must not get into a log.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("endpoint", &self.endpoint)
            .field("fallbacks", &self.fallbacks)
            .field("tls", &self.tls)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("connect_timeout", &self.connect_timeout)
            .field("keep_alive_timeout", &self.keep_alive_timeout)
            .finish()
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca_cert_pem", &self.ca_cert_pem.as_ref().map(Vec::len))
            .field("domain_name", &self.domain_name)
            .field("identity", &self.identity.as_ref().map(|_| "..."))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_secrets() {
        let mut config = ClientConfig::new("http://127.0.0.1:7432");
        config.token = Some("s3cret".into());
        config.tls.identity = Some(Identity {
            cert_pem: b"cert".to_vec(),
            key_pem: b"s3cret".to_vec(),
        });
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
