//! Column names: which row, which column, and what was probably meant.

use sqlparser::ast::Ident;

use super::{Checked, Converter};
use crate::error::{ErrorKind, Refusal};
use crate::node::{Node, Row};
use crate::{quote, suggest};

/// At most this many columns are listed in an error.
const MAX_LISTED: usize = 20;

/// A name as PostgreSQL reads it: only ASCII letters fold.
pub(super) fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    }
}

impl Converter<'_> {
    /// `x`, `new.x` or `old.x`.
    pub(super) fn column(&mut self, path: &[Ident]) -> Checked<Node> {
        let (row, column) = match path {
            [column] => (Row::New, column),
            [row, column] => match fold(row).as_str() {
                "new" => (Row::New, column),
                "old" => (Row::Old, column),
                _ => return Err(foreign(path)),
            },
            _ => return Err(foreign(path)),
        };
        let name = fold(column);
        if !self.columns.contains(&name) {
            return Err(self.unknown(column, &name));
        }
        self.mentions_old |= row == Row::Old;
        self.used.insert(name.clone());
        Ok(Node::Column { row, name })
    }

    fn unknown(&self, ident: &Ident, name: &str) -> Box<Refusal> {
        let message = format!("the feed has no column {}", quote::typed(name));
        let near: Vec<String> = suggest::nearest(name, self.columns.iter().map(String::as_str))
            .into_iter()
            .map(quote::typed)
            .collect();
        let refusal = Refusal::new(ErrorKind::UnknownColumn, ident.span, message);
        match (suggest::question(&near), ident.quote_style) {
            (Some(question), _) => refusal.help(question),
            (None, Some(_)) => {
                let string = quote::literal(name);
                refusal.help(format!("if a string was meant, write {string}"))
            }
            (None, None) => {
                let listed: Vec<String> = self
                    .columns
                    .iter()
                    .take(MAX_LISTED)
                    .map(|name| quote::typed(name))
                    .collect();
                let more = match self.columns.len() > MAX_LISTED {
                    true => " and others",
                    false => "",
                };
                refusal.help(format!("the columns are: {}{more}", listed.join(", ")))
            }
        }
    }
}

fn foreign(path: &[Ident]) -> Box<Refusal> {
    let shown: Vec<&str> = path.iter().map(|ident| ident.value.as_str()).collect();
    let message = format!("{} is not a column of the feed's own row", shown.join("."));
    let span = path
        .iter()
        .map(|ident| ident.span)
        .reduce(|all, next| all.union(&next))
        .unwrap_or_else(sqlparser::tokenizer::Span::empty);
    Refusal::new(ErrorKind::NotAllowed, span, message)
        .help("write a column alone, or with new. or old. in front; a rule sees no other table")
}
