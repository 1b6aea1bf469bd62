//! sqlparser's tree to ours: whatever has no case here is refused.

mod calls;
mod names;
mod operators;

use std::collections::BTreeSet;

use sqlparser::ast::{
    AccessExpr, CastKind, DataType, Expr, Ident, Spanned, Subscript, UnaryOperator, Value,
};
use sqlparser::tokenizer::Span;

use crate::error::{ErrorKind, Refusal};
use crate::literals;
use crate::node::{Node, Pattern};
use crate::types;

/// Deepest nesting of a checked tree. Chains like `a and b and c` count once.
const MAX_DEPTH: u32 = 20;
/// Most nodes of a checked tree.
const MAX_NODES: usize = 1600;

type Checked<T> = Result<T, Box<Refusal>>;

/// Converts one expression and gathers what it mentions.
pub(crate) struct Converter<'a> {
    columns: &'a [String],
    nodes: usize,
    /// The columns seen so far.
    pub used: BTreeSet<String>,
    /// Whether one of them was the old row's.
    pub mentions_old: bool,
}

impl<'a> Converter<'a> {
    /// For a row with these columns.
    pub(crate) fn new(columns: &'a [String]) -> Self {
        Converter {
            columns,
            nodes: 0,
            used: BTreeSet::new(),
            mentions_old: false,
        }
    }

    /// The checked tree of a whole expression.
    pub(crate) fn convert(&mut self, expr: &Expr) -> Checked<Node> {
        self.node(expr, 0)
    }

    fn boxed(&mut self, expr: &Expr, depth: u32) -> Checked<Box<Node>> {
        self.node(expr, depth).map(Box::new)
    }

    fn nodes(&mut self, exprs: &[Expr], depth: u32) -> Checked<Vec<Node>> {
        exprs.iter().map(|e| self.node(e, depth)).collect()
    }

    fn count(&mut self) -> Checked<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the expression has more than {MAX_NODES} parts");
            return Err(Refusal::at(ErrorKind::TooLarge, (0, 0), message)
                .help("split it into several rules on one channel"));
        }
        Ok(())
    }

    /// `depth` is that of `expr` itself.
    fn node(&mut self, expr: &Expr, depth: u32) -> Checked<Node> {
        let expr = unwrap_parentheses(expr);
        self.count()?;
        if depth > MAX_DEPTH {
            let message = format!("the expression is nested more than {MAX_DEPTH} levels deep");
            return Err(Refusal::new(ErrorKind::TooLarge, expr.span(), message)
                .help("nest less, or split it into several rules"));
        }
        let below = depth + 1;
        let is = |test: &'static str, of: Box<Node>| Ok(Node::Is { test, of });
        match expr {
            Expr::Identifier(ident) => self.column(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(path) => self.column(path),
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.subscript(expr, root, access_chain, below)
            }
            Expr::Value(value) => literals::value(value),
            Expr::TypedString(typed) => {
                let text = literals::text(&typed.value.value);
                self.typed(&typed.data_type, text, typed.value.span)
            }
            Expr::Interval(interval) => Ok(Node::Cast {
                of: Box::new(Node::Text(literals::interval(interval)?)),
                to: "interval".to_owned(),
            }),
            Expr::BinaryOp { .. } => self.chain(expr, below),
            Expr::UnaryOp { op, expr: of } => self.prefix(*op, of, below),
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => self.quantified(false, left, compare_op, right, below),
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => self.quantified(true, left, compare_op, right, below),
            Expr::IsNull(of) => is("null", self.boxed(of, below)?),
            Expr::IsNotNull(of) => is("not null", self.boxed(of, below)?),
            Expr::IsTrue(of) => is("true", self.boxed(of, below)?),
            Expr::IsNotTrue(of) => is("not true", self.boxed(of, below)?),
            Expr::IsFalse(of) => is("false", self.boxed(of, below)?),
            Expr::IsNotFalse(of) => is("not false", self.boxed(of, below)?),
            Expr::IsUnknown(of) => is("unknown", self.boxed(of, below)?),
            Expr::IsNotUnknown(of) => is("not unknown", self.boxed(of, below)?),
            Expr::IsDistinctFrom(left, right) => self.distinct(false, left, right, below),
            Expr::IsNotDistinctFrom(left, right) => self.distinct(true, left, right, below),
            Expr::InList {
                expr: of,
                list,
                negated,
            } => Ok(Node::InList {
                negated: *negated,
                of: self.boxed(of, below)?,
                list: self.nodes(list, below)?,
            }),
            Expr::Between {
                expr: of,
                negated,
                low,
                high,
            } => Ok(Node::Between {
                negated: *negated,
                of: self.boxed(of, below)?,
                low: self.boxed(low, below)?,
                high: self.boxed(high, below)?,
            }),
            Expr::Like {
                negated,
                any: false,
                expr: of,
                pattern,
                escape_char,
            } => self.like(Pattern::Like, *negated, [of, pattern], escape_char, below),
            Expr::ILike {
                negated,
                any: false,
                expr: of,
                pattern,
                escape_char,
            } => self.like(Pattern::Ilike, *negated, [of, pattern], escape_char, below),
            Expr::SimilarTo {
                negated,
                expr: of,
                pattern,
                escape_char,
            } => self.like(
                Pattern::SimilarTo,
                *negated,
                [of, pattern],
                escape_char,
                below,
            ),
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr: of,
                data_type,
                format: None,
            } => self.cast(of, data_type, below),
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                let operand = match operand {
                    Some(operand) => Some(self.boxed(operand, below)?),
                    None => None,
                };
                let mut arms = Vec::with_capacity(conditions.len());
                for arm in conditions {
                    let when = self.node(&arm.condition, below)?;
                    arms.push((when, self.node(&arm.result, below)?));
                }
                let otherwise = match else_result {
                    Some(otherwise) => Some(self.boxed(otherwise, below)?),
                    None => None,
                };
                Ok(Node::Case {
                    operand,
                    arms,
                    otherwise,
                })
            }
            Expr::Array(array) => Ok(Node::Array(self.nodes(&array.elem, below)?)),
            other => self.call(other, below),
        }
    }

    fn distinct(&mut self, not: bool, left: &Expr, right: &Expr, below: u32) -> Checked<Node> {
        Ok(Node::Distinct {
            negated: not,
            left: self.boxed(left, below)?,
            right: self.boxed(right, below)?,
        })
    }

    fn like(
        &mut self,
        kind: Pattern,
        negated: bool,
        [of, pattern]: [&Expr; 2],
        escape: &Option<Box<Expr>>,
        below: u32,
    ) -> Checked<Node> {
        let escape = match escape.as_deref().map(|e| (e, unwrap_parentheses(e))) {
            None => None,
            Some((_, Expr::Value(v))) if one_character(&v.value) => {
                literals::text(&v.value).map(str::to_owned)
            }
            Some((escape, _)) => {
                let message = "the escape is not one character in single quotes";
                return Err(Refusal::new(ErrorKind::NotAllowed, escape.span(), message)
                    .help("write it like: escape '!'"));
            }
        };
        Ok(Node::Like {
            negated,
            kind,
            of: self.boxed(of, below)?,
            pattern: self.boxed(pattern, below)?,
            escape,
        })
    }

    fn cast(&mut self, of: &Expr, to: &DataType, below: u32) -> Checked<Node> {
        if let Expr::Value(v) = unwrap_parentheses(of)
            && let Some(text) = literals::text(&v.value)
        {
            return self.typed(to, Some(text), v.span);
        }
        let to = type_name(to, of.span())?;
        let of = self.boxed(of, below)?;
        Ok(Node::Cast { of, to })
    }

    /// A constant of a named type.
    fn typed(&mut self, to: &DataType, text: Option<&str>, span: Span) -> Checked<Node> {
        self.count()?;
        let to = type_name(to, span)?;
        let Some(text) = text.filter(|text| !text.contains('\0')) else {
            let message = format!("a constant of type {to} must be a string without NUL");
            return Err(Refusal::new(ErrorKind::NotAllowed, span, message)
                .help("put the value in single quotes"));
        };
        if types::is_temporal(&to)
            && let Some(word) = literals::moving_time(text)
        {
            let message = format!("'{word}' would mean the time when the rule was stored");
            return Err(Refusal::new(ErrorKind::NotAllowed, span, message)
                .help("compare two columns, or write the date itself"));
        }
        Ok(Node::Cast {
            of: Box::new(Node::Text(text.to_owned())),
            to,
        })
    }

    fn prefix(&mut self, op: UnaryOperator, of: &Expr, below: u32) -> Checked<Node> {
        let op = match op {
            UnaryOperator::Not => "not",
            UnaryOperator::Minus => "-",
            UnaryOperator::Plus => "+",
            other => {
                let message = format!("the operator {other} is not allowed in a rule");
                return Err(Refusal::new(ErrorKind::NotAllowed, of.span(), message)
                    .help("before a value only not, - and + are allowed"));
            }
        };
        Ok(match (op, self.boxed(of, below)?) {
            ("-", of) if matches!(&*of, Node::Number(digits) if !digits.starts_with('-')) => {
                match *of {
                    Node::Number(digits) => Node::Number(format!("-{digits}")),
                    other => other,
                }
            }
            (op, of) => Node::Prefix { op, of },
        })
    }

    /// `x[1]`, `new.x[1]['a']`.
    fn subscript(
        &mut self,
        whole: &Expr,
        root: &Expr,
        chain: &[AccessExpr],
        below: u32,
    ) -> Checked<Node> {
        let mut path: Vec<Ident> = match root {
            Expr::Identifier(ident) => vec![ident.clone()],
            Expr::CompoundIdentifier(path) => path.clone(),
            _ => Vec::new(),
        };
        let mut indexes = Vec::new();
        for access in chain {
            match access {
                AccessExpr::Dot(Expr::Identifier(ident))
                    if indexes.is_empty() && !path.is_empty() =>
                {
                    path.push(ident.clone());
                }
                AccessExpr::Subscript(Subscript::Index { index }) => {
                    indexes.push(self.node(index, below)?);
                }
                _ => {
                    let message = "this access to a part of a value is not allowed in a rule";
                    return Err(Refusal::new(ErrorKind::NotAllowed, whole.span(), message)
                        .help("use one element, x[1], or a json operator, x ->> 'a'"));
                }
            }
        }
        let of = match path.is_empty() {
            true => self.node(root, below)?,
            false => self.column(&path)?,
        };
        Ok(match indexes.is_empty() {
            true => of,
            false => Node::Subscript {
                of: Box::new(of),
                indexes,
            },
        })
    }
}

/// The tree has its own order, so parentheses say nothing more in it.
fn unwrap_parentheses(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

fn one_character(value: &Value) -> bool {
    literals::text(value).is_some_and(|text| text != "\0" && text.chars().count() == 1)
}

fn type_name(of: &DataType, span: Span) -> Checked<String> {
    types::canonical(of).ok_or_else(|| {
        let message = format!("the type {of} is not allowed in a rule");
        let allowed = types::allowed_types().join(", ");
        Refusal::new(ErrorKind::NotAllowed, span, message)
            .help(format!("the types are: {allowed}; and arrays of them"))
    })
}
