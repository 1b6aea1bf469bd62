//! Tests of one column that a row must pass, or a condition is not true of it.
//!
//! Conditions of many rules that need a test of the same column are looked at only if the row
//! passes the widest of these tests: the least of the bounds, all of the values.

use std::collections::{BTreeMap, BTreeSet};

use crate::column::ColumnKind;
use crate::decimal::Decimal;
use crate::node::{Class, Node, Op, Row};
use crate::print::{View, column};
use crate::quote;

/// What kind of test of what column. Tests of one place can be widened to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    row: Row,
    column: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Equal to one of the values.
    OneOf(Array),
    /// Each operator by itself: whether `> 1` or `>= 1` is wider is clear for numbers, but not
    /// for what PostgreSQL makes of two constants in a column of floats.
    Beyond(Bound),
    Null,
}

/// Type of the array that holds the values: the column's own, for only then PostgreSQL hashes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Array {
    Int2,
    Int4,
    Int8,
    Numeric,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bound {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// What is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Against {
    Values(BTreeSet<Value>),
    Bound(Decimal),
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Number(Decimal),
    Text(String),
}

/// All tests that are known to be needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) tests: BTreeMap<Place, Against>,
    /// There is one test, and the condition is true if and only if the row passes it.
    pub(crate) exact: bool,
}

impl Needs {
    /// Of a condition. Never raises an error that the condition itself would not.
    pub(crate) fn of(node: &Node, kind: &impl Fn(&str) -> ColumnKind) -> Needs {
        match node {
            Node::Binary { op, left, right } => match op.class {
                Class::And => Needs::of(left, kind).and(Needs::of(right, kind)),
                Class::Or => Needs::of(left, kind).or(Needs::of(right, kind)),
                Class::Compare => compare(*op, left, right, kind),
                _ => Needs::default(),
            },
            Node::Is { test: "true", of } => Needs::of(of, kind),
            Node::Is { test: "null", of } => match &**of {
                Node::Column { row, name } => one(*row, name, Kind::Null, Against::Nothing),
                _ => Needs::default(),
            },
            Node::InList {
                negated: false,
                of,
                list,
            } => {
                let equal = |value| compare(EQUAL, of, value, kind);
                let all = list.iter().map(equal);
                all.reduce(Needs::or).unwrap_or_default()
            }
            Node::Between {
                negated: false,
                of,
                low,
                high,
            } => compare(AT_LEAST, of, low, kind).and(compare(AT_MOST, of, high, kind)),
            _ => Needs::default(),
        }
    }

    /// Of a condition that is true if both are.
    fn and(mut self, other: Needs) -> Needs {
        for (place, against) in other.tests {
            self.tests.entry(place).or_insert(against);
        }
        self.exact = false;
        self
    }

    /// Of a condition that is true if one of two is.
    fn or(self, mut other: Needs) -> Needs {
        let exact = self.exact && other.exact;
        let tests: BTreeMap<_, _> = self
            .tests
            .into_iter()
            .filter_map(|(place, against)| {
                let wider = place.widened(against, other.tests.remove(&place)?);
                Some((place, wider))
            })
            .collect();
        let exact = exact && tests.len() == 1;
        Needs { tests, exact }
    }
}

const EQUAL: Op = Op {
    sql: "=",
    class: Class::Compare,
};
const AT_LEAST: Op = Op { sql: ">=", ..EQUAL };
const AT_MOST: Op = Op { sql: "<=", ..EQUAL };

fn one(row: Row, column: &str, kind: Kind, against: Against) -> Needs {
    let place = Place {
        row,
        column: column.to_owned(),
        kind,
    };
    Needs {
        tests: BTreeMap::from([(place, against)]),
        exact: true,
    }
}

/// `column op constant`, or the other way round.
fn compare(op: Op, left: &Node, right: &Node, kind: &impl Fn(&str) -> ColumnKind) -> Needs {
    let mirrored = match op.sql {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        same => same,
    };
    match (left, right) {
        (Node::Column { row, name }, constant) => with_constant(*row, name, op.sql, constant, kind),
        (constant, Node::Column { row, name }) => {
            with_constant(*row, name, mirrored, constant, kind)
        }
        _ => Needs::default(),
    }
}

fn with_constant(
    row: Row,
    name: &str,
    op: &str,
    constant: &Node,
    kind: &impl Fn(&str) -> ColumnKind,
) -> Needs {
    let bound = match op {
        "=" => None,
        ">" => Some(Bound::Above),
        ">=" => Some(Bound::AtLeast),
        "<" => Some(Bound::Below),
        "<=" => Some(Bound::AtMost),
        _ => return Needs::default(),
    };
    let found = match (constant, bound) {
        (Node::Number(digits), Some(bound)) if kind(name).is_number() => {
            Decimal::parse(digits).map(|bound_at| (Kind::Beyond(bound), Against::Bound(bound_at)))
        }
        (Node::Number(digits), None) => Decimal::parse(digits).and_then(|number| {
            let array = number_array(kind(name), &number)?;
            Some((Kind::OneOf(array), values(Value::Number(number))))
        }),
        (Node::Text(text), None) if kind(name) == ColumnKind::Text => {
            let value = Value::Text(text.clone());
            Some((Kind::OneOf(Array::Text), values(value)))
        }
        _ => None,
    };
    found.map_or_else(Needs::default, |(kind, against)| {
        one(row, name, kind, against)
    })
}

fn values(value: Value) -> Against {
    Against::Values(BTreeSet::from([value]))
}

/// The type in which `number` can stand in an array beside others. None if it cannot: a fraction
/// for a column of whole numbers, say, or floats, whose comparisons depend on the constant's type.
fn number_array(kind: ColumnKind, number: &Decimal) -> Option<Array> {
    let whole = number.whole();
    match kind {
        ColumnKind::Int2 => whole
            .and_then(|n| i16::try_from(n).ok())
            .map(|_| Array::Int2),
        ColumnKind::Int4 => whole
            .and_then(|n| i32::try_from(n).ok())
            .map(|_| Array::Int4),
        ColumnKind::Int8 => whole.map(|_| Array::Int8),
        ColumnKind::Numeric { .. } => Some(Array::Numeric),
        _ => None,
    }
}

impl Place {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Passed by whatever passes one of the two.
    pub(crate) fn widened(&self, a: Against, b: Against) -> Against {
        match (a, b) {
            (Against::Values(mut a), Against::Values(b)) => {
                a.extend(b);
                Against::Values(a)
            }
            (Against::Bound(a), Against::Bound(b)) => Against::Bound(match self.kind {
                Kind::Beyond(Bound::Above | Bound::AtLeast) => a.min(b),
                _ => a.max(b),
            }),
            _ => Against::Nothing,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.column
    }

    /// The column as SQL.
    pub(crate) fn column(&self, view: View) -> String {
        column(view, self.row, &self.column)
    }

    /// The test as SQL: true, false, or null.
    pub(crate) fn sql(&self, against: &Against, view: View) -> String {
        let column = self.column(view);
        match (self.kind, against) {
            (Kind::Beyond(bound), Against::Bound(at)) => {
                let op = match bound {
                    Bound::Above => ">",
                    Bound::AtLeast => ">=",
                    Bound::Below => "<",
                    Bound::AtMost => "<=",
                };
                format!("{column} {op} {at}")
            }
            (Kind::OneOf(array), Against::Values(values)) => {
                let single = values.iter().next().filter(|_| values.len() == 1);
                match single {
                    Some(Value::Number(number)) => format!("{column} = {number}"),
                    Some(Value::Text(text)) => format!("{column} = {}", quote::literal(text)),
                    None => format!("{column} = any ({})", array.sql(values)),
                }
            }
            _ => format!("{column} is null"),
        }
    }
}

impl Array {
    fn sql(self, values: &BTreeSet<Value>) -> String {
        let values: Vec<String> = values
            .iter()
            .map(|value| match value {
                Value::Number(number) => number.to_string(),
                Value::Text(text) => {
                    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("\"{text}\"")
                }
            })
            .collect();
        let name = match self {
            Array::Int2 => "int2",
            Array::Int4 => "int4",
            Array::Int8 => "int8",
            Array::Numeric => "numeric",
            Array::Text => "text",
        };
        let text = quote::literal(&format!("{{{}}}", values.join(",")));
        format!("{text}::pg_catalog.{name}[]")
    }
}
