//! Where to start: `now`, `earliest`, a time, or a token.

use std::time::{Duration, SystemTime};

use pgbraid_client::Start;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Parses a `--from`; says what it could have been.
pub fn parse(text: &str) -> Result<Start, String> {
    match text {
        "now" => Ok(Start::Now),
        "earliest" => Ok(Start::Earliest),
        _ if text.starts_with('-') => ago(text)
            .and_then(|ago| SystemTime::now().checked_sub(ago))
            .filter(|at| *at >= SystemTime::UNIX_EPOCH)
            .map(Start::Time)
            .ok_or_else(|| {
                "not a time ago: write whole numbers with d, h, m or s, such as -10m or -1h30m"
                    .into()
            }),
        _ if looks_like_time(text) => time(text).map(Start::Time).ok_or_else(|| {
            "not a time: write it with its offset from UTC, such as 2025-06-01T12:00:00Z or \
             2025-06-01T14:00:00+02:00"
                .into()
        }),
        _ if looks_like_token(text) => Ok(Start::Token(text.to_owned())),
        _ => Err(
            "neither now, earliest, a time such as 2025-06-01T12:00:00Z or -10m, nor a token \
                  as --json prints them"
                .into(),
        ),
    }
}

fn ago(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('-')?;
    let mut seconds = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds = seconds.checked_add(number.checked_mul(*scale)?)?;
        rest = &rest[digits + 1..];
    }
    (text.len() > 1).then(|| Duration::from_secs(seconds))
}

/// Tokens begin with their version, which is never four digits in base64.
fn looks_like_time(text: &str) -> bool {
    text.len() >= 4 && text.bytes().take(4).all(|b| b.is_ascii_digit())
}

fn time(text: &str) -> Option<SystemTime> {
    // Without an offset nobody knows whose time is meant.
    let clock = text.get(10..)?;
    let offset = clock.ends_with(['Z', 'z']) || clock.contains(['+', '-']);
    let stamp: prost_types::Timestamp = text.parse().ok().filter(|_| offset)?;
    stamp.try_into().ok()
}

fn looks_like_token(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() >= 16 && text.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_understood() {
        assert_eq!(parse("now"), Ok(Start::Now));
        assert_eq!(parse("earliest"), Ok(Start::Earliest));
        let token = "AQAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(parse(token), Ok(Start::Token(token.into())));
        let at = |seconds| {
            Ok(Start::Time(
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            ))
        };
        assert_eq!(parse("2023-11-14T22:13:20Z"), at(1_700_000_000));
        assert_eq!(parse("2023-11-14T23:13:20+01:00"), at(1_700_000_000));
        assert_eq!(parse("2023-11-14 22:13:20.000Z"), at(1_700_000_000));
        for (text, seconds) in [
            ("-10m", 600),
            ("-1h30m", 5400),
            ("-2d", 172_800),
            ("-0s", 0),
        ] {
            let Ok(Start::Time(at)) = parse(text) else {
                panic!("{text}")
            };
            let ago = SystemTime::now().duration_since(at).unwrap().as_secs();
            assert!((seconds..seconds + 5).contains(&ago), "{text}: {ago}");
        }
    }

    #[test]
    fn anything_else_is_told_what_it_could_be() {
        for (text, told) in [
            ("yesterday", "neither now"),
            ("", "neither now"),
            ("-", "not a time ago"),
            ("-10", "not a time ago"),
            ("-m", "not a time ago"),
            ("-10x", "not a time ago"),
            ("-10\u{e9}", "not a time ago"),
            ("-99999999999999999999d", "not a time ago"),
            ("-99999999999999d", "not a time ago"),
            ("2023-11-14", "not a time:"),
            ("2023-11-14T22:13:20", "not a time:"),
            ("2023-13-14T22:13:20Z", "not a time:"),
            ("2023", "not a time:"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(told), "{text}: {error}");
        }
    }
}
