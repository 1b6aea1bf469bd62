//! Column types of a feed: what the catalog says, how the router carries a value, and
//! how it goes to PostgreSQL.
//!
//! A feed's parent table is the user's own DDL, so the set of types is open. The types
//! that orders are made of are known here and checked at the edge; every other type is
//! [`ColumnType::Other`], carried as text and cast by PostgreSQL.

use std::fmt;

use postgres_types::Type;

mod catalog;
#[cfg(test)]
mod tests;

/// The type of a feed's column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `bool`.
    Bool,
    /// `int2`.
    Int2,
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `float4`.
    Float4,
    /// `float8`.
    Float8,
    /// `numeric`, `numeric(precision, scale)`.
    Numeric {
        /// Declared precision in decimal digits; `None` for a plain `numeric`, which
        /// keeps the digits it is given.
        precision: Option<u16>,
        /// Declared scale; negative rounds before the point (PostgreSQL 15 and later).
        /// Without meaning where there is no precision.
        scale: i16,
    },
    /// `text`.
    Text,
    /// `varchar`, `varchar(max)`.
    Varchar {
        /// Greatest length in characters, if declared.
        max: Option<u32>,
    },
    /// `char(len)`, blank padded by PostgreSQL.
    Char {
        /// Declared length in characters.
        len: u32,
    },
    /// `bytea`.
    Bytea,
    /// `uuid`.
    Uuid,
    /// `date`.
    Date,
    /// `time` without time zone.
    Time,
    /// `timestamp` without time zone.
    Timestamp,
    /// `timestamptz`.
    Timestamptz,
    /// `interval`; sent as text, parsed by PostgreSQL.
    Interval,
    /// `json`.
    Json,
    /// `jsonb`.
    Jsonb,
    /// An array of whole numbers or text; sent as an array literal.
    Array(ArrayElement),
    /// Any other type (enums, domains, `inet`, `citext`, …); sent as text.
    Other {
        /// The type as SQL spells it, for the cast and for messages.
        sql: String,
    },
}

/// Element type of [`ColumnType::Array`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayElement {
    /// `int2[]`.
    Int2,
    /// `int4[]`.
    Int4,
    /// `int8[]`.
    Int8,
    /// `text[]`.
    Text,
}

/// How the router carries a value of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// That many bytes, little-endian, except a uuid, whose 16 bytes stay in their order.
    ///
    /// `bool` is 0 or 1; `date` is an `i32` of days since 2000-01-01; `time` an `i64` of
    /// µs since midnight; `timestamp` and `timestamptz` an `i64` of µs since 2000-01-01
    /// 00:00 UTC. The greatest and least value of the latter and of `date` are
    /// `infinity` and `-infinity`.
    Fixed(usize),
    /// Exactly the bytes that the binary receive function of
    /// [`wire_type`](ColumnType::wire_type) takes.
    Var,
}

impl ColumnType {
    /// How the router carries a value of the column.
    pub fn storage(&self) -> Storage {
        match self {
            Self::Bool => Storage::Fixed(1),
            Self::Int2 => Storage::Fixed(2),
            Self::Int4 | Self::Float4 | Self::Date => Storage::Fixed(4),
            Self::Int8 | Self::Float8 | Self::Time | Self::Timestamp | Self::Timestamptz => {
                Storage::Fixed(8)
            }
            Self::Uuid => Storage::Fixed(16),
            Self::Numeric { .. }
            | Self::Text
            | Self::Varchar { .. }
            | Self::Char { .. }
            | Self::Bytea
            | Self::Interval
            | Self::Json
            | Self::Jsonb
            | Self::Array(_)
            | Self::Other { .. } => Storage::Var,
        }
    }

    /// Element type of the array parameter that carries the column to PostgreSQL.
    pub fn wire_type(&self) -> Type {
        match self {
            Self::Bool => Type::BOOL,
            Self::Int2 => Type::INT2,
            Self::Int4 => Type::INT4,
            Self::Int8 => Type::INT8,
            Self::Float4 => Type::FLOAT4,
            Self::Float8 => Type::FLOAT8,
            Self::Numeric { .. } => Type::NUMERIC,
            Self::Bytea => Type::BYTEA,
            Self::Uuid => Type::UUID,
            Self::Date => Type::DATE,
            Self::Time => Type::TIME,
            Self::Timestamp => Type::TIMESTAMP,
            Self::Timestamptz => Type::TIMESTAMPTZ,
            Self::Json => Type::JSON,
            Self::Jsonb => Type::JSONB,
            Self::Text
            | Self::Varchar { .. }
            | Self::Char { .. }
            | Self::Interval
            | Self::Array(_)
            | Self::Other { .. } => Type::TEXT,
        }
    }

    /// Whether the statement must cast the parameter to [`sql_name`](Self::sql_name).
    ///
    /// `varchar` and `char` need none: text is assigned to them, and over-long values are
    /// refused before they get that far.
    pub fn needs_cast(&self) -> bool {
        matches!(self, Self::Interval | Self::Array(_) | Self::Other { .. })
    }

    /// The type as SQL spells it, such as `numeric(10,2)` or `int4[]`.
    pub fn sql_name(&self) -> String {
        self.to_string()
    }
}

impl ArrayElement {
    /// The element type as SQL spells it.
    pub fn sql_name(self) -> &'static str {
        match self {
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric {
                precision: Some(precision),
                scale,
            } => {
                return write!(f, "numeric({precision},{scale})");
            }
            Self::Numeric {
                precision: None, ..
            } => "numeric",
            Self::Text => "text",
            Self::Varchar { max: Some(max) } => return write!(f, "varchar({max})"),
            Self::Varchar { max: None } => "varchar",
            Self::Char { len } => return write!(f, "char({len})"),
            Self::Bytea => "bytea",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Interval => "interval",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Array(element) => return write!(f, "{}[]", element.sql_name()),
            Self::Other { sql } => sql,
        })
    }
}
