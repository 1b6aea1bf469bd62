//! The other files that the settings name, read when they are needed: what is rotated on disk is
//! new at the next read, and nothing secret stays in a value that could be printed.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::ConfigError;
use crate::router::RouterConfig;
use crate::sections::{GrpcConfig, MovesConfig, PostgresConfig, TlsConfig};

/// The variable that, when it is not empty, holds the password of `postgres.user`.
pub const PASSWORD_VARIABLE: &str = "PGBRAID_PG_PASSWORD";

/// One file of the user's SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaFile {
    /// Where it was read.
    pub path: PathBuf,
    /// Its text.
    pub sql: String,
}

impl RouterConfig {
    /// Reads the user's SQL, in order.
    ///
    /// # Errors
    /// A file cannot be read, or is not UTF-8.
    pub fn read_schema(&self) -> Result<Vec<SchemaFile>, ConfigError> {
        let read = |path: &PathBuf| {
            Ok(SchemaFile {
                path: path.clone(),
                sql: read_text(path, "schema")?,
            })
        };
        self.schema.iter().map(read).collect()
    }
}

impl PostgresConfig {
    /// The password: from the variable [`PASSWORD_VARIABLE`], else from `password_file` without
    /// one newline at its end, else none.
    ///
    /// # Errors
    /// The variable is not UTF-8, or the file cannot be read, is empty, or has a NUL.
    pub fn password(&self) -> Result<Option<String>, ConfigError> {
        self.password_given(env::var_os(PASSWORD_VARIABLE))
    }

    fn password_given(&self, variable: Option<OsString>) -> Result<Option<String>, ConfigError> {
        if let Some(value) = variable.filter(|value| !value.is_empty()) {
            let not_text = |_| unusable(&PASSWORD_VARIABLE, "the variable is not UTF-8");
            return value.into_string().map(Some).map_err(not_text);
        }
        let Some(path) = &self.password_file else {
            return Ok(None);
        };
        read_password(path, "postgres.password_file").map(Some)
    }

    /// The certificates that `ssl_root_cert` names, in PEM form.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn ssl_root_pem(&self) -> Result<Option<Vec<u8>>, ConfigError> {
        read_optional(self.ssl_root_cert.as_deref(), "postgres.ssl_root_cert")
    }
}

impl MovesConfig {
    /// The password of `moves.user`.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or has a NUL.
    pub fn password(&self) -> Result<Option<String>, ConfigError> {
        let path = self.password_file.as_deref();
        path.map(|path| read_password(path, "moves.password_file"))
            .transpose()
    }
}

impl GrpcConfig {
    /// The token that clients must send as `authorization: Bearer <token>`.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or has characters that a header cannot carry.
    pub fn token(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let token = read_line(path, "grpc.token_file")?;
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            let message =
                "grpc.token_file must hold one token of printable ASCII characters without spaces";
            return Err(unusable(&path.display(), message));
        }
        Ok(Some(token))
    }
}

/// The files of a [`TlsConfig`], in PEM form. The key is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsPem {
    /// The server's certificate and its chain.
    pub cert: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// Who signs clients' certificates.
    pub client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPem").finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn read(&self) -> Result<TlsPem, ConfigError> {
        Ok(TlsPem {
            cert: read_bytes(&self.cert, "grpc.tls.cert")?,
            key: read_bytes(&self.key, "grpc.tls.key")?,
            client_ca: read_optional(self.client_ca.as_deref(), "grpc.tls.client_ca")?,
        })
    }
}

fn unusable(origin: &dyn fmt::Display, message: &str) -> ConfigError {
    ConfigError::Unusable {
        origin: origin.to_string(),
        message: message.to_owned(),
    }
}

fn read_text(path: &Path, purpose: &'static str) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|cause| ConfigError::read(path, purpose, cause))
}

fn read_bytes(path: &Path, purpose: &'static str) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|cause| ConfigError::read(path, purpose, cause))
}

fn read_optional(
    path: Option<&Path>,
    purpose: &'static str,
) -> Result<Option<Vec<u8>>, ConfigError> {
    path.map(|path| read_bytes(path, purpose)).transpose()
}

fn read_password(path: &Path, purpose: &'static str) -> Result<String, ConfigError> {
    let password = read_line(path, purpose)?;
    if password.contains('\0') {
        let message = format!("{purpose} has a NUL byte, and a password cannot");
        return Err(unusable(&path.display(), &message));
    }
    Ok(password)
}

/// A secret alone in its file, which editors and `echo` end with a newline.
fn read_line(path: &Path, purpose: &'static str) -> Result<String, ConfigError> {
    let mut text = read_text(path, purpose)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        let message = format!("{purpose} is empty: put the secret there, or remove the key");
        return Err(unusable(&path.display(), &message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
