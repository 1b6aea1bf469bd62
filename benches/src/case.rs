//! What is measured, and what is compared with what.

/// One measurement.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    /// Rows written, all in all.
    pub rows: f64,
    pub rows_per_second: f64,
    /// Of a request or statement. Of pgbench it is the mean.
    pub p50_ms: f64,
    pub p99_ms: Option<f64>,
    /// CPU of the router's process by rows written.
    pub cpu_ns_per_row: Option<f64>,
    /// CPU of whatever sends the rows.
    pub load_ns_per_row: Option<f64>,
    /// CPU of all processes of PostgreSQL.
    pub postgres_ns_per_row: Option<f64>,
}

/// One line of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    SingleSql,
    Single,
    SingleHalf,
    Direct,
    Call,
    Unary,
    BatchSql,
    ColumnarRuns,
    Asyncpg,
    Limit,
    ColumnarRandom,
    Rows,
}

impl Case {
    /// In the order of the report.
    pub const ALL: [Self; 12] = [
        Self::SingleSql,
        Self::Single,
        Self::SingleHalf,
        Self::Direct,
        Self::Call,
        Self::Unary,
        Self::BatchSql,
        Self::ColumnarRuns,
        Self::Asyncpg,
        Self::Limit,
        Self::ColumnarRandom,
        Self::Rows,
    ];

    /// Its name in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Self::SingleSql => "single_sql",
            Self::Single => "single",
            Self::SingleHalf => "single_half_load",
            Self::Direct => "direct",
            Self::Call => "call",
            Self::Unary => "unary",
            Self::BatchSql => "batch_sql",
            Self::ColumnarRuns => "columnar_runs",
            Self::Asyncpg => "asyncpg",
            Self::Limit => "limit",
            Self::ColumnarRandom => "columnar_random",
            Self::Rows => "rows",
        }
    }

    /// Its name for people, at most 26 characters.
    pub fn label(self) -> &'static str {
        match self {
            Self::SingleSql => "single.sql, 32 clients",
            Self::Single => "pgbraid, one row a message",
            Self::SingleHalf => "pgbraid, at half that rate",
            Self::Direct => "direct commit of one row",
            Self::Call => "gRPC call, nothing written",
            Self::Unary => "pgbraid, unary, one row",
            Self::BatchSql => "batch.sql, 8 clients",
            Self::ColumnarRuns => "pgbraid, columnar, runs",
            Self::Asyncpg => "asyncpg, random keys",
            Self::Limit => "limit, random keys",
            Self::ColumnarRandom => "pgbraid, columnar, random",
            Self::Rows => "pgbraid, row form, random",
        }
    }
}

/// What of a measurement is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    RowsPerSecond,
    /// Less is better.
    P50,
}

impl Quantity {
    pub fn of(self, measure: &Measure) -> f64 {
        match self {
            Self::RowsPerSecond => measure.rows_per_second,
            Self::P50 => measure.p50_ms,
        }
    }
}

/// A ratio of two measurements of the same round.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// Its name in JSON.
    pub id: &'static str,
    /// Its name for people.
    pub label: &'static str,
    pub of: Case,
    pub to: Case,
    pub quantity: Quantity,
}

/// In the order of the report.
pub const RATIOS: [Ratio; 7] = [
    rows(
        "columnar_vs_batch_sql",
        "columnar, runs of 1000 keys, to batch.sql",
        Case::ColumnarRuns,
        Case::BatchSql,
    ),
    rows(
        "columnar_random_vs_limit",
        "columnar, random keys, to the limit",
        Case::ColumnarRandom,
        Case::Limit,
    ),
    rows(
        "columnar_random_vs_batch_sql",
        "columnar, random keys, to batch.sql",
        Case::ColumnarRandom,
        Case::BatchSql,
    ),
    rows(
        "columnar_random_vs_asyncpg",
        "columnar, random keys, to asyncpg",
        Case::ColumnarRandom,
        Case::Asyncpg,
    ),
    rows(
        "rows_vs_limit",
        "row form, random keys, to the limit",
        Case::Rows,
        Case::Limit,
    ),
    rows(
        "single_vs_single_sql",
        "one row a message to single.sql",
        Case::Single,
        Case::SingleSql,
    ),
    Ratio {
        id: "unary_p50_vs_direct",
        label: "p50 of a unary row to a direct commit",
        of: Case::Unary,
        to: Case::Direct,
        quantity: Quantity::P50,
    },
];

const fn rows(id: &'static str, label: &'static str, of: Case, to: Case) -> Ratio {
    Ratio {
        id,
        label,
        of,
        to,
        quantity: Quantity::RowsPerSecond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let mut ids: Vec<&str> = Case::ALL.iter().map(|case| case.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Case::ALL.len());
        assert!(Case::ALL.iter().all(|case| case.label().len() <= 26));
        assert!(RATIOS.iter().all(|ratio| ratio.label.len() <= 44));
    }
}
