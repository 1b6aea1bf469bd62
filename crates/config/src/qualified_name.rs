//! Names of PostgreSQL tables as SQL writes them.

use std::fmt;
use std::str::FromStr;

use crate::check::MAX_NAME_BYTES;

/// A table's schema and name, exactly as stored in the catalog, without quotes.
///
/// Parsed from and displayed as SQL: `public.orders`, `"Sales"."Orders Wide"`. Without a schema it
/// is in `public`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// The schema.
    pub schema: String,
    /// The table.
    pub name: String,
}

/// Why a text is no qualified name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

impl FromStr for QualifiedName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (first, rest) = identifier(text)?;
        let Some(rest) = rest.strip_prefix('.') else {
            return end(rest).map(|()| Self {
                schema: "public".into(),
                name: first,
            });
        };
        let (name, rest) = identifier(rest)?;
        end(rest)?;
        Ok(Self {
            schema: first,
            name,
        })
    }
}

fn end(rest: &str) -> Result<(), InvalidName> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(InvalidName(format!(
        "'{rest}' is left over after the name: write schema.table, and quote a part that is not lower-case letters, digits and _"
    )))
}

/// The identifier at the start of the text, and what follows it.
fn identifier(text: &str) -> Result<(String, &str), InvalidName> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted_identifier(quoted)?,
        None => {
            let len = text.find(|c: char| !plain(c)).unwrap_or(text.len());
            let (name, rest) = text.split_at(len);
            if rest.starts_with(|c: char| c.is_ascii_uppercase()) {
                return Err(InvalidName(format!(
                    "'{text}': PostgreSQL folds names without quotes to lower case: write it in lower case or in double quotes"
                )));
            }
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(InvalidName(format!(
                    "'{name}' starts with a digit: write it in double quotes"
                )));
            }
            (name.to_owned(), rest)
        }
    };
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('\0') {
        return Err(InvalidName(format!(
            "'{name}' is a name of {} bytes, allowed are 1 to {MAX_NAME_BYTES} bytes without NUL",
            name.len()
        )));
    }
    Ok((name, rest))
}

/// What stands up to the closing quote, where a doubled quote is a quote, and what follows it.
fn quoted_identifier(text: &str) -> Result<(String, &str), InvalidName> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return Err(InvalidName(format!(
                "the closing quote of \"{text} is missing"
            )));
        };
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Ok((name, after)),
        }
    }
}

fn plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |f: &mut fmt::Formatter<'_>, name: &str| {
            let starts_plain = !name.starts_with(|c: char| c.is_ascii_digit());
            if starts_plain && name.chars().all(plain) {
                f.write_str(name)
            } else {
                write!(f, "\"{}\"", name.replace('"', "\"\""))
            }
        };
        part(f, &self.schema)?;
        f.write_str(".")?;
        part(f, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, schema, name) in [
            ("public.orders", "public", "orders"),
            ("orders", "public", "orders"),
            ("\"Sales\".\"Orders Wide\"", "Sales", "Orders Wide"),
            ("a.\"b\"\"c.d\"", "a", "b\"c.d"),
            ("\"1\".größe", "1", "größe"),
        ] {
            let Ok(parsed) = text.parse::<QualifiedName>() else {
                assert_eq!(name, "größe", "only ASCII goes without quotes");
                continue;
            };
            assert_eq!(
                (parsed.schema.as_str(), parsed.name.as_str()),
                (schema, name)
            );
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
    }

    #[test]
    fn refusals() {
        let long = "x".repeat(64);
        for bad in [
            "", ".", "a.", ".a", "a.b.c", "A.b", "a b", "\"a", "\"\"", "1a", "a-b", &long, "\"\0\"",
        ] {
            assert!(bad.parse::<QualifiedName>().is_err(), "{bad}");
        }
    }
}
