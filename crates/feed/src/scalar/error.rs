//! Why a value was refused.

use crate::types::ColumnType;

/// Characters of a refused value that a message shows.
const SHOWN_CHARS: usize = 40;

/// A value that cannot be written to its column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    /// The kind of fault, for programs.
    pub reason: Reason,
    /// What was wrong with which value and what was expected, for people.
    pub message: String,
}

impl ValueError {
    /// A refusal for `reason`, explained by `message`.
    pub fn new(reason: Reason, message: String) -> Self {
        Self { reason, message }
    }

    /// The refusal of a row whose key is null or absent.
    pub fn null_key() -> Self {
        Self::new(
            Reason::NullKey,
            "the key is null: every row needs a key".to_owned(),
        )
    }

    /// The refusal of null for a column that is declared `not null`.
    pub fn not_null() -> Self {
        Self::new(
            Reason::NotNull,
            "null was sent for a column that is not null: send a value, or leave the column out \
             to keep what is stored"
                .to_owned(),
        )
    }
}

/// The kinds of refusal; on the wire the reason of an `ErrorInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A value of a kind that the column does not take.
    WrongType,
    /// A number or time beyond what the column's type holds.
    OutOfRange,
    /// Text that PostgreSQL cannot store (a NUL character).
    InvalidText,
    /// Bytes that are not UTF-8 where text is wanted.
    InvalidUtf8,
    /// Not a whole number.
    InvalidInteger,
    /// Not a floating point number.
    InvalidFloat,
    /// Not a numeric.
    InvalidNumeric,
    /// Not JSON, or JSON that the column cannot hold.
    InvalidJson,
    /// Not a uuid.
    InvalidUuid,
    /// Not a timestamp.
    InvalidTimestamp,
    /// Not a date.
    InvalidDate,
    /// Not a time of day.
    InvalidTime,
    /// Not an interval.
    InvalidInterval,
    /// Not a truth value.
    InvalidBool,
    /// Not an array, or one with a wrong element.
    InvalidArray,
    /// Not a bytea in hex form.
    InvalidBytea,
    /// Longer than the column or the router allows.
    TooLong,
    /// A row whose key is null.
    NullKey,
    /// Null for a column that is declared `not null`.
    NotNull,
}

impl Reason {
    /// The reason as it stands on the wire, such as `OUT_OF_RANGE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongType => "WRONG_TYPE",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::InvalidText => "INVALID_TEXT",
            Self::InvalidUtf8 => "INVALID_UTF8",
            Self::InvalidInteger => "INVALID_INTEGER",
            Self::InvalidFloat => "INVALID_FLOAT",
            Self::InvalidNumeric => "INVALID_NUMERIC",
            Self::InvalidJson => "INVALID_JSON",
            Self::InvalidUuid => "INVALID_UUID",
            Self::InvalidTimestamp => "INVALID_TIMESTAMP",
            Self::InvalidDate => "INVALID_DATE",
            Self::InvalidTime => "INVALID_TIME",
            Self::InvalidInterval => "INVALID_INTERVAL",
            Self::InvalidBool => "INVALID_BOOL",
            Self::InvalidArray => "INVALID_ARRAY",
            Self::InvalidBytea => "INVALID_BYTEA",
            Self::TooLong => "TOO_LONG",
            Self::NullKey => "NULL_KEY",
            Self::NotNull => "NOT_NULL",
        }
    }
}

/// The refusal of a value of kind `sent`, which a column of type `ty` never takes.
pub(super) fn wrong_type(ty: &ColumnType, sent: &str) -> ValueError {
    let accepted = match ty {
        ColumnType::Bool => "a bool, or text such as \"true\"",
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => {
            "a whole number, also as text (a float is not rounded for you)"
        }
        ColumnType::Float4 | ColumnType::Float8 | ColumnType::Numeric { .. } => {
            "a number, also as text"
        }
        ColumnType::Bytea => "bytes, or text in hex form (\\xdeadbeef)",
        ColumnType::Uuid => "16 bytes, or text with 32 hex digits",
        ColumnType::Date => "days since 1970-01-01, or text such as \"2024-05-01\"",
        ColumnType::Time => "microseconds since midnight, or text such as \"13:45:00\"",
        ColumnType::Timestamp => {
            "microseconds since 1970-01-01, or text such as \"2024-05-01 13:45:00\""
        }
        ColumnType::Timestamptz => {
            "microseconds since 1970-01-01 UTC, or text such as \"2024-05-01T13:45:00Z\""
        }
        ColumnType::Json | ColumnType::Jsonb => "JSON as text",
        ColumnType::Array(_) => "text such as \"{1,2}\" or \"[1,2]\"",
        ColumnType::Text
        | ColumnType::Varchar { .. }
        | ColumnType::Char { .. }
        | ColumnType::Interval
        | ColumnType::Other { .. } => "text",
    };
    ValueError::new(
        Reason::WrongType,
        format!("{sent} was sent for a column of type {ty}: expected {accepted}"),
    )
}

/// A value for a message: quoted, escaped, and cut where it is long.
pub(super) fn shown(text: &str) -> String {
    let mut quoted = String::with_capacity(SHOWN_CHARS + 8);
    quoted.push('"');
    for (position, c) in text.chars().enumerate() {
        if position == SHOWN_CHARS {
            quoted.push('…');
            break;
        }
        match c {
            '\'' => quoted.push(c),
            _ => quoted.extend(c.escape_debug()),
        }
    }
    quoted.push('"');
    quoted
}
