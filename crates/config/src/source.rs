//! The text of a file, and errors that point into it.

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{ConfigError, Invalid, Place};

/// A file's text with the name that errors call it by.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub origin: String,
    pub text: String,
}

impl Source {
    pub fn read(path: &Path, purpose: &'static str) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|cause| ConfigError::read(path, purpose, cause))?;
        Ok(Self {
            origin: path.display().to_string(),
            text,
        })
    }

    /// The raw shape, or the first mistake in TOML or in the types.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let span = error.span();
            let written = span.clone().and_then(|span| self.text.get(span));
            let message = in_our_words(error.message(), written.unwrap_or_default());
            let help = help_for(&message);
            self.error(span, message, help)
        })
    }

    /// A mistake at a span of bytes of the text, or in the file as a whole.
    pub fn error(
        &self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Invalid(Box::new(Invalid {
            origin: self.origin.clone(),
            place: span.map(|span| self.place(span)),
            message: message.into(),
            help: help.into(),
        }))
    }

    /// The line of a byte, from 1.
    pub fn line_of(&self, at: usize) -> usize {
        let before = self.text.bytes().take(at);
        1 + before.filter(|&byte| byte == b'\n').count()
    }

    fn place(&self, span: Range<usize>) -> Place {
        let start = floor_char(&self.text, span.start);
        let end = floor_char(&self.text, span.end.max(start));
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.text[line_start..];
        let line = rest.split('\n').next().unwrap_or_default();
        let line_end = line_start + line.len();
        let column = self.text[line_start..start].chars().count();
        let width = self.text[start..end.clamp(start, line_end.max(start))]
            .chars()
            .count();

        // A window keeps a very long line readable, and a mask keeps secrets out of logs.
        let shown = mask(line.trim_end());
        let from = column.saturating_sub(SHOWN_BEFORE);
        let snippet: String = shown
            .chars()
            .skip(from)
            .take(SHOWN)
            .map(printable)
            .collect();
        let caret = (column - from).min(snippet.chars().count());
        let room = snippet.chars().count() - caret;
        Place {
            line: self.line_of(start),
            column: column + 1,
            snippet,
            caret,
            carets: width.min(room).max(1),
        }
    }
}

/// The longest part of a line that is shown, and how much of it stands before the mistake.
const SHOWN: usize = 120;
const SHOWN_BEFORE: usize = 60;

/// The parser's message in the words of people who write TOML, not Rust.
fn in_our_words(message: &str, written: &str) -> String {
    if message == "duplicate key" {
        return format!("{message} '{written}'");
    }
    message
        .trim_end()
        .replace('\n', ", ")
        .replace("expected i64", "expected a whole number")
        .replace("expected a sequence", "expected a list in brackets")
}

fn help_for(message: &str) -> &'static str {
    if message.contains("`password`") {
        "put the password in a file that postgres.password_file names, or in the variable PGBRAID_PG_PASSWORD"
    } else if message.starts_with("unknown field") {
        "correct the spelling, or remove the key"
    } else if message.starts_with("duplicate key") {
        "each key and each table may stand once: merge the two, or rename one"
    } else if message.starts_with("missing field") {
        "add the key"
    } else if message.starts_with("invalid type") {
        "see the commented examples deploy/pgbraid.toml and deploy/shardmap.toml"
    } else {
        ""
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

fn printable(c: char) -> char {
    if c == '\t' {
        ' '
    } else if c.is_control() {
        '\u{fffd}'
    } else {
        c
    }
}

/// Hides what follows `password =` and the like, and the user part of a URL: neither belongs
/// in these files, and an error about them must not carry a secret into the log.
fn mask(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    for word in ["password", "passwd", "secret", "token"] {
        for (at, _) in lower.match_indices(word) {
            let rest = &lower[at + word.len()..];
            let value = rest.trim_start_matches(['"', '\'', ' ', '\t']);
            if value.starts_with('=') {
                let shown = line.len() - value.len() + 1;
                return format!("{} ...", &line[..shown]);
            }
        }
    }
    match line.find("://") {
        Some(at) if line[at..].contains('@') => format!("{}://...", &line[..at]),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        assert_eq!(mask("password = \"x\""), "password = ...");
        assert_eq!(mask("pg = { Password='x' }"), "pg = { Password= ...");
        assert_eq!(mask("\"token\" = 'x'"), "\"token\" = ...");
        assert_eq!(mask("password_file = 'x'"), "password_file = 'x'");
        assert_eq!(mask("host = \"pg://u:x@h\""), "host = \"pg://...");
    }

    #[test]
    fn any_span_has_a_place() {
        let text = "a = 'ü'\nb\t= 2 \u{1b}\n".to_owned();
        let source = Source {
            origin: "f".into(),
            text,
        };
        for start in 0..40 {
            for end in 0..40 {
                let place = source.place(start..end);
                assert!(place.caret <= place.snippet.chars().count());
                assert!(place.carets >= 1);
            }
        }
        let place = source.place(5..6); // inside the ü
        assert_eq!((place.line, place.column), (1, 6));
        let place = source.place(9..10);
        assert_eq!((place.line, place.snippet.as_str()), (2, "b = 2 \u{fffd}"));
    }

    #[test]
    fn a_long_line_is_shown_in_part() {
        let source = Source {
            origin: "f".into(),
            text: format!("{}X{}", "a".repeat(500), "b".repeat(500)),
        };
        let place = source.place(500..501);
        assert_eq!(place.column, 501);
        assert_eq!(place.snippet.chars().nth(place.caret), Some('X'));
        assert_eq!(place.snippet.len(), SHOWN);
    }
}
