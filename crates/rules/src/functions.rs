//! The functions that a rule may call, and why others may not be called.

/// Names that PostgreSQL's grammar handles itself: they take no `pg_catalog.` prefix.
const SYNTAX: [(&str, usize, usize); 4] = [
    ("coalesce", 1, MANY),
    ("greatest", 1, MANY),
    ("least", 1, MANY),
    ("nullif", 2, 2),
];

/// No bound of its own; the bound on the whole tree holds.
const MANY: usize = usize::MAX;

/// Functions of `pg_catalog` with the least and the most arguments.
const CATALOG: [(&str, usize, usize); 40] = [
    ("abs", 1, 1),
    ("age", 2, 2),
    ("array_length", 2, 2),
    ("btrim", 1, 2),
    ("cardinality", 1, 1),
    ("ceil", 1, 1),
    ("ceiling", 1, 1),
    ("char_length", 1, 1),
    ("character_length", 1, 1),
    ("date_part", 2, 2),
    ("date_trunc", 2, 3),
    ("floor", 1, 1),
    ("json_array_length", 1, 1),
    ("json_typeof", 1, 1),
    ("jsonb_array_length", 1, 1),
    ("jsonb_typeof", 1, 1),
    ("left", 2, 2),
    ("length", 1, 1),
    ("lower", 1, 1),
    ("ltrim", 1, 2),
    ("md5", 1, 1),
    ("mod", 2, 2),
    ("num_nonnulls", 1, MANY),
    ("num_nulls", 1, MANY),
    ("octet_length", 1, 1),
    ("position", 2, 2),
    ("power", 2, 2),
    ("replace", 3, 3),
    ("right", 2, 2),
    ("round", 1, 2),
    ("rtrim", 1, 2),
    ("sign", 1, 1),
    ("split_part", 3, 3),
    ("starts_with", 2, 2),
    ("strpos", 2, 2),
    ("substr", 2, 3),
    ("substring", 2, 3),
    ("timezone", 2, 2),
    ("trunc", 1, 2),
    ("upper", 1, 1),
];

/// Aggregates and window functions, for a better message.
const OVER_MANY_ROWS: [&str; 18] = [
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "dense_rank",
    "every",
    "first_value",
    "json_agg",
    "jsonb_agg",
    "lag",
    "last_value",
    "lead",
    "max",
    "min",
    "rank",
    "row_number",
    "sum",
];

/// Functions whose result is not a function of the row, for a better message.
const NOT_IMMUTABLE: [&str; 24] = [
    "clock_timestamp",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_setting",
    "current_time",
    "current_timestamp",
    "current_user",
    "gen_random_uuid",
    "localtime",
    "localtimestamp",
    "nextval",
    "now",
    "pg_sleep",
    "random",
    "session_user",
    "set_config",
    "statement_timestamp",
    "timeofday",
    "transaction_timestamp",
    "txid_current",
    "user",
    "version",
];

/// Why a function is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    OverManyRows,
    NotImmutable,
    Unlisted,
}

/// Names of the functions that a rule may call, besides `extract`, `trim` and `cast`.
pub fn allowed_functions() -> impl Iterator<Item = &'static str> {
    SYNTAX.iter().chain(&CATALOG).map(|(name, _, _)| *name)
}

/// The function's name and the least and most arguments, if it is allowed.
pub(crate) fn find(name: &str) -> Option<(&'static str, usize, usize)> {
    SYNTAX
        .iter()
        .chain(&CATALOG)
        .find(|(known, _, _)| *known == name)
        .copied()
}

/// Whether the grammar knows this name, so that it takes no schema.
pub(crate) fn is_syntax(name: &str) -> bool {
    SYNTAX.iter().any(|(known, _, _)| *known == name)
}

/// The reason why a function that [`find`] does not know is refused.
pub(crate) fn refused(name: &str) -> Refused {
    if OVER_MANY_ROWS.contains(&name) {
        Refused::OverManyRows
    } else if NOT_IMMUTABLE.contains(&name) {
        Refused::NotImmutable
    } else {
        Refused::Unlisted
    }
}
