//! Errors on the wire: a code, and details for machines.
//!
//! A bad row or request is INVALID_ARGUMENT with BadRequest: never retry, dead-letter it. Overload
//! is RESOURCE_EXHAUSTED, an instance that is down or a router that drains UNAVAILABLE, both with
//! RetryInfo. ErrorInfo is always there.

use std::{collections::HashMap, time::Duration};

use pgbraid_feed::RequestError;
use pgbraid_ingest::{Code, RowRefusal, SubmitError};
use pgbraid_instance::{DbError, DbErrorKind};
use pgbraid_proto::v1;
use prost::Message;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "pgbraid";
/// Details travel in HTTP/2 headers, which clients limit: the rest is counted only.
pub(crate) const DETAILS_LIMIT: usize = 8 * 1024;
const RETRY: Duration = Duration::from_millis(500);

fn info(reason: impl Into<String>) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new())
}

/// Longest field or message: both go out twice, in headers of a size that clients limit. Names that
/// are echoed may be as long as a request.
const LONGEST: usize = 1000;

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let boundary = |at: &usize| text.is_char_boundary(*at);
        text.truncate((0..=LONGEST).rev().find(boundary).unwrap_or(0));
        text.push('…');
    }
    text
}

/// A request of wrong shape.
pub(crate) fn bad_field(
    reason: impl Into<String>,
    field: impl Into<String>,
    message: impl Into<String>,
) -> Status {
    let (field, message) = (cut(field.into()), cut(message.into()));
    let mut details = info(reason);
    details.add_bad_request_violation(field.clone(), message.clone());
    Status::with_error_details(
        tonic::Code::InvalidArgument,
        format!("{field}: {message}"),
        details,
    )
}

/// Something that the request names is not there.
pub(crate) fn not_found(reason: &str, message: String) -> Status {
    Status::with_error_details(tonic::Code::NotFound, message, info(reason))
}

pub(crate) fn bad_request(error: &RequestError) -> Status {
    bad_field(error.reason, &error.field, &error.message)
}

pub(crate) fn later(code: tonic::Code, reason: &str, message: String, after: Duration) -> Status {
    let mut details = info(reason);
    details.set_retry_info(Some(after));
    Status::with_error_details(code, message, details)
}

pub(crate) fn not_taken(error: &SubmitError) -> Status {
    let message = error.to_string();
    match error {
        SubmitError::Draining => later(tonic::Code::Unavailable, "DRAINING", message, RETRY),
        SubmitError::Full { .. } => later(
            tonic::Code::ResourceExhausted,
            "QUEUES_FULL",
            message,
            RETRY,
        ),
        SubmitError::TooLarge { .. } => bad_field("REQUEST_TOO_LARGE", "request", message),
        SubmitError::UnknownFeed(_) => bad_field("UNKNOWN_FEED", "feed", message),
    }
}

/// An instance's error, for calls that concern the whole cluster.
pub(crate) fn database(error: &DbError) -> Status {
    let message = error.to_string();
    match error.kind {
        DbErrorKind::Refused => bad_field("REFUSED", "request", message),
        DbErrorKind::Contradiction => {
            Status::with_error_details(tonic::Code::Aborted, message, info("CONTRADICTION"))
        }
        DbErrorKind::Statement => {
            Status::with_error_details(tonic::Code::FailedPrecondition, message, info("STATEMENT"))
        }
        _ => later(
            tonic::Code::Unavailable,
            "INSTANCE_UNAVAILABLE",
            message,
            RETRY,
        ),
    }
}

fn code(code: Code) -> tonic::Code {
    match code {
        Code::Invalid => tonic::Code::InvalidArgument,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Exhausted => tonic::Code::ResourceExhausted,
    }
}

/// Path of a refused row in its request.
fn path(form: &str, refusal: &RowRefusal) -> String {
    match refusal.refusal.column.as_str() {
        "" => format!("{form}[{}]", refusal.refusal.row),
        column => format!("{form}[{}].{column}", refusal.refusal.row),
    }
}

/// The status of a unary call of which every row was refused.
pub(crate) fn all_refused(refused: &[RowRefusal]) -> Option<Status> {
    // What can be sent again decides: the bad rows are found again then.
    let first = refused
        .iter()
        .find(|row| row.code != Code::Invalid)
        .or(refused.first())?;
    let mut details = ErrorDetails::with_error_info(
        first.refusal.reason.as_ref(),
        DOMAIN,
        HashMap::from([("refused_rows".to_owned(), refused.len().to_string())]),
    );
    if first.code == Code::Invalid {
        let mut room = DETAILS_LIMIT / 2;
        for row in refused {
            let (field, message) = (path("rows", row), &row.refusal.message);
            let size = field.len() + message.len() + 8;
            if size > room {
                break;
            }
            room -= size;
            details.add_bad_request_violation(field, message);
        }
    } else {
        details.set_retry_info(Some(first.retry_after.unwrap_or(RETRY)));
    }
    let more = match refused.len() {
        1 => String::new(),
        rows => format!(" (and {} more rows)", rows - 1),
    };
    let message: String = first.refusal.message.chars().take(1000).collect();
    Some(Status::with_error_details(
        code(first.code),
        format!("{}: {message}{more}", path("rows", first)),
        details,
    ))
}

/// Refused rows for a response: all of them, with messages for the first 8 KiB.
pub(crate) fn refused_rows(refused: Vec<RowRefusal>) -> Vec<v1::RefusedRow> {
    let mut room = DETAILS_LIMIT;
    refused
        .into_iter()
        .map(|row| {
            let mut message = row.refusal.message;
            match room.checked_sub(message.len()) {
                Some(left) => room = left,
                None => {
                    room = 0;
                    message.clear();
                }
            }
            v1::RefusedRow {
                index: row.refusal.row,
                code: code(row.code) as i32,
                reason: row.refusal.reason.into_owned(),
                column: row.refusal.column,
                message,
                sqlstate: row.sqlstate.unwrap_or_default(),
                constraint: row.constraint.unwrap_or_default(),
                retry_delay: row
                    .retry_after
                    .and_then(|after| prost_types::Duration::try_from(after).ok()),
            }
        })
        .collect()
}

/// A status inside a stream's response.
pub(crate) fn embedded(status: &Status) -> v1::Status {
    v1::Status::decode(status.details()).unwrap_or_else(|_| v1::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_echoed_fits_in_headers() {
        assert_eq!(cut("ä".into()), "ä");
        let long = cut("ä".repeat(5000));
        assert!(long.len() <= LONGEST + '…'.len_utf8() && long.ends_with("ä…"));
        // One that does not end at the limit.
        assert!(cut(format!("a{}", "ä".repeat(5000))).ends_with("ä…"));
        let status = bad_field("UNKNOWN", "x".repeat(5000), "y".repeat(5000));
        assert!(status.message().len() + status.details().len() < DETAILS_LIMIT);
    }
}
