//! Decimal constants compared exactly, whatever way they are written.

use std::cmp::Ordering;
use std::fmt;

/// Beyond this, at either end, a constant is left alone: PostgreSQL has limits of its own there.
const MAX_PLACES: usize = 300;

/// `0.d1d2d3.. * 10^point`, without zeros at either end of the digits; zero has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    digits: String,
    point: i32,
}

impl Decimal {
    /// Digits as a rule may have them, perhaps with a sign in front.
    pub(crate) fn parse(text: &str) -> Option<Decimal> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{part}");
        if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let leading = all.len() - all.trim_start_matches('0').len();
        let digits = all.trim_matches('0').to_owned();
        let point = i32::try_from(whole.len()).ok()? - i32::try_from(leading).ok()?;
        let point = point.checked_add(exponent)?;
        if digits.is_empty() {
            return Some(Decimal {
                negative: false,
                digits,
                point: 0,
            });
        }
        if digits.len() > MAX_PLACES || point.unsigned_abs() as usize > MAX_PLACES {
            return None;
        }
        Some(Decimal {
            negative: text.starts_with('-'),
            digits,
            point,
        })
    }

    /// The greatest whole number that is not above it, unless that is out of range.
    pub(crate) fn floor(&self) -> Option<i64> {
        if let Some(whole) = self.whole() {
            return Some(whole);
        }
        let places = usize::try_from(self.point).unwrap_or(0);
        let whole = match self.digits.get(..places)? {
            "" => 0,
            digits => digits.parse::<i64>().ok()?,
        };
        match self.negative {
            true => (-whole).checked_sub(1),
            false => Some(whole),
        }
    }

    /// The whole number that it is, if it is one.
    pub(crate) fn whole(&self) -> Option<i64> {
        let places = usize::try_from(self.point).ok()?;
        match self.digits.len() <= places || self.digits.is_empty() {
            true => self.to_string().parse().ok(),
            false => None,
        }
    }
}

/// As SQL.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        if self.negative {
            f.write_str("-")?;
        }
        let zeros = |count: usize| "0".repeat(count);
        match usize::try_from(self.point) {
            Ok(places) if places >= self.digits.len() => {
                write!(f, "{}{}", self.digits, zeros(places - self.digits.len()))
            }
            Ok(places) => {
                let (whole, part) = self.digits.split_at(places);
                write!(f, "{}.{part}", if whole.is_empty() { "0" } else { whole })
            }
            Err(_) => {
                let gap = self.point.unsigned_abs() as usize;
                write!(f, "0.{}{}", zeros(gap), self.digits)
            }
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |of: &Self| match (of.digits.is_empty(), of.negative) {
            (true, _) => 0,
            (false, negative) => 1 - 2 * i32::from(negative),
        };
        // Digits have no trailing zeros, so that the shorter of two with one beginning is less.
        let size = || (self.point, &self.digits).cmp(&(other.point, &other.digits));
        sign(self).cmp(&sign(other)).then_with(|| {
            if self.negative {
                size().reverse()
            } else {
                size()
            }
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn they_are_in_the_order_of_their_values() {
        let sorted = [
            "-1e3",
            "-999.5",
            "-10",
            "-9",
            "-0.10",
            "-.01",
            "0",
            "1e-9",
            "0.1",
            ".11",
            "1",
            "1.5",
            "9",
            "10",
            "1e2",
            "123456789012345678901234567890",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(decimal(a).cmp(&decimal(b)), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn one_value_has_one_form() {
        for (text, shown, whole) in [
            ("1.50", "1.5", None),
            ("15e-1", "1.5", None),
            ("-0.0", "0", Some(0)),
            ("+007", "7", Some(7)),
            ("1.2e3", "1200", Some(1200)),
            ("5e-3", "0.005", None),
            ("0.05e2", "5", Some(5)),
            (
                "-9223372036854775808",
                "-9223372036854775808",
                Some(i64::MIN),
            ),
            ("9223372036854775808", "9223372036854775808", None),
        ] {
            assert_eq!(decimal(text).to_string(), shown, "{text}");
            assert_eq!(decimal(text).whole(), whole, "{text}");
            assert_eq!(decimal(text), decimal(shown), "{text}");
        }
    }

    #[test]
    fn floors() {
        for (text, floor) in [
            ("1.5", Some(1)),
            ("-1.5", Some(-2)),
            ("0.5", Some(0)),
            ("-.001", Some(-1)),
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("120.05", Some(120)),
            ("1e30", None),
            ("1e18", Some(1_000_000_000_000_000_000)),
            ("-9223372036854775808.5", None),
            ("9223372036854775807.5", Some(i64::MAX)),
        ] {
            assert_eq!(decimal(text).floor(), floor, "{text}");
        }
    }

    #[test]
    fn what_postgresql_may_refuse_is_left_alone() {
        for text in ["1e300", "1e-302", "1e99999999999", "", ".", "1x"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }
}
