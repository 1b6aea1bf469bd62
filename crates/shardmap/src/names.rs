//! The names and numbers of the vocabulary, each as its own type.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A name that does not have the form its kind requires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `db0` to `db255`.
    #[error("'{0}': instances are named db0 to db255 (no leading zeros), at most 256")]
    Instance(String),
    /// Not `tbl` and a number.
    #[error("'{0}': tables are named tbl0, tbl1, and so on (no leading zeros)")]
    Table(String),
    /// Not a feed's name.
    #[error(
        "'{0}': a feed's name has 1 to 40 of the characters a-z, 0-9 and _, and does not start with a digit"
    )]
    Feed(String),
}

/// The digits after `prefix` as a number: no sign, no leading zeros, nothing after them.
fn number_after<T: FromStr>(text: &str, prefix: &str) -> Option<T> {
    let digits = text.strip_prefix(prefix)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    if !plain || leading_zero {
        return None;
    }
    digits.parse().ok()
}

/// An instance: one PostgreSQL with its standbys, `db0` to `db255`. Ordered by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(u8);

impl InstanceName {
    /// The instance with this number.
    pub const fn new(index: u8) -> Self {
        Self(index)
    }

    /// The number in the name.
    pub const fn index(self) -> u8 {
        self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "db{}", self.0)
    }
}

impl FromStr for InstanceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let index = number_after(text, "db");
        index
            .map(Self)
            .ok_or_else(|| NameError::Instance(text.into()))
    }
}

/// A table: one of a feed's N hash partitions, `tbl0` to `tblN-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(u32);

impl TableId {
    /// The table with this number, which is the partition's remainder.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The number in the name.
    pub const fn index(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tbl{}", self.0)
    }
}

impl FromStr for TableId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let index = number_after(text, "tbl");
        index.map(Self).ok_or_else(|| NameError::Table(text.into()))
    }
}

/// How often the ownership of a table has changed. The greater epoch is the later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(
    /// The count itself, as stored in `pgbraid.ownership`.
    pub u64,
);

impl Epoch {
    /// The epoch of the next owner.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A feed's name: 1 to 40 bytes of `[a-z_][a-z0-9_]*`. A clone copies a pointer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedName(Arc<str>);

impl FeedName {
    /// The longest name in bytes; it leaves room for the suffixes of what is made for a feed.
    pub const MAX_BYTES: usize = 40;

    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError::Feed`] when it is empty, too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next();
        let starts = first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if starts && text.len() <= Self::MAX_BYTES && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Feed(text.into()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for FeedName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for FeedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// The type of a feed's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// A 64-bit integer.
    Int8,
    /// A UUID, 16 bytes.
    Uuid,
    /// Text under a deterministic collation, hashed as its UTF-8 bytes.
    Text,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Int8 => "int8",
            Self::Uuid => "uuid",
            Self::Text => "text",
        })
    }
}

#[cfg(test)]
mod tests;
