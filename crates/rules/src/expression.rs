//! A checked expression: the entry of this crate.

use std::collections::BTreeSet;

use crate::convert::Converter;
use crate::error::RuleError;
use crate::node::Node;
use crate::parse;
use crate::print::{View, print};
use crate::rule::MAX_EXPRESSION_BYTES;

/// An expression that passed [`check`], ready to stand in a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    node: Node,
    new_sql: String,
    old_sql: Option<String>,
    row_sql: Option<String>,
    columns: BTreeSet<String>,
}

/// Parses `expression`, resolves its names against `columns` (exact, as in the catalog) and
/// refuses whatever a rule may not contain. Unquoted names fold to lower case, as PostgreSQL
/// does it; a column without a prefix is the new row's.
///
/// # Errors
/// [`RuleError::Expression`] with the place and what to do.
pub fn check(expression: &str, columns: &[String]) -> Result<Expression, RuleError> {
    check_within(expression, columns, MAX_EXPRESSION_BYTES)
}

/// [`check`] with another bound on the length: what we print is longer than what we read.
pub(crate) fn check_within(
    expression: &str,
    columns: &[String],
    max_bytes: usize,
) -> Result<Expression, RuleError> {
    let checked = parse::parse(expression, max_bytes).and_then(|tree| {
        let mut converter = Converter::new(columns);
        let node = converter.convert(&tree)?;
        Ok((node, converter.used, converter.mentions_old))
    });
    let (node, columns, mentions_old) = checked.map_err(|refusal| refusal.show(expression))?;
    let view = |view| (!mentions_old).then(|| print(&node, view));
    Ok(Expression {
        new_sql: print(&node, View::AsWritten),
        old_sql: view(View::AllOld),
        row_sql: view(View::Alias),
        node,
        columns,
    })
}

impl Expression {
    /// The condition over `new` and `old`, for a trigger: `new."c2" > 9999`.
    pub fn new_sql(&self) -> &str {
        &self.new_sql
    }

    /// The same condition over the old row alone: `old."c2" > 9999`. None if the expression
    /// mentions `old.` itself: then it compares two rows, and has no value for one.
    pub fn old_sql(&self) -> Option<&str> {
        self.old_sql.as_deref()
    }

    /// The same condition over a row named `r`: `r."c2" > 9999`. None as for
    /// [`Expression::old_sql`].
    pub fn row_sql(&self) -> Option<&str> {
        self.row_sql.as_deref()
    }

    /// Whether it is a transition rule: it mentions `old.` and so is tested on updates only.
    pub fn mentions_old(&self) -> bool {
        self.old_sql.is_none()
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The columns it reads, of either row, named as in the catalog.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.columns
    }
}
