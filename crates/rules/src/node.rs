//! The checked tree: only what a rule may contain can be written down in it.

/// A row that a column belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    New,
    Old,
}

/// How an infix operator combines without parentheses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Or,
    And,
    /// `=`, `<` ...: does not chain.
    Compare,
    /// `~` and its kin: PostgreSQL and the parser disagree on how tightly they bind.
    Match,
    /// `||`, `->` ...: PostgreSQL's "any other operator".
    Other,
    Sum,
    Product,
}

impl Class {
    /// Whether `a op b op c` is `(a op b) op c` for PostgreSQL and for the parser.
    pub(crate) fn chains(self) -> bool {
        !matches!(self, Class::Compare | Class::Match)
    }
}

/// An infix operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op {
    pub sql: &'static str,
    pub class: Class,
}

/// `like` and its kin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    Like,
    Ilike,
    SimilarTo,
}

/// A node of the checked tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Column {
        row: Row,
        name: String,
    },
    /// Digits as written, perhaps with a sign in front.
    Number(String),
    /// The text without quotes and escapes.
    Text(String),
    Bool(bool),
    Null,
    Binary {
        op: Op,
        left: Box<Node>,
        right: Box<Node>,
    },
    /// `not`, `-` or `+`.
    Prefix {
        op: &'static str,
        of: Box<Node>,
    },
    /// `is null`, `is not true` ...
    Is {
        test: &'static str,
        of: Box<Node>,
    },
    Distinct {
        negated: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
    InList {
        negated: bool,
        of: Box<Node>,
        list: Vec<Node>,
    },
    Between {
        negated: bool,
        of: Box<Node>,
        low: Box<Node>,
        high: Box<Node>,
    },
    Like {
        negated: bool,
        kind: Pattern,
        of: Box<Node>,
        pattern: Box<Node>,
        escape: Option<String>,
    },
    /// `left op any (array)` or `all`.
    Quantified {
        op: Op,
        all: bool,
        left: Box<Node>,
        array: Box<Node>,
    },
    /// The type in its canonical spelling.
    Cast {
        of: Box<Node>,
        to: String,
    },
    Case {
        operand: Option<Box<Node>>,
        arms: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
    },
    Call {
        name: &'static str,
        args: Vec<Node>,
    },
    Extract {
        field: &'static str,
        of: Box<Node>,
    },
    Array(Vec<Node>),
    Subscript {
        of: Box<Node>,
        indexes: Vec<Node>,
    },
}

impl Node {
    /// Whether it needs parentheses to be an operand.
    pub(crate) fn is_compound(&self) -> bool {
        matches!(
            self,
            Node::Binary { .. }
                | Node::Prefix { .. }
                | Node::Is { .. }
                | Node::Distinct { .. }
                | Node::InList { .. }
                | Node::Between { .. }
                | Node::Like { .. }
                | Node::Quantified { .. }
        )
    }
}
