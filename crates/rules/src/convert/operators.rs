//! Infix operators: which are allowed, and where the parser's order is not PostgreSQL's.

use sqlparser::ast::{BinaryOperator, Expr, Spanned};
use sqlparser::tokenizer::Span;

use super::{Checked, Converter};
use crate::error::{ErrorKind, Refusal};
use crate::literals;
use crate::node::{Class, Node, Op};

/// What an operand is, if it stands there without parentheses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    Infix(Class),
    /// `like`, `in`, `between`.
    Range,
    Else,
}

impl Converter<'_> {
    /// A chain of infix operators, from the left. A loop, because `a and b and ...` may be
    /// as long as the expression, and must not be as deep in our stack.
    pub(super) fn chain(&mut self, whole: &Expr, below: u32) -> Checked<Node> {
        let mut links = Vec::new();
        let mut first = whole;
        while let Expr::BinaryOp { left, op, right } = first {
            let checked = allowed(op, right.span())?;
            unambiguous(checked, left, Some(right))?;
            links.push((checked, &**right));
            first = left;
        }
        let mut node = self.node(first, below)?;
        for (op, right) in links.into_iter().rev() {
            self.count()?;
            let span = right.span();
            let mut right = self.node(right, below)?;
            if matches!(op.sql, "/" | "%") {
                right = guard(right, span)?;
            }
            node = Node::Binary {
                op,
                left: Box::new(node),
                right: Box::new(right),
            };
        }
        Ok(node)
    }

    /// `left op any (array)` and `all`.
    pub(super) fn quantified(
        &mut self,
        all: bool,
        left: &Expr,
        op: &BinaryOperator,
        array: &Expr,
        below: u32,
    ) -> Checked<Node> {
        let op = allowed(op, left.span())?;
        unambiguous(op, left, None)?;
        Ok(Node::Quantified {
            op,
            all,
            left: self.boxed(left, below)?,
            array: self.boxed(array, below)?,
        })
    }
}

/// A divisor that cannot be zero: null instead, so that the condition is null and the write
/// goes on.
pub(super) fn guard(divisor: Node, span: Span) -> Checked<Node> {
    let refuse = |message: &str, help: &str| {
        Err(Refusal::new(ErrorKind::NotAllowed, span, message).help(help))
    };
    match literals::nonzero(&divisor) {
        Some(true) => return Ok(divisor),
        Some(false) => return refuse("this divides by zero", "divide by something else"),
        None => {}
    }
    match &divisor {
        Node::Text(_) => refuse("the divisor is a string", "write the number without quotes"),
        Node::Call {
            name: "nullif",
            args,
        } if args.get(1).is_some_and(is_zero) => Ok(divisor),
        _ => Ok(Node::Call {
            name: "nullif",
            args: vec![divisor, Node::Number("0".to_owned())],
        }),
    }
}

fn is_zero(node: &Node) -> bool {
    matches!(node, Node::Number(digits) if digits == "0")
}

fn allowed(op: &BinaryOperator, near: Span) -> Checked<Op> {
    operator(op).ok_or_else(|| {
        let message = format!("the operator {op} is not allowed in a rule");
        let help = match op {
            BinaryOperator::PGExp => "write power(a, b)",
            BinaryOperator::PGLikeMatch | BinaryOperator::PGNotLikeMatch => "write like",
            BinaryOperator::PGILikeMatch | BinaryOperator::PGNotILikeMatch => "write ilike",
            _ => {
                "the operators are: and or not = <> < <= > >= + - * / % || ~ ~* !~ !~* \
                 -> ->> #> #>> @> <@ ? ?| ?& &&; put a space between two operators"
            }
        };
        Refusal::new(ErrorKind::NotAllowed, near, message).help(help)
    })
}

fn operator(op: &BinaryOperator) -> Option<Op> {
    let (sql, class) = match op {
        BinaryOperator::Or => ("or", Class::Or),
        BinaryOperator::And => ("and", Class::And),
        BinaryOperator::Eq => ("=", Class::Compare),
        BinaryOperator::NotEq => ("<>", Class::Compare),
        BinaryOperator::Lt => ("<", Class::Compare),
        BinaryOperator::LtEq => ("<=", Class::Compare),
        BinaryOperator::Gt => (">", Class::Compare),
        BinaryOperator::GtEq => (">=", Class::Compare),
        BinaryOperator::PGRegexMatch => ("~", Class::Match),
        BinaryOperator::PGRegexIMatch => ("~*", Class::Match),
        BinaryOperator::PGRegexNotMatch => ("!~", Class::Match),
        BinaryOperator::PGRegexNotIMatch => ("!~*", Class::Match),
        BinaryOperator::StringConcat => ("||", Class::Other),
        BinaryOperator::Arrow => ("->", Class::Other),
        BinaryOperator::LongArrow => ("->>", Class::Other),
        BinaryOperator::HashArrow => ("#>", Class::Other),
        BinaryOperator::HashLongArrow => ("#>>", Class::Other),
        BinaryOperator::AtArrow => ("@>", Class::Other),
        BinaryOperator::ArrowAt => ("<@", Class::Other),
        BinaryOperator::Question => ("?", Class::Other),
        BinaryOperator::QuestionPipe => ("?|", Class::Other),
        BinaryOperator::QuestionAnd => ("?&", Class::Other),
        BinaryOperator::PGOverlap => ("&&", Class::Other),
        BinaryOperator::Plus => ("+", Class::Sum),
        BinaryOperator::Minus => ("-", Class::Sum),
        BinaryOperator::Multiply => ("*", Class::Product),
        BinaryOperator::Divide => ("/", Class::Product),
        BinaryOperator::Modulo => ("%", Class::Product),
        _ => return None,
    };
    Some(Op { sql, class })
}

fn bare(expr: &Expr) -> Bare {
    match expr {
        Expr::BinaryOp { op, .. }
        | Expr::AnyOp { compare_op: op, .. }
        | Expr::AllOp { compare_op: op, .. } => {
            operator(op).map_or(Bare::Else, |op| Bare::Infix(op.class))
        }
        Expr::Like { .. }
        | Expr::ILike { .. }
        | Expr::SimilarTo { .. }
        | Expr::InList { .. }
        | Expr::Between { .. } => Bare::Range,
        _ => Bare::Else,
    }
}

/// Refuses `a < b < c`, which PostgreSQL refuses, and the places where `~` would bind more
/// loosely in the parser than in PostgreSQL: there it binds like `||`, here like `=`.
fn unambiguous(op: Op, left: &Expr, right: Option<&Expr>) -> Checked<()> {
    let (before, after) = (bare(left), right.map_or(Bare::Else, bare));
    let clash = match op.class {
        Class::Compare => {
            before == Bare::Infix(Class::Compare) || after == Bare::Infix(Class::Compare)
        }
        Class::Match => {
            matches!(
                before,
                Bare::Range | Bare::Infix(Class::Compare | Class::Match)
            ) || matches!(after, Bare::Range | Bare::Infix(Class::Other))
        }
        _ => false,
    };
    if !clash {
        return Ok(());
    }
    let message = format!("it is not clear what {} applies to here", op.sql);
    Err(Refusal::new(ErrorKind::Syntax, left.span(), message)
        .help("put parentheses around the part that is meant"))
}
