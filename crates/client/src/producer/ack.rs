//! What became of a request.

use std::time::Duration;

use pgbraid_proto::v1;
use tonic::Code;

use crate::error::{ApiError, ClientError};

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteAck {
    /// Rows that PostgreSQL committed.
    pub committed: u64,
    /// Rows that were not written, in the order of the request. All others were.
    pub refused: Vec<Refused>,
}

impl TryFrom<v1::WriteResponse> for WriteAck {
    type Error = ClientError;

    /// # Errors
    /// What the router says of the whole request, if it did not look at its rows.
    fn try_from(answer: v1::WriteResponse) -> Result<Self, ClientError> {
        match answer.status {
            Some(status) => Err(ClientError::Api(Box::new(ApiError::from_message(status)))),
            None => Ok(Self {
                committed: answer.rows_committed,
                refused: answer.refused.into_iter().map(Refused::from).collect(),
            }),
        }
    }
}

/// A row that was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its place in the request, from 0.
    pub index: u32,
    /// INVALID_ARGUMENT: never send it again. UNAVAILABLE and RESOURCE_EXHAUSTED: it may be sent
    /// again.
    pub code: Code,
    /// SCREAMING_SNAKE, such as OUT_OF_RANGE.
    pub reason: String,
    /// The column; empty when it is about the whole row.
    pub column: String,
    /// For people. Empty past the first 8 KiB of an answer.
    pub message: String,
    /// When PostgreSQL refused it.
    pub sqlstate: String,
    /// When PostgreSQL refused it for a constraint.
    pub constraint: String,
    /// Do not send it again before this has passed.
    pub retry_delay: Option<Duration>,
}

impl Refused {
    /// Whether the row may be sent again.
    pub fn is_retriable(&self) -> bool {
        is_retriable(self.code)
    }
}

pub(super) fn is_retriable(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::ResourceExhausted)
}

impl From<v1::RefusedRow> for Refused {
    fn from(row: v1::RefusedRow) -> Self {
        Self {
            index: row.index,
            code: Code::from_i32(row.code),
            reason: row.reason,
            column: row.column,
            message: row.message,
            sqlstate: row.sqlstate,
            constraint: row.constraint,
            retry_delay: row.retry_delay.and_then(|delay| delay.try_into().ok()),
        }
    }
}
