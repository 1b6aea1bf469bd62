//! Bounds of one column that a write crosses.
//!
//! A row that goes from below a bound to above it starts to match `c > bound`. Of many bounds one
//! is crossed if more of them lie below the new value than below the old one. PostgreSQL counts
//! them by a binary search: `width_bucket` says how many of a sorted array are not above a value.

use std::collections::BTreeSet;

use crate::column::ColumnKind;
use crate::decimal::Decimal;
use crate::needs::Bound;

/// Counts the bounds on the lower side of a value.
pub(crate) struct Steps {
    array: String,
    count: usize,
    /// A value that is equal to a bound is on the lower side itself.
    less: bool,
    /// Who is above a bound has passed it.
    up: bool,
}

impl Steps {
    /// None for floats, whose constants PostgreSQL rounds, and for bounds out of range.
    pub(crate) fn of(bound: Bound, bounds: &BTreeSet<Decimal>, kind: ColumnKind) -> Option<Self> {
        // `c > k` and `c <= k` have k itself on the lower side.
        let less = matches!(bound, Bound::Above | Bound::AtMost);
        let up = matches!(bound, Bound::Above | Bound::AtLeast);
        let (values, ty, less): (Vec<String>, _, _) = match kind {
            ColumnKind::Numeric { .. } => {
                let all = bounds.iter().map(Decimal::to_string).collect();
                (all, "numeric", less)
            }
            ColumnKind::Int2 | ColumnKind::Int4 | ColumnKind::Int8 => {
                // Among whole numbers the least that is above k, or not below it.
                let step = |k: &Decimal| match k.whole() {
                    Some(whole) if !less => Some(whole),
                    _ => k.floor()?.checked_add(1),
                };
                let all: Option<BTreeSet<i64>> = bounds.iter().map(step).collect();
                let all = all?;
                // What PostgreSQL reads anew for each statement is half as long.
                let short =
                    kind != ColumnKind::Int8 && all.iter().all(|n| i32::try_from(*n).is_ok());
                let ty = if short { "int4" } else { "int8" };
                (all.iter().map(i64::to_string).collect(), ty, false)
            }
            _ => return None,
        };
        Some(Self {
            array: format!("'{{{}}}'::pg_catalog.{ty}[]", values.join(",")),
            count: values.len(),
            less,
            up,
        })
    }

    /// True if `new`, which is not null, has passed a bound that `old` has not.
    pub(crate) fn entered(&self, new: &str, old: &str) -> String {
        let sign = if self.up { ">" } else { "<" };
        format!("{} {sign} {}", self.below(new), self.below_or_null(old))
    }

    /// True if one of the two has passed a bound that the other has not.
    pub(crate) fn crossed(&self, new: &str, old: &str) -> String {
        format!("{} <> {}", self.below_or_null(new), self.below_or_null(old))
    }

    fn below(&self, column: &str) -> String {
        let array = &self.array;
        let count = format!("pg_catalog.width_bucket({column}, {array})");
        match self.less {
            true => format!("({count} - cast({column} = any ({array}) as int4))"),
            false => count,
        }
    }

    /// NULL has passed no bound.
    fn below_or_null(&self, column: &str) -> String {
        let none = if self.up { 0 } else { self.count };
        format!("coalesce({}, {none})", self.below(column))
    }
}
