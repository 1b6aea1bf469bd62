//! Tests of the whole crate through its public face.

mod accepted;
mod ddl;
mod refused;
mod round_trip;
mod rules;

use crate::{Expression, check};

/// The columns of the feed that all tests use.
pub(crate) fn columns() -> Vec<String> {
    [
        "id", "c1", "c2", "total", "status", "tags", "nums", "attrs", "ts", "tstz", "d", "iv", "b",
        "note", "date", "Total", "a\"b", "größe",
    ]
    .map(str::to_owned)
    .to_vec()
}

pub(crate) fn accept(expression: &str) -> Expression {
    check(expression, &columns()).unwrap_or_else(|e| panic!("{expression}\n{e}"))
}
