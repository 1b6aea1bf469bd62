//! Tests of the whole crate through its public face.

mod accepted;
mod ddl;
mod refused;
mod round_trip;
mod rules;

use crate::{Column, ColumnKind, Expression, check};

/// The columns of the feed that all tests use.
pub(crate) fn columns() -> Vec<String> {
    [
        "id", "c1", "c2", "total", "status", "tags", "nums", "attrs", "ts", "tstz", "d", "iv", "b",
        "note", "date", "Total", "a\"b", "größe",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The same, with their types.
pub(crate) fn kinds() -> Vec<Column> {
    let kind = |name: &str| match name {
        "id" => ColumnKind::Int8,
        "c1" | "c2" => ColumnKind::Int4,
        "total" | "Total" => ColumnKind::Numeric { fixed: false },
        "status" | "note" => ColumnKind::Text,
        "ts" | "tstz" | "d" | "date" | "b" => ColumnKind::Plain,
        _ => ColumnKind::Other,
    };
    let column = |name: String| Column {
        kind: kind(&name),
        name,
    };
    columns().into_iter().map(column).collect()
}

pub(crate) fn accept(expression: &str) -> Expression {
    check(expression, &columns()).unwrap_or_else(|e| panic!("{expression}\n{e}"))
}
