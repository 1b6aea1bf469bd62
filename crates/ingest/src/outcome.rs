//! What became of a request's rows.

use std::time::Duration;

use pgbraid_feed::Refusal;

/// Why a row was not written, in the protocol's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The row is bad: never send it again.
    Invalid,
    /// The instance can't be written to now, or did not answer in time: send it again.
    Unavailable,
    /// Too much is queued: send it again later.
    Exhausted,
}

/// A row that was not written.
#[derive(Clone, Debug, PartialEq)]
pub struct RowRefusal {
    /// The row, the column, the reason.
    pub refusal: Refusal,
    /// Whether it makes sense to send it again.
    pub code: Code,
    /// PostgreSQL's error code, where it refused the row.
    pub sqlstate: Option<String>,
    /// The constraint that the row violates, where there is one.
    pub constraint: Option<String>,
    /// When to send it again, where that makes sense.
    pub retry_after: Option<Duration>,
}

impl RowRefusal {
    /// A row refused at the edge.
    pub fn invalid(refusal: Refusal) -> Self {
        Self {
            refusal,
            code: Code::Invalid,
            sqlstate: None,
            constraint: None,
            retry_after: None,
        }
    }

    pub(crate) fn again(
        code: Code,
        reason: &'static str,
        message: String,
        retry_after: Duration,
    ) -> Self {
        Self {
            refusal: Refusal {
                // Set when the row is refused.
                row: 0,
                reason: reason.into(),
                column: String::new(),
                message,
            },
            code,
            sqlstate: None,
            constraint: None,
            retry_after: Some(retry_after),
        }
    }
}

/// What became of a request: every row is either committed or refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Rows that PostgreSQL committed.
    pub committed: u64,
    /// The others, ascending by row.
    pub refused: Vec<RowRefusal>,
}
