//! Whether a condition can have become true only by a change that a comparison of columns sees.
//!
//! Values that PostgreSQL calls equal are not always the same: `1.0` and `1.00`, `0` and `-0`.
//! Where a condition could tell such two apart (`c::text = '1.0'`, or a quotient, whose digits
//! depend on those of its operands), equal columns do not mean an equal result.

use crate::column::ColumnKind;
use crate::node::{Class, Node};

/// Functions whose results are equal for equal arguments.
const BY_VALUE: [&str; 10] = [
    "abs", "ceil", "ceiling", "coalesce", "floor", "greatest", "least", "nullif", "round", "sign",
];

/// What of a part of the condition matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Its value only: equal ones make no difference.
    Value,
    /// Everything.
    Image,
}

/// Whether the condition has the same value for two rows whose columns are equal, one by one.
pub(crate) fn is_seen_in_columns(node: &Node, kind: &impl Fn(&str) -> ColumnKind) -> bool {
    seen(node, Use::Value, kind)
}

fn seen(node: &Node, used: Use, kind: &impl Fn(&str) -> ColumnKind) -> bool {
    let all = |nodes: &[&Node], used: Use| nodes.iter().all(|node| seen(node, used, kind));
    match node {
        Node::Column { name, .. } => match kind(name) {
            ColumnKind::Other => false,
            ColumnKind::Float | ColumnKind::Numeric { fixed: false } => used == Use::Value,
            _ => true,
        },
        Node::Number(_) | Node::Text(_) | Node::Bool(_) | Node::Null => true,
        Node::Binary { op, left, right } => match (op.class, op.sql) {
            (Class::Or | Class::And | Class::Compare, _) => all(&[left, right], Use::Value),
            (Class::Sum, _) | (_, "*") => all(&[left, right], used),
            _ => all(&[left, right], Use::Image),
        },
        Node::Prefix { of, .. } => seen(of, used, kind),
        Node::Is { of, .. } => seen(of, Use::Value, kind),
        Node::Distinct { left, right, .. } => all(&[left, right], Use::Value),
        Node::InList { of, list, .. } => {
            seen(of, Use::Value, kind) && list.iter().all(|node| seen(node, Use::Value, kind))
        }
        Node::Between { of, low, high, .. } => all(&[of, low, high], Use::Value),
        Node::Case {
            operand,
            arms,
            otherwise,
        } => {
            let parts = operand.iter().map(|node| (&**node, Use::Value));
            let arms = arms
                .iter()
                .flat_map(|(when, then)| [(when, Use::Value), (then, used)]);
            let otherwise = otherwise.iter().map(|node| (&**node, used));
            let mut parts = parts.chain(arms).chain(otherwise);
            parts.all(|(node, used)| seen(node, used, kind))
        }
        Node::Call { name, args } => {
            let used = if BY_VALUE.contains(name) {
                used
            } else {
                Use::Image
            };
            args.iter().all(|node| seen(node, used, kind))
        }
        Node::Like { of, pattern, .. } => all(&[of, pattern], Use::Image),
        Node::Quantified { left, array, .. } => all(&[left, array], Use::Image),
        Node::Cast { of, .. } | Node::Extract { of, .. } => seen(of, Use::Image, kind),
        Node::Array(items) => items.iter().all(|node| seen(node, Use::Image, kind)),
        Node::Subscript { of, indexes } => {
            seen(of, Use::Image, kind) && indexes.iter().all(|node| seen(node, Use::Image, kind))
        }
    }
}
