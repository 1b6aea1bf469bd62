//! One value at the edge: checked against its column's type and turned into the bytes that
//! the router carries ([`Storage`](crate::types::Storage)) and PostgreSQL receives.
//!
//! A value that PostgreSQL would refuse is refused here, so that it costs its own row and
//! not a whole batch. Texts mean what PostgreSQL takes them to mean, with three deliberate
//! differences, because PostgreSQL's answer depends on settings of the session or surprises:
//! dates and times are ISO only; a `timestamptz` without offset is UTC; an offset on a
//! `timestamp` or `time` is an error instead of being ignored.
//!
//! All functions append to `out`; where they fail, `out` is left as it was.

mod array;
mod array_json;
mod boolean;
mod bytea;
mod datetime;
mod error;
mod float;
mod int;
mod iso;
mod json;
mod json_string;
mod numeric;
pub mod render;
mod string;
mod uuid;

#[cfg(test)]
mod tests;

pub use error::{Reason, ValueError};

use crate::types::ColumnType;
use error::{shown, wrong_type};
use int::Width;

/// Appends the value that `text` stands for.
///
/// # Errors
/// Where the text is not a value of the type, with the reason and what was expected.
pub fn from_text(ty: &ColumnType, text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    all_or_nothing(out, |out| match ty {
        ColumnType::Bool => boolean::from_text(text, out),
        ColumnType::Int2 => int::from_text(Width::Int2, text, out),
        ColumnType::Int4 => int::from_text(Width::Int4, text, out),
        ColumnType::Int8 => int::from_text(Width::Int8, text, out),
        ColumnType::Float4 => float::float4_from_text(text, out),
        ColumnType::Float8 => float::float8_from_text(text, out),
        ColumnType::Numeric { precision, scale } => {
            numeric::from_text(precision.map(|p| (p, *scale)), text, out)
        }
        ColumnType::Text => string::unlimited(text, out),
        ColumnType::Varchar { max: None } => string::unlimited(text, out),
        ColumnType::Varchar { max: Some(max) } => string::limited(ty, *max, text, out),
        ColumnType::Char { len } => string::limited(ty, *len, text, out),
        ColumnType::Bytea => bytea::from_text(text, out),
        ColumnType::Uuid => uuid::from_text(text, out),
        ColumnType::Date => datetime::date_from_text(text, out),
        ColumnType::Time => datetime::time_from_text(text, out),
        ColumnType::Timestamp => datetime::timestamp_from_text(text, out),
        ColumnType::Timestamptz => datetime::timestamptz_from_text(text, out),
        ColumnType::Interval => string::interval(text, out),
        ColumnType::Json => json::json(text, out),
        ColumnType::Jsonb => json::jsonb(text, out),
        ColumnType::Array(element) => array::from_text(*element, text, out),
        ColumnType::Other { .. } => string::unlimited(text, out),
    })
}

/// Appends a whole number.
///
/// For `timestamp` and `timestamptz` it counts µs since 1970-01-01 00:00 (UTC), for `date` days
/// since 1970-01-01, for `time` µs since midnight. Floats take the nearest number they have.
///
/// # Errors
/// `WRONG_TYPE` where the column is not one of numbers or times, `OUT_OF_RANGE` where the
/// number does not fit.
pub fn from_i64(ty: &ColumnType, v: i64, out: &mut Vec<u8>) -> Result<(), ValueError> {
    all_or_nothing(out, |out| match ty {
        ColumnType::Int2 => int::from_i64(Width::Int2, v, out),
        ColumnType::Int4 => int::from_i64(Width::Int4, v, out),
        ColumnType::Int8 => int::from_i64(Width::Int8, v, out),
        ColumnType::Float4 => append(out, &(v as f32).to_le_bytes()),
        ColumnType::Float8 => append(out, &(v as f64).to_le_bytes()),
        ColumnType::Numeric { precision, scale } => {
            numeric::from_text(precision.map(|p| (p, *scale)), &v.to_string(), out)
        }
        ColumnType::Date => datetime::date_from_i64(v, out),
        ColumnType::Time => datetime::time_from_i64(v, out),
        ColumnType::Timestamp | ColumnType::Timestamptz => datetime::timestamp_from_i64(ty, v, out),
        _ => Err(wrong_type(ty, "a whole number")),
    })
}

/// Appends a float; a `numeric` takes the shortest decimal number that stands for it.
///
/// # Errors
/// `WRONG_TYPE` where the column is not `float4`, `float8` or `numeric` (whole numbers are
/// not guessed from floats), `OUT_OF_RANGE` where the number does not fit.
pub fn from_f64(ty: &ColumnType, v: f64, out: &mut Vec<u8>) -> Result<(), ValueError> {
    all_or_nothing(out, |out| match ty {
        ColumnType::Float4 => float::float4_from_f64(v, out),
        ColumnType::Float8 => float::float8_from_f64(v, out),
        ColumnType::Numeric { precision, scale } => {
            // Exponent form: 1e300 must not become 301 characters first.
            numeric::from_text(precision.map(|p| (p, *scale)), &format!("{v:e}"), out)
        }
        _ => Err(wrong_type(ty, "a floating point number")),
    })
}

/// Appends a truth value.
///
/// # Errors
/// `WRONG_TYPE` where the column is not `bool`.
pub fn from_bool(ty: &ColumnType, v: bool, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match ty {
        ColumnType::Bool => append(out, &[u8::from(v)]),
        _ => Err(wrong_type(ty, "a bool")),
    }
}

/// Appends bytes: the value itself for `bytea`, 16 bytes for `uuid`, and UTF-8 for every type
/// whose value is a text.
///
/// # Errors
/// `WRONG_TYPE` where the column is one of numbers or times, `INVALID_UTF8` where a text is not
/// UTF-8, else as [`from_text`].
pub fn from_bytes(ty: &ColumnType, v: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match ty {
        ColumnType::Bytea => append(out, v),
        ColumnType::Uuid => uuid::from_bytes(v, out),
        ColumnType::Text
        | ColumnType::Varchar { .. }
        | ColumnType::Char { .. }
        | ColumnType::Interval
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Array(_)
        | ColumnType::Other { .. } => match std::str::from_utf8(v) {
            Ok(text) => from_text(ty, text, out),
            Err(fault) => Err(ValueError::new(
                Reason::InvalidUtf8,
                format!(
                    "{} is not UTF-8 at byte {}: expected {ty} as UTF-8",
                    shown(&String::from_utf8_lossy(v)),
                    fault.valid_up_to(),
                ),
            )),
        },
        _ => Err(wrong_type(ty, "bytes")),
    }
}

/// Appends `bytes`; in the shape of the match arms above.
fn append(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ValueError> {
    out.extend_from_slice(bytes);
    Ok(())
}

/// Runs `encode` and takes back what it wrote where it fails.
fn all_or_nothing(
    out: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), ValueError>,
) -> Result<(), ValueError> {
    let start = out.len();
    let result = encode(out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Without the blanks that PostgreSQL ignores around numbers and dates (C's `isspace`).
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r'])
}
