//! What can go wrong, with the details that the router sent.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use pgbraid_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The endpoint, a certificate or the token cannot be used.
    #[error("{0}")]
    Config(String),
    /// No connection to the router.
    #[error("cannot reach a router at {endpoint}: {cause}")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// Why not.
        cause: String,
    },
    /// The router refused the call.
    #[error(transparent)]
    Api(Box<ApiError>),
    /// The store of tokens failed.
    #[error("{0}")]
    TokenStore(String),
    /// The producer or the stream has ended, and takes nothing more.
    #[error("the stream to the router has ended")]
    Closed,
}

/// What the router said, with its google.rpc details decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status code.
    pub code: Code,
    /// For people.
    pub message: String,
    /// ErrorInfo.reason, SCREAMING_SNAKE; empty if there was none.
    pub reason: String,
    /// ErrorInfo.metadata.
    pub metadata: HashMap<String, String>,
    /// BadRequest: which fields are wrong.
    pub fields: Vec<FieldViolation>,
    /// RetryInfo: do not try again before this has passed.
    pub retry_delay: Option<Duration>,
}

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path, such as `columnar.columns[2]`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl ClientError {
    /// The status code, if the router or the transport gave one.
    pub fn code(&self) -> Code {
        match self {
            Self::Config(_) => Code::InvalidArgument,
            Self::Unreachable { .. } => Code::Unavailable,
            Self::Api(error) => error.code,
            Self::TokenStore(_) => Code::Internal,
            Self::Closed => Code::Cancelled,
        }
    }

    /// Whether the same call may succeed later: overload, an instance or the router down, a lost
    /// connection.
    pub fn is_retriable(&self) -> bool {
        !matches!(
            self.code(),
            Code::InvalidArgument
                | Code::Unauthenticated
                | Code::PermissionDenied
                | Code::Unimplemented
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::OutOfRange
        ) && !matches!(self, Self::Closed | Self::TokenStore(_))
    }
}

impl ApiError {
    fn new(code: Code, message: String, details: ErrorDetails) -> Self {
        let (reason, metadata) = details
            .error_info()
            .map(|info| (info.reason.clone(), info.metadata.clone()))
            .unwrap_or_default();
        let violation = |field: &tonic_types::FieldViolation| FieldViolation {
            field: field.field.clone(),
            description: field.description.clone(),
        };
        let fields = details.bad_request().map(|bad| &bad.field_violations);
        Self {
            code,
            message,
            reason,
            metadata,
            fields: fields.into_iter().flatten().map(violation).collect(),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
        }
    }

    /// Of a status inside a message.
    pub(crate) fn from_message(status: v1::Status) -> Self {
        use prost::Message;
        // The details are read from google.rpc.Status, of which ours is the wire form.
        let status = Status::with_details(
            Code::from_i32(status.code),
            status.message.clone(),
            status.encode_to_vec().into(),
        );
        let details = status.get_error_details();
        Self::new(status.code(), status.message().to_owned(), details)
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let (code, mut message) = (status.code(), status.message().to_owned());
        // Of a broken connection, the status says little and its sources say it all.
        if let Some(cause) = std::error::Error::source(&status) {
            let cause = chain(cause);
            if !message.contains(&cause) {
                message = format!("{message}: {cause}");
            }
        }
        Self::Api(Box::new(ApiError::new(code, message, details)))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            f.write_str(self.code.description())?;
        } else {
            f.write_str(&self.message)?;
        }
        for violation in &self.fields {
            // The first field is often the message itself.
            if !self.message.contains(&violation.description) {
                write!(f, "\n{}: {}", violation.field, violation.description)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

/// A request that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No key column was given.
    #[error("the request has no keys: call one of the key methods first")]
    NoKeys,
    /// A column is longer or shorter than the key column.
    #[error("column {column} has {found} values, but there are {keys} keys")]
    Length {
        /// The column.
        column: String,
        /// Its values.
        found: usize,
        /// The keys.
        keys: usize,
    },
    /// A column's texts are more than 4 GiB together.
    #[error("the texts of column {column} are too long for one request: send fewer rows")]
    TooLong {
        /// The column.
        column: String,
    },
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
