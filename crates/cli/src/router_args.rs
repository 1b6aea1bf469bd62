//! How commands reach a router.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use pgbraid_client::{Client, ClientConfig, ClientError};

use crate::failure::{Failure, OrFail, Result};

/// Where routers listen unless told otherwise.
const DEFAULT: &str = "http://127.0.0.1:7432";

#[derive(Args, Debug, Clone)]
pub struct RouterArgs {
    /// The router's gRPC address; of several routers, separated by commas, any that answers
    #[arg(long, value_name = "URL", env = "PGBRAID_ROUTER", default_value = DEFAULT)]
    pub router: String,
    #[command(flatten)]
    pub access: Access,
}

/// What a router may ask for.
#[derive(Args, Debug, Clone)]
pub struct Access {
    /// A file with the token that the router asks for
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Who signed the router's certificate (PEM), for https
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
}

impl RouterArgs {
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.router, &self.access).await
    }
}

pub async fn connect(router: &str, access: &Access) -> Result<Client> {
    let mut routers = router.split(',').map(str::trim);
    let mut config = ClientConfig::new(routers.next().unwrap_or_default());
    config.fallbacks = routers.map(str::to_owned).collect();
    if let Some(path) = &access.token_file {
        let token = read(path, "the token")?;
        let token = String::from_utf8(token).or_fail(|| format!("{}", path.display()))?;
        config.token = Some(token.trim_end().to_owned());
    }
    if let Some(path) = &access.ca_cert {
        config.tls.ca_cert_pem = Some(read(path, "the certificate")?);
    } else if router.contains("https://") {
        return Err(
            Failure::new(format!("{router}: TLS needs a certificate to trust"))
                .hint("add --ca-cert with the certificate (PEM) of who signed the router's"),
        );
    }
    Client::connect(config).await.map_err(refused)
}

/// A failed call, with what to do about it where that is known.
pub fn refused(error: ClientError) -> Failure {
    let hint = match &error {
        ClientError::Unreachable { .. } => Some(
            "start one with `pgbraid serve --config pgbraid.toml`, or name it with --router or \
             PGBRAID_ROUTER",
        ),
        ClientError::Api(api) => match api.code {
            tonic::Code::Unauthenticated => Some("give the router's token with --token-file"),
            tonic::Code::Unimplemented => Some("is this the gRPC address of a pgbraid router?"),
            _ => None,
        },
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// For `map_err` on calls of tonic.
pub fn status(status: tonic::Status) -> Failure {
    refused(status.into())
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    fs::read(path).or_fail(|| format!("cannot read {what} from {}", path.display()))
}
