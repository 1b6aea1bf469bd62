//! The types that a rule may cast to, in one canonical spelling each.

use sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, IntervalFields, TimezoneInfo,
};

/// Canonical names of the types that a cast or a typed literal may name; each also as an array.
pub fn allowed_types() -> &'static [&'static str] {
    &[
        "boolean",
        "int2",
        "int4",
        "int8",
        "float4",
        "float8",
        "numeric(p,s)",
        "text",
        "varchar(n)",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "interval",
        "uuid",
        "json",
        "jsonb",
    ]
}

/// The canonical spelling of an allowed type, or None.
pub(crate) fn canonical(of: &DataType) -> Option<String> {
    let plain = match of {
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => {
            // PostgreSQL keeps neither the bounds nor the number of dimensions.
            let element = canonical(element)?;
            let element = element.strip_suffix("[]").unwrap_or(&element);
            return Some(format!("{element}[]"));
        }
        DataType::Bool | DataType::Boolean => "boolean",
        DataType::Int2(None) | DataType::SmallInt(None) => "int2",
        DataType::Int4(None) | DataType::Int(None) | DataType::Integer(None) => "int4",
        DataType::Int8(None) | DataType::BigInt(None) => "int8",
        DataType::Float4 | DataType::Real => "float4",
        DataType::Float8 | DataType::DoublePrecision | DataType::Float(ExactNumberInfo::None) => {
            "float8"
        }
        DataType::Numeric(size) | DataType::Decimal(size) | DataType::Dec(size) => {
            return Some(match size {
                ExactNumberInfo::None => "numeric".to_owned(),
                ExactNumberInfo::Precision(p) => format!("numeric({p})"),
                ExactNumberInfo::PrecisionAndScale(p, s) => format!("numeric({p},{s})"),
            });
        }
        DataType::Text => "text",
        DataType::Varchar(size)
        | DataType::CharacterVarying(size)
        | DataType::CharVarying(size) => {
            return match size {
                None => Some("varchar".to_owned()),
                Some(CharacterLength::IntegerLength { length, unit: None }) => {
                    Some(format!("varchar({length})"))
                }
                Some(_) => None,
            };
        }
        DataType::Date => "date",
        DataType::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            return Some(with_precision("time", *precision));
        }
        DataType::Timestamp(precision, zone) => {
            return Some(match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => {
                    with_precision("timestamp", *precision)
                }
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => {
                    with_precision("timestamptz", *precision)
                }
            });
        }
        DataType::Interval {
            fields: Option::<IntervalFields>::None,
            precision: None,
        } => "interval",
        DataType::Uuid => "uuid",
        DataType::JSON => "json",
        DataType::JSONB => "jsonb",
        _ => return None,
    };
    Some(plain.to_owned())
}

fn with_precision(name: &str, precision: Option<u64>) -> String {
    match precision {
        None => name.to_owned(),
        Some(digits) => format!("{name}({digits})"),
    }
}

/// Whether a constant of this canonical type is read as a date or a time.
pub(crate) fn is_temporal(canonical: &str) -> bool {
    canonical.starts_with("date") || canonical.starts_with("time")
}
