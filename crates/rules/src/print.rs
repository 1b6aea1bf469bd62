//! Prints a checked tree as SQL. Every operand that is not a single item gets parentheses, so
//! that the meaning does not hang on anybody's table of operator precedence; only chains of
//! one class (`a and b and c`, `a + b - c`) go without, as everybody reads them left to right.

use crate::functions;
use crate::node::{Node, Pattern, Row};
use crate::quote;

/// What stands in front of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// `new."x"` and `old."x"`, as in the rule.
    AsWritten,
    /// `old."x"` for all.
    AllOld,
    /// `r."x"` for all.
    Alias,
}

/// The SQL of `node`, with its columns seen through `view`.
pub(crate) fn print(node: &Node, view: View) -> String {
    let mut printer = Printer {
        out: String::new(),
        view,
    };
    printer.node(node);
    printer.out
}

/// A column seen through `view`.
pub(crate) fn column(view: View, row: Row, name: &str) -> String {
    let row = match (view, row) {
        (View::AsWritten, Row::New) => "new",
        (View::AsWritten, Row::Old) | (View::AllOld, _) => "old",
        (View::Alias, _) => "r",
    };
    format!("{row}.{}", quote::ident(name))
}

struct Printer {
    out: String,
    view: View,
}

impl Printer {
    fn text(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn operand(&mut self, node: &Node) {
        match node.is_compound() {
            true => {
                self.text("(");
                self.node(node);
                self.text(")");
            }
            false => self.node(node),
        }
    }

    fn list(&mut self, nodes: &[Node]) {
        for (i, node) in nodes.iter().enumerate() {
            if i > 0 {
                self.text(", ");
            }
            self.node(node);
        }
    }

    fn not(&mut self, negated: bool) {
        self.text(if negated { " not " } else { " " });
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Column { row, name } => self.text(&column(self.view, *row, name)),
            Node::Number(digits) => self.text(digits),
            Node::Text(text) => self.text(&quote::literal(text)),
            Node::Bool(true) => self.text("true"),
            Node::Bool(false) => self.text("false"),
            Node::Null => self.text("null"),
            Node::Binary { op, left, right } => {
                match &**left {
                    Node::Binary { op: inner, .. }
                        if inner.class == op.class && op.class.chains() =>
                    {
                        self.node(left);
                    }
                    _ => self.operand(left),
                }
                self.text(&format!(" {} ", op.sql));
                self.operand(right);
            }
            Node::Prefix { op, of } => {
                self.text(op);
                self.text(" ");
                self.operand(of);
            }
            Node::Is { test, of } => {
                self.operand(of);
                self.text(" is ");
                self.text(test);
            }
            Node::Distinct {
                negated,
                left,
                right,
            } => {
                self.operand(left);
                self.text(" is");
                self.not(*negated);
                self.text("distinct from ");
                self.operand(right);
            }
            Node::InList { negated, of, list } => {
                self.operand(of);
                self.not(*negated);
                self.text("in (");
                self.list(list);
                self.text(")");
            }
            Node::Between {
                negated,
                of,
                low,
                high,
            } => {
                self.operand(of);
                self.not(*negated);
                self.text("between ");
                self.operand(low);
                self.text(" and ");
                self.operand(high);
            }
            Node::Like {
                negated,
                kind,
                of,
                pattern,
                escape,
            } => {
                self.operand(of);
                self.not(*negated);
                self.text(match kind {
                    Pattern::Like => "like ",
                    Pattern::Ilike => "ilike ",
                    Pattern::SimilarTo => "similar to ",
                });
                self.operand(pattern);
                if let Some(escape) = escape {
                    self.text(" escape ");
                    self.text(&quote::literal(escape));
                }
            }
            Node::Quantified {
                op,
                all,
                left,
                array,
            } => {
                self.operand(left);
                self.text(&format!(" {} ", op.sql));
                self.text(if *all { "all (" } else { "any (" });
                self.operand(array);
                self.text(")");
            }
            Node::Cast { of, to } => {
                self.text("cast(");
                self.node(of);
                self.text(" as ");
                self.text(to);
                self.text(")");
            }
            Node::Case {
                operand,
                arms,
                otherwise,
            } => {
                self.text("case");
                if let Some(operand) = operand {
                    self.text(" ");
                    self.operand(operand);
                }
                for (when, then) in arms {
                    self.text(" when ");
                    self.node(when);
                    self.text(" then ");
                    self.node(then);
                }
                if let Some(otherwise) = otherwise {
                    self.text(" else ");
                    self.node(otherwise);
                }
                self.text(" end");
            }
            Node::Call { name, args } => {
                if !functions::is_syntax(name) {
                    self.text("pg_catalog.");
                }
                self.text(name);
                self.text("(");
                self.list(args);
                self.text(")");
            }
            Node::Extract { field, of } => {
                self.text("extract(");
                self.text(field);
                self.text(" from ");
                self.node(of);
                self.text(")");
            }
            Node::Array(items) => {
                self.text("array[");
                self.list(items);
                self.text("]");
            }
            Node::Subscript { of, indexes } => {
                match &**of {
                    Node::Column { .. } => self.node(of),
                    _ => {
                        self.text("(");
                        self.node(of);
                        self.text(")");
                    }
                }
                for index in indexes {
                    self.text("[");
                    self.node(index);
                    self.text("]");
                }
            }
        }
    }
}
