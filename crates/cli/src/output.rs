//! Data to stdout, messages to stderr.

use std::env;
use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;
use terminal_size::{Width, terminal_size_of};

use crate::failure::{Failure, Result};

/// Narrower than this, nothing is shortened further.
const MIN_WIDTH: usize = 40;

/// Prints a line of data.
pub fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let done = out.write_all(text.as_bytes());
    let done = done.and_then(|()| out.write_all(b"\n"));
    done.and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            Failure::PipeClosed
        } else {
            Failure::from(error).context("cannot write to stdout")
        }
    })
}

/// Prints one JSON object on one line.
pub fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value)?)
}

/// A message to the user. It must not fail a command that stderr is closed.
pub fn note(text: impl AsRef<str>) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_ref().as_bytes());
    let _ = err.write_all(b"\n");
}

/// Columns of stdout; `None` when it is not a terminal.
pub fn stdout_width() -> Option<usize> {
    let stdout = io::stdout();
    width(stdout.is_terminal(), terminal_size_of(stdout))
}

/// Columns of stderr; `None` when it is not a terminal.
pub fn stderr_width() -> Option<usize> {
    let stderr = io::stderr();
    width(stderr.is_terminal(), terminal_size_of(stderr))
}

fn width<T>(terminal: bool, size: Option<(Width, T)>) -> Option<usize> {
    let columns = size.map_or(80, |(width, _)| usize::from(width.0));
    terminal.then(|| columns.max(MIN_WIDTH))
}

/// Whether colour codes may go to stderr.
pub fn stderr_colour() -> bool {
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    wanted && io::stderr().is_terminal()
}

/// The start of a text, with an ellipsis if it was cut, at most `width` characters.
pub fn shorten(text: &str, width: usize) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(width).collect();
    if chars.next().is_none() {
        return start;
    }
    let mut cut: String = start.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A text on lines of at most `width` characters, broken between words; those that continue one are
/// indented. A word that is longer stays whole. Without a width nothing is broken.
pub fn wrap(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let mut lines = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let mut current = " ".repeat(indent);
        let mut used = indent;
        for (at, word) in line.split_whitespace().enumerate() {
            let length = word.chars().count();
            if at > 0 && used + 1 + length > width {
                lines.push(std::mem::replace(&mut current, " ".repeat(indent + 2)));
                used = indent + 2;
            } else if at > 0 {
                current.push(' ');
                used += 1;
            }
            current.push_str(word);
            used += length;
        }
        lines.push(current);
    }
    lines.join("\n")
}

/// 1234567 as `1 234 567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds with the digits that matter.
pub fn short_ms(ms: f64) -> String {
    if ms < 100.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

/// Bytes in the unit that keeps them short.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let (mut value, mut unit) = (number as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(shorten("größe", 5), "größe");
        assert_eq!(shorten("größer", 5), "größ…");
        assert_eq!(wrap("one two three", None), "one two three");
        assert_eq!(wrap("one two three", Some(13)), "one two three");
        assert_eq!(wrap("one two three", Some(12)), "one two\n  three");
        assert_eq!(
            wrap("  größe ändert\nsich", Some(13)),
            "  größe\n    ändert\nsich"
        );
        assert_eq!(wrap("a verylongword b", Some(5)), "a\n  verylongword\n  b");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
    }
}
