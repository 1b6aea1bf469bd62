//! `numeric` from decimal text to PostgreSQL's binary form.
//!
//! The binary form counts in base 10,000: how many such digits, the weight of the first
//! (value = Σ digit_i · 10000^(weight − i)), the sign, and the display scale, each 16 bits, then
//! the digits. The text is read in place; only digits that stand in it are ever copied, so
//! `1e100000` costs one digit. Rounding and limits follow `set_var_from_str`, `apply_typmod`
//! and `make_result` of PostgreSQL's numeric.c.

use smallvec::SmallVec;

use super::error::shown;
use super::{Reason, ValueError, trimmed};

/// Limits of a numeric without declared precision, in decimal digits.
const MAX_BEFORE_POINT: i64 = 131_072;
const MAX_AFTER_POINT: i64 = 16_383;
/// More than the two limits together, a sign, a point and an exponent.
const MAX_TEXT_BYTES: usize = 150_000;
/// Far beyond both limits, far from overflow when added to lengths.
const MAX_EXPONENT: i64 = 1 << 40;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
/// The whole value of what is no number, as `numeric_send` of PostgreSQL 15 writes it.
const NAN: [u16; 4] = [0, 0, 0xC000, 0];
const INFINITY: [u16; 4] = [0, 0, 0xD000, 0x20];
const NEGATIVE_INFINITY: [u16; 4] = [0, 0, 0xF000, 0x20];

/// Decimal digits, one a byte (0 to 9).
type Digits = SmallVec<[u8; 64]>;

/// A number as it was written: `int` and `frac` are ASCII digits around the point.
struct Decimal<'a> {
    negative: bool,
    int: &'a [u8],
    frac: &'a [u8],
    exponent: i64,
}

/// A number without zeros at either end: digits[i] counts 10^(lead − i).
struct Rounded {
    digits: Digits,
    lead: i64,
}

/// Appends the number in `text`, rounded to the declared (precision, scale) if there is one.
pub(super) fn from_text(
    declared: Option<(u16, i16)>,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let given = trimmed(text);
    if given.len() > MAX_TEXT_BYTES {
        return Err(ValueError::new(
            Reason::TooLong,
            format!(
                "{} is too long for a numeric: at most {MAX_TEXT_BYTES} characters are taken",
                shown(text)
            ),
        ));
    }
    if let Some((special, infinite)) = special(given) {
        if infinite && let Some(declared) = declared {
            return Err(overflow(declared, text));
        }
        append(out, &special);
        return Ok(());
    }
    let decimal = Decimal::parse(given.as_bytes()).ok_or_else(|| invalid(text))?;
    let (rounded, scale) = match declared {
        None => {
            if !decimal.fits() {
                return Err(too_many_digits(text));
            }
            (decimal.rounded(None), decimal.scale())
        }
        Some((precision, scale)) => {
            let rounded = decimal.rounded(Some(i64::from(scale)));
            let room = i64::from(precision) - i64::from(scale);
            if !rounded.digits.is_empty() && rounded.lead >= room {
                return Err(overflow((precision, scale), text));
            }
            (rounded, i64::from(scale).max(0))
        }
    };
    rounded
        .append(decimal.negative, scale, out)
        .ok_or_else(|| too_many_digits(text))
}

/// Whether a number in JSON, whose syntax is known to be right, can be a numeric.
pub(super) fn fits(number: &[u8]) -> bool {
    number.len() <= MAX_TEXT_BYTES && Decimal::parse(number).is_some_and(|decimal| decimal.fits())
}

/// The whole binary value of NaN or an infinity, and whether it is an infinity.
fn special(given: &str) -> Option<([u16; 4], bool)> {
    let is = |word: &str, of: &str| word.eq_ignore_ascii_case(of);
    if is(given, "NaN") {
        return Some((NAN, false));
    }
    let (negative, word) = match given.strip_prefix('-') {
        Some(word) => (true, word),
        None => (false, given.strip_prefix('+').unwrap_or(given)),
    };
    (is(word, "Infinity") || is(word, "inf")).then_some((
        if negative {
            NEGATIVE_INFINITY
        } else {
            INFINITY
        },
        true,
    ))
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = sign(text);
        let (int, rest) = digits(rest);
        let (frac, rest) = match rest {
            [b'.', rest @ ..] => digits(rest),
            _ => (&[][..], rest),
        };
        if int.is_empty() && frac.is_empty() {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => {
                let (negative, rest) = sign(rest);
                let (power, rest) = digits(rest);
                if power.is_empty() || !rest.is_empty() {
                    return None;
                }
                let power = power.iter().fold(0, |power: i64, digit| {
                    (power * 10 + i64::from(digit - b'0')).min(MAX_EXPONENT)
                });
                if negative { -power } else { power }
            }
            _ => return None,
        };
        Some(Self {
            negative,
            int,
            frac,
            exponent,
        })
    }

    /// Digits after the point once the exponent is applied, zeros included.
    fn scale(&self) -> i64 {
        (self.frac.len() as i64 - self.exponent).max(0)
    }

    fn len(&self) -> usize {
        self.int.len() + self.frac.len()
    }

    fn digit(&self, at: usize) -> u8 {
        match self.int.get(at) {
            Some(digit) => digit - b'0',
            None => self.frac[at - self.int.len()] - b'0',
        }
    }

    /// Where the first digit other than zero stands, and the power of ten it counts.
    fn first(&self) -> Option<(usize, i64)> {
        let first = (0..self.len()).find(|at| self.digit(*at) != 0)?;
        Some((
            first,
            self.int.len() as i64 + self.exponent - first as i64 - 1,
        ))
    }

    /// Whether a numeric without declared precision holds the number.
    fn fits(&self) -> bool {
        self.scale() <= MAX_AFTER_POINT
            && self.first().is_none_or(|(_, lead)| lead < MAX_BEFORE_POINT)
    }

    /// The number with at most `scale` digits after the point, halves away from zero.
    fn rounded(&self, scale: Option<i64>) -> Rounded {
        let zero = Rounded {
            digits: Digits::new(),
            lead: 0,
        };
        let Some((first, mut lead)) = self.first() else {
            return zero;
        };
        let available = self.len() - first;
        let kept = match scale {
            None => available,
            Some(scale) => match usize::try_from(lead + scale + 1) {
                Ok(kept) => kept.min(available),
                Err(_) => return zero,
            },
        };
        let mut digits: Digits = (first..first + kept).map(|at| self.digit(at)).collect();
        if kept < available && self.digit(first + kept) >= 5 {
            while digits.last() == Some(&9) {
                digits.pop();
            }
            match digits.last_mut() {
                Some(last) => *last += 1,
                None => {
                    digits.push(1);
                    lead += 1;
                }
            }
        }
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Rounded { digits, lead }
    }
}

impl Rounded {
    /// `None` where the binary form has no room for the number.
    fn append(&self, negative: bool, scale: i64, out: &mut Vec<u8>) -> Option<()> {
        let scale = u16::try_from(scale).ok()?;
        if self.digits.is_empty() {
            // PostgreSQL knows no negative zero.
            append(out, &[0, 0, POSITIVE, scale]);
            return Some(());
        }
        let weight = i16::try_from(self.lead.div_euclid(4)).ok()?;
        let padding = 3 - self.lead.rem_euclid(4) as usize;
        let groups = (padding + self.digits.len()).div_ceil(4);
        let sign = if negative { NEGATIVE } else { POSITIVE };
        append(
            out,
            &[u16::try_from(groups).ok()?, weight as u16, sign, scale],
        );
        let at = |position: usize| match position.checked_sub(padding) {
            Some(position) => self.digits.get(position).copied().unwrap_or(0),
            None => 0,
        };
        for group in 0..groups {
            let digit = (0..4).fold(0, |digit, i| digit * 10 + u16::from(at(group * 4 + i)));
            append(out, &[digit]);
        }
        Some(())
    }
}

fn append(out: &mut Vec<u8>, words: &[u16]) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn invalid(text: &str) -> ValueError {
    ValueError::new(
        Reason::InvalidNumeric,
        format!(
            "{} is not a numeric: expected a decimal number such as -12.50 or 1e6",
            shown(text)
        ),
    )
}

fn too_many_digits(text: &str) -> ValueError {
    ValueError::new(
        Reason::OutOfRange,
        format!(
            "{} is out of range for numeric: at most {MAX_BEFORE_POINT} digits before the decimal \
             point and {MAX_AFTER_POINT} after it",
            shown(text)
        ),
    )
}

fn overflow((precision, scale): (u16, i16), text: &str) -> ValueError {
    let room = i64::from(precision) - i64::from(scale);
    ValueError::new(
        Reason::OutOfRange,
        format!(
            "{} overflows numeric({precision},{scale}): rounded to that scale its magnitude must \
             be below 10^{room}",
            shown(text)
        ),
    )
}
