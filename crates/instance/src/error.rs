//! Errors of one instance, sorted by what they mean for the caller.

use std::{error::Error as _, fmt::Write as _};

use thiserror::Error;

/// What a database error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbErrorKind {
    /// A row is refused: classes 22, 23, P0 and others that are about the row or raised by a
    /// trigger, whose codes may be its author's own.
    Refused,
    /// A conflict with another writer: 40P01, 40001, 55P03.
    Conflict,
    /// The instance can't do it now: classes 08, 53, 57, 58, a read-only standby, no privilege.
    Outage,
    /// The connection broke before an answer: whatever was sent may still be running.
    Lost,
    /// The table is not here: it moved, or was dropped.
    Moved,
    /// The statement itself is wrong: class 42.
    Statement,
    /// What is stored contradicts what was asked for; nothing was changed.
    Contradiction,
}

/// An error from one instance.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct DbError {
    /// What it means.
    pub kind: DbErrorKind,
    /// The whole cause in one line.
    pub message: String,
    /// PostgreSQL's error code.
    pub sqlstate: Option<String>,
    /// The violated constraint, if there is one.
    pub constraint: Option<String>,
    /// The column, where PostgreSQL names it.
    pub column: Option<String>,
}

/// The SQLSTATE with which a fenced table refuses writes.
pub const FENCED: &str = "PB001";

impl DbError {
    /// An error without a SQLSTATE.
    pub fn new(kind: DbErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            sqlstate: None,
            constraint: None,
            column: None,
        }
    }

    /// Puts what was being done before the message.
    pub fn context(mut self, doing: impl std::fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            DbErrorKind::Conflict | DbErrorKind::Outage | DbErrorKind::Lost
        )
    }
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                let _ = write!(message, ": {error}");
                cause = error.source();
            }
            return Self::new(DbErrorKind::Lost, message);
        };
        let code = db.code().code();
        let mut message = db.message().to_owned();
        for (label, extra) in [("detail", db.detail()), ("hint", db.hint())] {
            if let Some(extra) = extra {
                let _ = write!(message, " ({label}: {extra})");
            }
        }
        let _ = write!(message, " [SQLSTATE {code}]");
        Self {
            kind: kind(code, db.constraint().is_some() || db.where_().is_some()),
            message,
            sqlstate: Some(code.to_owned()),
            constraint: db.constraint().map(str::to_owned),
            column: db.column().map(str::to_owned),
        }
    }
}

fn kind(code: &str, about_row: bool) -> DbErrorKind {
    match code {
        FENCED | "42P01" => DbErrorKind::Moved,
        // A row that fits no partition names no constraint and comes from no function. A violated
        // CHECK names one, and a trigger that raises the same code has its function as context.
        "23514" if !about_row => DbErrorKind::Moved,
        "40P01" | "40001" | "55P03" => DbErrorKind::Conflict,
        "25006" | "42501" => DbErrorKind::Outage,
        _ => match code.get(..2) {
            Some(class) if REFUSING.contains(&class) => DbErrorKind::Refused,
            Some("42") => DbErrorKind::Statement,
            Some(class) if OTHERS.contains(&class) => DbErrorKind::Outage,
            // No class of PostgreSQL: a trigger chose the code (`raise … using errcode`).
            _ => DbErrorKind::Refused,
        },
    }
}

/// The classes of errors that come from a row, or from a trigger that looked at it. 54 is a limit
/// that the row exceeds, such as the size of a key in an index.
const REFUSING: [&str; 12] = [
    "09", "20", "21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0",
];

/// PostgreSQL's other classes but 42: about the instance, the session or the transaction.
const OTHERS: [&str; 30] = [
    "00", "01", "02", "03", "08", "0A", "0B", "0F", "0L", "0P", "0Z", "24", "25", "26", "28", "2B",
    "2D", "34", "3B", "3D", "3F", "40", "53", "55", "57", "58", "72", "F0", "HV", "XX",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_mean_what_the_write_path_needs() {
        use DbErrorKind as K;
        for (code, about_row, expected) in [
            ("23514", true, K::Refused),
            ("23514", false, K::Moved),
            ("PB001", false, K::Moved),
            ("42P01", false, K::Moved),
            ("42703", false, K::Statement),
            ("22003", false, K::Refused),
            ("P0001", false, K::Refused),
            ("54000", false, K::Refused),
            ("MY001", false, K::Refused),
            ("XX000", false, K::Outage),
            ("08006", false, K::Outage),
            ("58030", false, K::Outage),
            ("40P01", false, K::Conflict),
            ("57P01", false, K::Outage),
            ("57014", false, K::Outage),
            ("53300", false, K::Outage),
            ("25006", false, K::Outage),
        ] {
            assert_eq!(kind(code, about_row), expected, "{code}");
        }
    }
}
