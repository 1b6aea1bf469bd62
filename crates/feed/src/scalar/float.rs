//! `float4` and `float8` from text and from floats.
//!
//! As in PostgreSQL a number that is too large or too small for the type is refused: it does
//! not silently become infinity or zero. There is one NaN, so that equal values are equal bytes.

use super::error::shown;
use super::{Reason, ValueError, trimmed};

pub(super) fn float8_from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let given = trimmed(text);
    let value: f64 = given.parse().map_err(|_| invalid("float8", text))?;
    if lost(given, value.is_infinite(), value == 0.0) {
        return Err(out_of_range("float8", &shown(text)));
    }
    float8_from_f64(value, out)
}

pub(super) fn float4_from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let given = trimmed(text);
    // Not by way of float8, which would round twice.
    let value: f32 = given.parse().map_err(|_| invalid("float4", text))?;
    if lost(given, value.is_infinite(), value == 0.0) {
        return Err(out_of_range("float4", &shown(text)));
    }
    append_float4(value, out);
    Ok(())
}

pub(super) fn float8_from_f64(v: f64, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let v = if v.is_nan() { f64::NAN } else { v };
    out.extend_from_slice(&v.to_le_bytes());
    Ok(())
}

pub(super) fn float4_from_f64(v: f64, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let narrow = v as f32;
    if (narrow.is_infinite() && v.is_finite()) || (narrow == 0.0 && v != 0.0) {
        return Err(out_of_range("float4", &format!("{v:e}")));
    }
    append_float4(narrow, out);
    Ok(())
}

fn append_float4(v: f32, out: &mut Vec<u8>) {
    let v = if v.is_nan() { f32::NAN } else { v };
    out.extend_from_slice(&v.to_le_bytes());
}

/// Whether a number that was written out in digits became infinity or zero on reading.
fn lost(given: &str, infinite: bool, zero: bool) -> bool {
    let mut mantissa = given.bytes().take_while(|b| !matches!(b, b'e' | b'E'));
    (infinite && given.bytes().any(|b| b.is_ascii_digit()))
        || (zero && mantissa.any(|b| matches!(b, b'1'..=b'9')))
}

fn invalid(name: &str, text: &str) -> ValueError {
    ValueError::new(
        Reason::InvalidFloat,
        format!(
            "{} is not a {name}: expected a number such as -1.5e3, NaN, Infinity or -Infinity",
            shown(text)
        ),
    )
}

fn out_of_range(name: &str, value: &str) -> ValueError {
    let (least, greatest) = match name {
        "float4" => ("1.4e-45", "3.4028235e38"),
        _ => ("4.9e-324", "1.7976931348623157e308"),
    };
    ValueError::new(
        Reason::OutOfRange,
        format!(
            "{value} is out of range for {name}: expected 0 or a magnitude from {least} to {greatest}"
        ),
    )
}
