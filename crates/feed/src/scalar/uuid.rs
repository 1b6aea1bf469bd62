//! `uuid` from text and bytes, as liberal as PostgreSQL's `uuid_in`: braces around it or not,
//! a hyphen after any four digits or not.

use super::bytea::hex_digit;
use super::error::shown;
use super::{Reason, ValueError};

const BYTES: usize = 16;

pub(super) fn from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let Some(bytes) = parse(text.as_bytes()) else {
        return Err(ValueError::new(
            Reason::InvalidUuid,
            format!(
                "{} is not a uuid: expected 32 hex digits such as \
                 123e4567-e89b-12d3-a456-426614174000",
                shown(text)
            ),
        ));
    };
    out.extend_from_slice(&bytes);
    Ok(())
}

pub(super) fn from_bytes(v: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    if v.len() != BYTES {
        return Err(ValueError::new(
            Reason::InvalidUuid,
            format!(
                "{} bytes are not a uuid: expected 16 bytes, or its text as text",
                v.len()
            ),
        ));
    }
    out.extend_from_slice(v);
    Ok(())
}

fn parse(text: &[u8]) -> Option<[u8; BYTES]> {
    let mut rest = match text {
        [b'{', inner @ .., b'}'] => inner,
        _ => text,
    };
    let mut uuid = [0; BYTES];
    for (position, byte) in uuid.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return None;
        };
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        rest = match after {
            [b'-', after @ ..] if position % 2 == 1 && position < BYTES - 1 => after,
            _ => after,
        };
    }
    rest.is_empty().then_some(uuid)
}
