//! From `pg_attribute` to a [`ColumnType`].

use postgres_types::Type;

use super::{ArrayElement, ColumnType};

/// PostgreSQL's VARHDRSZ: type modifiers of numeric, varchar and char are stored with it added.
const TYPMOD_OFFSET: i32 = 4;

impl ColumnType {
    /// The type of a column as the catalog describes it.
    ///
    /// `oid` is `pg_attribute.atttypid`, `typmod` is `atttypmod` (-1: none), and `sql_name`
    /// is `format_type(atttypid, -1)`, used where the type is not one that the router knows.
    /// The -1 there matters: with the real modifier the cast would be explicit and cut
    /// over-long values (`bit(3)`) without a word, and with NULL `bit` would mean `bit(1)`.
    pub fn from_catalog(oid: u32, typmod: i32, sql_name: &str) -> ColumnType {
        let other = |sql: &str| Self::Other {
            sql: sql.to_owned(),
        };
        let Some(known) = Type::from_oid(oid) else {
            return other(sql_name);
        };
        match known {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::NUMERIC => numeric(typmod),
            Type::TEXT => Self::Text,
            Type::VARCHAR => Self::Varchar {
                max: length(typmod),
            },
            Type::BPCHAR => match length(typmod) {
                Some(len) => Self::Char { len },
                // `character` would mean char(1); only `bpchar` has no limit.
                None => other("bpchar"),
            },
            Type::BYTEA => Self::Bytea,
            Type::UUID => Self::Uuid,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::TIMESTAMP => Self::Timestamp,
            Type::TIMESTAMPTZ => Self::Timestamptz,
            Type::INTERVAL => Self::Interval,
            Type::JSON => Self::Json,
            Type::JSONB => Self::Jsonb,
            Type::INT2_ARRAY => Self::Array(ArrayElement::Int2),
            Type::INT4_ARRAY => Self::Array(ArrayElement::Int4),
            Type::INT8_ARRAY => Self::Array(ArrayElement::Int8),
            Type::TEXT_ARRAY => Self::Array(ArrayElement::Text),
            _ => other(sql_name),
        }
    }
}

/// Declared length of varchar(n) and char(n).
fn length(typmod: i32) -> Option<u32> {
    let length = typmod.checked_sub(TYPMOD_OFFSET)?;
    u32::try_from(length).ok().filter(|length| *length > 0)
}

/// Precision in the upper 16 bits, scale in the lower 11 as a signed number
/// (`numeric_typmod_scale` of PostgreSQL 15; the same as before for scales from 0).
fn numeric(typmod: i32) -> ColumnType {
    if typmod < TYPMOD_OFFSET {
        return ColumnType::Numeric {
            precision: None,
            scale: 0,
        };
    }
    let packed = typmod - TYPMOD_OFFSET;
    ColumnType::Numeric {
        precision: Some((packed >> 16) as u16),
        scale: (((packed & 0x7ff) ^ 1024) - 1024) as i16,
    }
}
