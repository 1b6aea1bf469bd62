//! Pure rules: expression to checked syntax tree to trigger SQL.
//!
//! A rule is a SQL boolean expression over the merged row of a feed. [`check`] parses one,
//! allows only what a trigger may safely evaluate (columns, literals, operators, immutable
//! functions of `pg_catalog`), and prints it again with every column qualified and quoted.
//! [`trigger_ddl`] turns a feed's rules into the statements that install them.
//!
//! Nothing here talks to PostgreSQL. Names are resolved here; types are PostgreSQL's business:
//! run [`probe_sql`] before a rule is stored. Two things stay the author's own risk, because
//! only the row decides them: a cast or a function that fails on some values (`'x'::int`,
//! an integer overflow) makes PostgreSQL refuse that write. Division by zero never does.

mod change;
mod column;
mod convert;
mod decimal;
mod error;
mod expression;
mod functions;
mod literals;
mod needs;
mod node;
mod parse;
mod print;
mod query;
mod quote;
mod rule;
mod steps;
mod suggest;
mod trigger;
mod types;

#[cfg(test)]
mod tests;

pub use column::{Column, ColumnKind};
pub use error::{ErrorKind, ExpressionError, RuleError};
pub use expression::{Expression, check};
pub use functions::allowed_functions;
pub use query::{SEARCH_PATH_SQL, dry_run_sample_sql, dry_run_sql, probe_sql};
pub use rule::{Mode, Rule, StoredRule, Target};
pub use trigger::{
    DELETE_TRIGGER, INSERT_TRIGGER, TRIGGER_TEXT, UPDATE_TRIGGER, function_name, trigger_ddl,
};
pub use types::allowed_types;
