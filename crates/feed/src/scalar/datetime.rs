//! `date`, `time`, `timestamp`, `timestamptz`: the forms of [`iso`](super::iso), PostgreSQL's
//! ranges, and counts since the Unix epoch.

use super::error::shown;
use super::iso::{DAY_US, Fault, Reader};
use super::{Reason, ValueError, trimmed};
use crate::types::ColumnType;

/// Days and µs from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const UNIX_TO_2000_DAYS: i64 = 10_957;
const UNIX_TO_2000_US: i64 = UNIX_TO_2000_DAYS * DAY_US;

/// 4714-11-24 BC, the Julian day 0, is the first day of a `date` and of a `timestamp`.
const FIRST_DAY: i64 = -2_451_545;
/// 5874897-12-31, the last day of a `date`.
const LAST_DAY: i64 = 2_145_031_948;
/// MIN_TIMESTAMP and END_TIMESTAMP (294277-01-01, no longer in the range).
const FIRST_TIMESTAMP: i64 = FIRST_DAY * DAY_US;
const END_TIMESTAMP: i64 = 9_223_371_331_200_000_000;

pub(super) fn date_from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let days = date(trimmed(text)).map_err(|fault| refusal(&ColumnType::Date, fault, text))?;
    out.extend_from_slice(&days.to_le_bytes());
    Ok(())
}

pub(super) fn time_from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let mut reader = Reader::new(trimmed(text));
    let time = reader
        .time()
        .and_then(|time| no_offset(reader).map(|()| time));
    let time = time.map_err(|fault| refusal(&ColumnType::Time, fault, text))?;
    out.extend_from_slice(&time.to_le_bytes());
    Ok(())
}

pub(super) fn timestamp_from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    moment(
        &ColumnType::Timestamp,
        text,
        |reader| no_offset(reader).map(|()| 0),
        out,
    )
}

pub(super) fn timestamptz_from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let offset = |mut reader: Reader<'_>| match reader.offset() {
        Ok(offset) if reader.at_end() => Ok(offset),
        Ok(_) => Err(Fault::Form),
        Err(fault) => Err(fault),
    };
    moment(&ColumnType::Timestamptz, text, offset, out)
}

pub(super) fn date_from_i64(unix_days: i64, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let days = unix_days
        .checked_sub(UNIX_TO_2000_DAYS)
        .ok_or(Fault::Range)
        .and_then(date_in_range);
    let days = days.map_err(|_| counted_out_of_range(&ColumnType::Date, unix_days))?;
    out.extend_from_slice(&days.to_le_bytes());
    Ok(())
}

pub(super) fn time_from_i64(midnight_us: i64, out: &mut Vec<u8>) -> Result<(), ValueError> {
    if !(0..=DAY_US).contains(&midnight_us) {
        return Err(counted_out_of_range(&ColumnType::Time, midnight_us));
    }
    out.extend_from_slice(&midnight_us.to_le_bytes());
    Ok(())
}

pub(super) fn timestamp_from_i64(
    ty: &ColumnType,
    unix_us: i64,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let us = unix_us
        .checked_sub(UNIX_TO_2000_US)
        .filter(|us| timestamp_in_range(*us));
    let us = us.ok_or_else(|| counted_out_of_range(ty, unix_us))?;
    out.extend_from_slice(&us.to_le_bytes());
    Ok(())
}

fn date(given: &str) -> Result<i32, Fault> {
    match infinity(given) {
        Some(false) => return Ok(i32::MAX),
        Some(true) => return Ok(i32::MIN),
        None => {}
    }
    let (given, before_christ) = era(given);
    let mut reader = Reader::new(given);
    let days = reader.date(before_christ)?;
    if !reader.at_end() {
        return Err(Fault::Form);
    }
    date_in_range(days)
}

/// Appends a timestamp of either kind; `offset` reads what follows the time of day.
fn moment(
    ty: &ColumnType,
    text: &str,
    offset: impl FnOnce(Reader<'_>) -> Result<i64, Fault>,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let given = trimmed(text);
    let us = match infinity(given) {
        Some(false) => Ok(i64::MAX),
        Some(true) => Ok(i64::MIN),
        None => finite_moment(given, offset),
    };
    let us = us.map_err(|fault| refusal(ty, fault, text))?;
    out.extend_from_slice(&us.to_le_bytes());
    Ok(())
}

fn finite_moment(
    given: &str,
    offset: impl FnOnce(Reader<'_>) -> Result<i64, Fault>,
) -> Result<i64, Fault> {
    let (given, before_christ) = era(given);
    let mut reader = Reader::new(given);
    let days = reader.date(before_christ)?;
    let mut us = days.checked_mul(DAY_US).ok_or(Fault::Range)?;
    if !reader.at_end() {
        reader.take(b" Tt").ok_or(Fault::Form)?;
        us = us.checked_add(reader.time()?).ok_or(Fault::Range)?;
        us = us.checked_sub(offset(reader)?).ok_or(Fault::Range)?;
    }
    if timestamp_in_range(us) {
        Ok(us)
    } else {
        Err(Fault::Range)
    }
}

/// `Some(negative)` for an infinity.
fn infinity(given: &str) -> Option<bool> {
    if given.eq_ignore_ascii_case("infinity") {
        Some(false)
    } else if given.eq_ignore_ascii_case("-infinity") {
        Some(true)
    } else {
        None
    }
}

/// Splits off the ` BC` that PostgreSQL writes behind years before 1.
fn era(given: &str) -> (&str, bool) {
    match given
        .len()
        .checked_sub(3)
        .and_then(|at| given.split_at_checked(at))
    {
        Some((before, suffix)) if suffix.eq_ignore_ascii_case(" BC") => (before, true),
        _ => (given, false),
    }
}

/// Tells an offset from other trailing text, so that the message can say what to do.
fn no_offset(mut reader: Reader<'_>) -> Result<(), Fault> {
    if reader.at_end() {
        Ok(())
    } else if reader.offset().is_ok() && reader.at_end() {
        Err(Fault::UnwantedOffset)
    } else {
        Err(Fault::Form)
    }
}

fn date_in_range(days: i64) -> Result<i32, Fault> {
    if !(FIRST_DAY..=LAST_DAY).contains(&days) {
        return Err(Fault::Range);
    }
    i32::try_from(days).map_err(|_| Fault::Range)
}

fn timestamp_in_range(us: i64) -> bool {
    (FIRST_TIMESTAMP..END_TIMESTAMP).contains(&us)
}

fn refusal(ty: &ColumnType, fault: Fault, text: &str) -> ValueError {
    let (name, invalid, form) = match ty {
        ColumnType::Date => (
            "a date",
            Reason::InvalidDate,
            "YYYY-MM-DD, infinity or -infinity",
        ),
        ColumnType::Time => (
            "a time of day",
            Reason::InvalidTime,
            "HH:MM[:SS[.ffffff]], at most 24:00:00",
        ),
        ColumnType::Timestamp => (
            "a timestamp",
            Reason::InvalidTimestamp,
            "YYYY-MM-DD HH:MM[:SS[.ffffff]], without offset, or a date alone",
        ),
        _ => (
            "a timestamptz",
            Reason::InvalidTimestamp,
            "YYYY-MM-DD HH:MM[:SS[.ffffff]] and Z or an offset such as +02:00 (none: UTC)",
        ),
    };
    let (reason, what) = match fault {
        Fault::Form => (invalid, String::new()),
        Fault::NoSuchDay => (invalid, "there is no such day, ".to_owned()),
        Fault::NoSuchTime => (invalid, "there is no such time of day, ".to_owned()),
        Fault::Offset => (invalid, "an offset is at most 15:59:59, ".to_owned()),
        Fault::UnwantedOffset => (
            invalid,
            format!("{ty} has no time zone, so take the offset out (PostgreSQL would ignore it), "),
        ),
        Fault::Range => {
            return ValueError::new(
                Reason::OutOfRange,
                format!(
                    "{} is out of range for {ty}: expected {}",
                    shown(text),
                    limits(ty)
                ),
            );
        }
    };
    ValueError::new(
        reason,
        format!("{} is not {name}: {what}expected {form}", shown(text)),
    )
}

fn counted_out_of_range(ty: &ColumnType, count: i64) -> ValueError {
    let unit = match ty {
        ColumnType::Date => "days since 1970-01-01",
        ColumnType::Time => "microseconds since midnight",
        _ => "microseconds since 1970-01-01",
    };
    ValueError::new(
        Reason::OutOfRange,
        format!(
            "{count} {unit} is out of range for {ty}: expected {}",
            limits(ty)
        ),
    )
}

fn limits(ty: &ColumnType) -> &'static str {
    match ty {
        ColumnType::Date => "4714-11-24 BC to 5874897-12-31",
        ColumnType::Time => "0 to 86400000000",
        _ => "4714-11-24 BC to 294276-12-31",
    }
}
