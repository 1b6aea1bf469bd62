//! Why a row or a whole request is refused.

use std::borrow::Cow;

use thiserror::Error;

/// One row that is not written. Its neighbours go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Index of the row in its request.
    pub row: u32,
    /// SCREAMING_SNAKE reason, one of a closed set, for machines.
    pub reason: Cow<'static, str>,
    /// The column it is about; empty for the whole row.
    pub column: String,
    /// What was wrong and what to do, for people.
    pub message: String,
}

/// A request of which no row can be looked at: its shape is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {message}")]
pub struct RequestError {
    /// SCREAMING_SNAKE reason.
    pub reason: &'static str,
    /// Path of the field in the request, e.g. `columnar.columns[2].int32s`.
    pub field: String,
    /// What was wrong and what to do.
    pub message: String,
}

impl RequestError {
    /// A request error.
    pub fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
        }
    }
}
