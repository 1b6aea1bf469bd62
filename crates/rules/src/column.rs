//! What the triggers have to know of a column's type.

/// A column of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As in the catalog.
    pub name: String,
    /// What may be concluded about its values.
    pub kind: ColumnKind,
}

/// Types that allow the same conclusions. [`ColumnKind::Other`] allows none, and is always right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// `int2`.
    Int2,
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `numeric`. `fixed`: with a declared scale, so that equal values have the same digits.
    Numeric {
        /// Whether the scale is declared.
        fixed: bool,
    },
    /// `float4`, `float8`.
    Float,
    /// `text`, `varchar`, of any collation.
    Text,
    /// Equal values are the same in every respect: `bool`, `uuid`, `date`, `time`, `timestamp`,
    /// `timestamptz`, `bytea`.
    Plain,
    /// Anything else.
    Other,
}

impl ColumnKind {
    pub(crate) fn is_number(self) -> bool {
        matches!(
            self,
            ColumnKind::Int2
                | ColumnKind::Int4
                | ColumnKind::Int8
                | ColumnKind::Numeric { .. }
                | ColumnKind::Float
        )
    }
}
