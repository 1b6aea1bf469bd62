//! Errors: what was wrong, where in the expression, and what to do.

use std::fmt;

use sqlparser::tokenizer::Span;

/// Widest part of a line shown under an error, in characters.
const SNIPPET_CHARS: usize = 76;

/// Why a rule, or a set of rules, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A field breaks its limits.
    #[error("{field} {problem}")]
    Field {
        /// Name of the field of [`crate::Rule`] or [`crate::Target`].
        field: &'static str,
        /// What is wrong with it, and what to write instead.
        problem: String,
    },
    /// The expression is not one that a rule may have.
    #[error("{0}")]
    Expression(Box<ExpressionError>),
    /// One of a set of rules is wrong.
    #[error("rule {rule:?}: {error}")]
    Rule {
        /// The rule's name.
        rule: String,
        /// What is wrong with it.
        error: Box<RuleError>,
    },
}

impl RuleError {
    pub(crate) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        RuleError::Field {
            field,
            problem: problem.into(),
        }
    }

    pub(crate) fn of_rule(self, rule: &str) -> Self {
        RuleError::Rule {
            rule: rule.to_owned(),
            error: Box::new(self),
        }
    }
}

/// The class of an [`ExpressionError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It does not parse, or it parses in two ways.
    Syntax,
    /// It names a column that the feed does not have.
    UnknownColumn,
    /// It uses something that a rule may not use.
    NotAllowed,
    /// It is too long, too deep, or has too many parts.
    TooLarge,
}

/// An expression was refused.
///
/// Its `Display` is the place, the message, the line with a caret, and the help, on several
/// lines; the parts are public for those who show them differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// The class of the error.
    pub kind: ErrorKind,
    /// Line in the expression, from 1, if known.
    pub line: Option<u64>,
    /// Column in that line, in characters from 1, if known.
    pub column: Option<u64>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line and a second one with a caret under the place, if the place is known.
    pub snippet: Option<String>,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(snippet) = &self.snippet {
            write!(f, "\n{snippet}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ExpressionError {}

/// An error as the checks raise it: the place as a span, without the text.
#[derive(Debug)]
pub(crate) struct Refusal {
    kind: ErrorKind,
    line: u64,
    column: u64,
    message: String,
    help: Option<String>,
}

impl Refusal {
    pub(crate) fn new(kind: ErrorKind, span: Span, message: impl Into<String>) -> Box<Self> {
        Self::at(kind, (span.start.line, span.start.column), message)
    }

    /// Line 0 means that the place is not known.
    pub(crate) fn at(kind: ErrorKind, at: (u64, u64), message: impl Into<String>) -> Box<Self> {
        Box::new(Refusal {
            kind,
            line: at.0,
            column: at.1,
            message: message.into(),
            help: None,
        })
    }

    pub(crate) fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(help.into());
        self
    }

    /// The error for people, with the place shown in `source`.
    pub(crate) fn show(self, source: &str) -> RuleError {
        let known = self.line > 0 && self.column > 0;
        RuleError::Expression(Box::new(ExpressionError {
            kind: self.kind,
            line: known.then_some(self.line),
            column: known.then_some(self.column),
            snippet: if known {
                snippet(source, self.line, self.column)
            } else {
                None
            },
            message: self.message,
            help: self.help,
        }))
    }
}

/// The line of `source` and a caret under `column`; a long line is cut on both sides.
fn snippet(source: &str, line: u64, column: u64) -> Option<String> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let caret = usize::try_from(column).ok()?.checked_sub(1)?;
    let chars: Vec<char> = source
        .split('\n')
        .nth(index)?
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let caret = caret.min(chars.len());
    let start = caret.saturating_sub(SNIPPET_CHARS / 2);
    let end = chars.len().min(start + SNIPPET_CHARS);
    let shown: String = chars.get(start..end)?.iter().collect();
    let (before, after) = (
        if start > 0 { "..." } else { "" },
        if end < chars.len() { "..." } else { "" },
    );
    let indent = " ".repeat(before.len() + caret - start);
    Some(format!("  {before}{shown}{after}\n  {indent}^"))
}
