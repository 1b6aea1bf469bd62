//! The ISO 8601 forms of dates and times, as text to numbers.
//!
//! Civil dates are proleptic Gregorian, as in PostgreSQL. Nothing here depends on settings or
//! on a time zone database: an offset is written out or the time is UTC.

/// µs in a day and in a second.
pub(super) const DAY_US: i64 = 86_400_000_000;
const SECOND_US: i64 = 1_000_000;
/// PostgreSQL's MAX_TZDISP_HOUR.
const MAX_OFFSET_HOURS: u32 = 15;
/// Days from 0000-03-01 to 2000-01-01.
const EPOCH_2000_DAYS: i64 = 730_425;
/// Enough for the last year of a `date`, 5874897.
const MAX_YEAR_DIGITS: usize = 7;

/// Why a text is not the date or time it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not in the expected form.
    Form,
    /// In the right form, but there is no such day (month 13, 30 February, year 0).
    NoSuchDay,
    /// In the right form, but there is no such time of day.
    NoSuchTime,
    /// An offset of 16 hours or more.
    Offset,
    /// An offset where the type has none.
    UnwantedOffset,
    /// Before or after what the type holds.
    Range,
}

/// What is left of a text to read.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text.as_bytes(),
        }
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes one byte if it is one of `wanted`.
    pub(super) fn take(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        wanted.contains(first).then(|| {
            self.rest = rest;
            *first
        })
    }

    /// Takes all digits here, which must be `min` to `max` (below 10) in number.
    fn digits(&mut self, min: usize, max: usize) -> Result<u32, Fault> {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if count < min || count > max {
            return Err(Fault::Form);
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(digits
            .iter()
            .fold(0, |value, digit| value * 10 + u32::from(digit - b'0')))
    }

    fn two_digits(&mut self) -> Result<u32, Fault> {
        self.digits(2, 2)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Fault> {
        self.take(&[wanted]).map(drop).ok_or(Fault::Form)
    }

    /// Reads `YYYY-MM-DD`; the answer is in days since 2000-01-01, at any distance from it.
    pub(super) fn date(&mut self, before_christ: bool) -> Result<i64, Fault> {
        let year = self.digits(4, MAX_YEAR_DIGITS)?;
        self.expect(b'-')?;
        let month = self.two_digits()?;
        self.expect(b'-')?;
        let day = self.two_digits()?;
        if year == 0 {
            return Err(Fault::NoSuchDay);
        }
        // 1 BC is the year 0 of the arithmetic.
        let year = if before_christ {
            1 - i64::from(year)
        } else {
            i64::from(year)
        };
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return Err(Fault::NoSuchDay);
        }
        Ok(days_since_2000(year, month, day))
    }

    /// Reads `HH:MM[:SS[.fraction]]`; the answer is in µs since midnight, up to 24:00:00.
    pub(super) fn time(&mut self) -> Result<i64, Fault> {
        let hours = self.two_digits()?;
        self.expect(b':')?;
        let minutes = self.two_digits()?;
        let mut seconds = 0;
        let mut fraction = 0;
        if self.take(b":").is_some() {
            seconds = self.two_digits()?;
            if self.take(b".").is_some() {
                fraction = self.fraction()?;
            }
        }
        // Second 60 is the first of the next minute, as in PostgreSQL.
        if hours > 24 || minutes > 59 || seconds > 60 {
            return Err(Fault::NoSuchTime);
        }
        let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
        let time = seconds * SECOND_US + fraction;
        if time > DAY_US {
            Err(Fault::NoSuchTime)
        } else {
            Ok(time)
        }
    }

    /// Reads the digits after a decimal point, as µs; may round up to a whole second.
    fn fraction(&mut self) -> Result<i64, Fault> {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        match count {
            0 => Err(Fault::Form),
            1..=6 => {
                let value = digits
                    .iter()
                    .fold(0, |value, b| value * 10 + i64::from(b - b'0'));
                Ok(value * 10_i64.pow(6 - count as u32))
            }
            _ => {
                // The very arithmetic of PostgreSQL's ParseFraction, to round as it does.
                let text = String::from_utf8_lossy(digits);
                let value: f64 = format!("0.{text}").parse().map_err(|_| Fault::Form)?;
                Ok((value * 1e6).round_ties_even() as i64)
            }
        }
    }

    /// Reads `Z`, `UTC`, `GMT`, `±hh`, `±hhmm` or `±hh:mm[:ss]`, with one blank before it or not,
    /// as µs east of Greenwich. The end of the text is UTC.
    pub(super) fn offset(&mut self) -> Result<i64, Fault> {
        if self.at_end() {
            return Ok(0);
        }
        self.take(b" ");
        if [&b"z"[..], b"utc", b"gmt"]
            .iter()
            .any(|name| self.rest.eq_ignore_ascii_case(name))
        {
            self.rest = &[];
            return Ok(0);
        }
        let sign = self.take(b"+-").ok_or(Fault::Form)?;
        let hours;
        let mut minutes = 0;
        let mut seconds = 0;
        if self.rest.len() == 4 {
            let both = self.digits(4, 4)?;
            (hours, minutes) = (both / 100, both % 100);
        } else {
            hours = self.two_digits()?;
            if self.take(b":").is_some() {
                minutes = self.two_digits()?;
                if self.take(b":").is_some() {
                    seconds = self.two_digits()?;
                }
            }
        }
        if hours > MAX_OFFSET_HOURS || minutes > 59 || seconds > 59 {
            return Err(Fault::Offset);
        }
        let east =
            (i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds)) * SECOND_US;
        Ok(if sign == b'-' { -east } else { east })
    }
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0
            && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) =>
        {
            29
        }
        2 => 28,
        _ => 31,
    }
}

/// Days since 2000-01-01 of a date that exists, in years that begin with March so that the leap
/// day is the last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
fn days_since_2000(year: i64, month: u32, day: u32) -> i64 {
    let march_year = if month <= 2 { year - 1 } else { year };
    let era = march_year.div_euclid(400);
    let year_of_era = march_year.rem_euclid(400);
    let day_of_year = (153 * i64::from((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - EPOCH_2000_DAYS
}
