//! The end of a string in JSON text, with its escapes checked.

use super::bytea::hex_digit;
use super::json::Fault;

/// The position after the string that begins with the quote at `start`.
///
/// With `decodable` the escapes must also stand for characters that PostgreSQL can store:
/// no `\u0000`, and surrogates only in pairs.
pub(super) fn end(text: &[u8], start: usize, decodable: bool) -> Result<usize, Fault> {
    let mut at = start + 1;
    // Position of a first half of a surrogate pair that awaits its second.
    let mut half: Option<usize> = None;
    loop {
        let fault = |what| Fault { at, what };
        let Some(c) = text.get(at) else {
            return Err(fault("expected '\"', found the end,"));
        };
        if let Some(at) = half
            && !text[at + 6..].starts_with(b"\\u")
        {
            return Err(Fault {
                at,
                what: "half of a surrogate pair",
            });
        }
        match c {
            b'"' => return Ok(at + 1),
            b'\\' => match text.get(at + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                Some(b'u') => {
                    let unit = text.get(at + 2..at + 6).and_then(code_unit);
                    let unit = unit.ok_or_else(|| fault("expected four hex digits after \\u"))?;
                    if decodable {
                        half = match (unit, half) {
                            (0, _) => {
                                return Err(fault("\\u0000, which PostgreSQL cannot store,"));
                            }
                            (0xDC00..=0xDFFF, Some(_)) => None,
                            (0xD800..=0xDBFF, None) => Some(at),
                            (0xD800..=0xDFFF, _) | (_, Some(_)) => {
                                return Err(fault("half of a surrogate pair"));
                            }
                            (_, None) => None,
                        };
                    }
                    at += 6;
                }
                _ => return Err(fault("an unknown escape")),
            },
            0..0x20 => return Err(fault("a control character that is not escaped")),
            _ => at += 1,
        }
    }
}

fn code_unit(hex: &[u8]) -> Option<u16> {
    hex.iter()
        .try_fold(0, |unit, c| Some(unit << 4 | u16::from(hex_digit(*c)?)))
}
