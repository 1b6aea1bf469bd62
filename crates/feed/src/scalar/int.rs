//! `int2`, `int4`, `int8` from text and from whole numbers.
//!
//! This is on the hot path of text feeds: one pass, no allocation unless it fails.

use super::error::shown;
use super::{Reason, ValueError, trimmed};

/// Which of the three integer types.
#[derive(Clone, Copy)]
pub(super) enum Width {
    Int2,
    Int4,
    Int8,
}

/// Why a text is not a number of 64 bits.
enum Fault {
    Syntax,
    Range,
}

/// Digits that fit an `i64` whatever they are.
const SAFE_DIGITS: usize = 18;

pub(super) fn from_text(width: Width, text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let value = parse(width, text)?;
    append(width, value, out);
    Ok(())
}

pub(super) fn from_i64(width: Width, v: i64, out: &mut Vec<u8>) -> Result<(), ValueError> {
    if !width.holds(v) {
        return Err(width.out_of_range(&v.to_string()));
    }
    append(width, v, out);
    Ok(())
}

/// The number that `text` stands for, within the range of the type.
pub(super) fn parse(width: Width, text: &str) -> Result<i64, ValueError> {
    match digits(trimmed(text).as_bytes()) {
        Ok(value) if width.holds(value) => Ok(value),
        Ok(_) | Err(Fault::Range) => Err(width.out_of_range(&shown(text))),
        Err(Fault::Syntax) => Err(ValueError::new(
            Reason::InvalidInteger,
            format!(
                "{} is not an {}: expected {}",
                shown(text),
                width.name(),
                width.expected()
            ),
        )),
    }
}

fn append(width: Width, v: i64, out: &mut Vec<u8>) {
    // The range was checked, so nothing is cut off.
    match width {
        Width::Int2 => out.extend_from_slice(&(v as i16).to_le_bytes()),
        Width::Int4 => out.extend_from_slice(&(v as i32).to_le_bytes()),
        Width::Int8 => out.extend_from_slice(&v.to_le_bytes()),
    }
}

fn digits(text: &[u8]) -> Result<i64, Fault> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Syntax);
    }
    // Counted downwards, because i64::MIN has no positive counterpart.
    let mut value: i64 = 0;
    if digits.len() <= SAFE_DIGITS {
        for digit in digits {
            value = value * 10 - i64::from(digit - b'0');
        }
    } else {
        for digit in digits {
            value = value
                .checked_mul(10)
                .and_then(|tens| tens.checked_sub(i64::from(digit - b'0')))
                .ok_or(Fault::Range)?;
        }
    }
    if negative {
        Ok(value)
    } else {
        value.checked_neg().ok_or(Fault::Range)
    }
}

impl Width {
    fn name(self) -> &'static str {
        match self {
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
        }
    }

    fn range(self) -> (i64, i64) {
        match self {
            Self::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
            Self::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Self::Int8 => (i64::MIN, i64::MAX),
        }
    }

    fn holds(self, v: i64) -> bool {
        let (min, max) = self.range();
        (min..=max).contains(&v)
    }

    fn expected(self) -> String {
        let (min, max) = self.range();
        format!("a whole number between {min} and {max}")
    }

    fn out_of_range(self, value: &str) -> ValueError {
        ValueError::new(
            Reason::OutOfRange,
            format!(
                "{value} is out of range for {}: expected {}",
                self.name(),
                self.expected()
            ),
        )
    }
}
