//! Queries that ask PostgreSQL about a rule before it is stored.

use crate::expression::Expression;
use crate::quote;
use crate::rule::Target;

/// Run this first in the transaction of every statement that this crate makes: it fixes what
/// the operators mean, so that a probe, a dry run and the trigger cannot differ, and nothing
/// in another schema can take an operator's place. It ends with the transaction.
pub const SEARCH_PATH_SQL: &str = "set local search_path = pg_catalog, pg_temp";

/// A query without rows that makes PostgreSQL check the types of `expression`: SQLSTATE 42804
/// if it is not boolean, 42883 for an operator that its types do not have.
pub fn probe_sql(target: &Target, expression: &Expression) -> String {
    let row = |alias: &str| format!("(select * from only {} limit 0) {alias}", table(target));
    let from = match expression.mentions_old() {
        true => format!("{} cross join {}", row("new"), row("old")),
        false => row("new"),
    };
    format!("select ({}) is true from {from}", expression.new_sql())
}

/// A query for the number (int8) of stored rows that match. None for a transition rule: a
/// stored row has no old row.
///
/// It counts all rows of `target`, also those of partitions that have moved away and are not
/// yet cleaned; name one partition in `target` to count only that.
pub fn dry_run_sql(target: &Target, expression: &Expression) -> Option<String> {
    let condition = expression.row_sql()?;
    Some(format!(
        "select pg_catalog.count(*)::int8 from {} r where ({condition}) is true",
        table(target)
    ))
}

/// A query for up to `$1` (int8) keys, as text, of stored rows that match, in no order.
/// None as for [`dry_run_sql`].
pub fn dry_run_sample_sql(target: &Target, expression: &Expression) -> Option<String> {
    let condition = expression.row_sql()?;
    Some(format!(
        "select r.{}::text from {} r where ({condition}) is true limit $1::int8",
        quote::ident(&target.key_column),
        table(target)
    ))
}

/// The schema-qualified, quoted table.
pub(crate) fn table(target: &Target) -> String {
    format!(
        "{}.{}",
        quote::ident(&target.schema),
        quote::ident(&target.table)
    )
}
