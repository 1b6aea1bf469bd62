//! Text to sqlparser's tree: one expression and nothing else, with bounded size and depth.

use sqlparser::ast::Expr;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::{ErrorKind, Refusal};

/// The parser's recursion: about two steps for each level of nesting, and up to 20 KiB of stack
/// for each step, so that a thread of 2 MiB has room to spare.
const MAX_RECURSION: usize = 48;

/// Parses exactly one expression of at most `max_bytes`.
pub(crate) fn parse(source: &str, max_bytes: usize) -> Result<Expr, Box<Refusal>> {
    if source.len() > max_bytes {
        let message = format!(
            "the expression is {} bytes long; at most {max_bytes} are allowed",
            source.len()
        );
        return Err(Refusal::at(ErrorKind::TooLarge, (0, 0), message)
            .help("split it into several rules on one channel"));
    }
    if let Some(at) = source.find('\0') {
        let message = "the expression contains a NUL character";
        return Err(
            Refusal::at(ErrorKind::Syntax, place_of(source, at), message).help("remove it"),
        );
    }
    let dialect = PostgreSqlDialect {};
    let mut tokens = Tokenizer::new(&dialect, source)
        .tokenize_with_location()
        .map_err(|e| {
            let at = (e.location.line, e.location.column);
            Refusal::at(ErrorKind::Syntax, at, lower_first(&e.message))
        })?;
    split_operators(&mut tokens);
    free_words_after_dots(&mut tokens);
    inspect(source, &tokens)?;
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(MAX_RECURSION)
        .with_tokens_with_locations(tokens);
    let tree = parser.parse_expr().map_err(|e| syntax(source, e))?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(tree),
        token => {
            let help = match &token {
                Token::Word(w) if w.value.eq_ignore_ascii_case("isnull") => "write is null",
                _ => "a rule is one boolean expression; join conditions with and / or",
            };
            let message = format!("the expression ends before {token}");
            Err(Refusal::new(ErrorKind::Syntax, next.span, message).help(help))
        }
    }
}

/// Refuses by token what would only give a puzzling error later.
fn inspect(source: &str, tokens: &[TokenWithSpan]) -> Result<(), Box<Refusal>> {
    let mut empty = true;
    for t in tokens {
        let refuse = |message: &str| Err(Refusal::new(ErrorKind::NotAllowed, t.span, message));
        match &t.token {
            Token::Whitespace(_) => continue,
            Token::SemiColon => {
                return refuse("a rule is one expression, so it has no `;`")
                    .map_err(|r| r.help("remove the `;` and whatever follows it"));
            }
            Token::Placeholder(name) => {
                return refuse(&format!("a rule has no parameters, so {name} has no value"))
                    .map_err(|r| r.help("write the value itself"));
            }
            Token::DoubleEq => {
                return refuse("`==` is not an operator of PostgreSQL")
                    .map_err(|r| r.help("compare with `=`"));
            }
            Token::Word(w) if w.quote_style.is_none() && w.keyword == Keyword::SELECT => {
                return refuse("a rule sees one row, so it has no subquery")
                    .map_err(|r| r.help("use only the columns of the feed's own row"));
            }
            _ => {}
        }
        empty = false;
    }
    match empty {
        true => Err(Refusal::at(
            ErrorKind::Syntax,
            place_of(source, 0),
            "the expression is empty",
        )
        .help("write a condition on the row's columns, such as: total > 1000")),
        false => Ok(()),
    }
}

/// `total>-1`: the tokenizer sees one operator `>-`, PostgreSQL sees two, because an operator
/// ends in a sign only if it contains one of a few characters that are not in SQL's own.
fn split_operators(tokens: &mut Vec<TokenWithSpan>) {
    let mut i = 0;
    while let Some(TokenWithSpan { token, span }) = tokens.get_mut(i) {
        i += 1;
        let Token::CustomBinaryOperator(text) = token else {
            continue;
        };
        let sign = match text.chars().last() {
            Some('-') => Token::Minus,
            Some('+') => Token::Plus,
            _ => continue,
        };
        let operator = match text.get(..text.len() - 1) {
            Some("=") => Token::Eq,
            Some("<") => Token::Lt,
            Some(">") => Token::Gt,
            Some("<=") => Token::LtEq,
            Some(">=") => Token::GtEq,
            Some("<>") => Token::Neq,
            Some("+") => Token::Plus,
            Some("-") => Token::Minus,
            Some("*") => Token::Mul,
            Some("/") => Token::Div,
            Some("->") => Token::Arrow,
            Some("->>") => Token::LongArrow,
            _ => continue,
        };
        let span = *span;
        *token = operator;
        tokens.insert(i, TokenWithSpan { token: sign, span });
    }
}

/// After a dot any word is a name for PostgreSQL: `old.end`, `pg_catalog.substring(...)`.
fn free_words_after_dots(tokens: &mut [TokenWithSpan]) {
    let mut after_dot = false;
    for TokenWithSpan { token, .. } in tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::Word(word) if after_dot => word.keyword = Keyword::NoKeyword,
            _ => {}
        }
        after_dot = *token == Token::Period;
    }
}

/// sqlparser gives the place only as the end of its text.
fn syntax(source: &str, error: ParserError) -> Box<Refusal> {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            let message = "the expression is nested too deeply";
            return Refusal::at(ErrorKind::TooLarge, (0, 0), message)
                .help("use fewer parentheses, or split it into several rules");
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
    };
    let (message, at) = match text.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, (line.parse().ok()?, column.parse().ok()?)))
    }) {
        Some((message, at)) => (message, at),
        None if text.ends_with("EOF") => (text.as_str(), place_of(source, source.len())),
        None => (text.as_str(), (0, 0)),
    };
    let message = message
        .replacen("Expected: ", "expected ", 1)
        .replacen("found: EOF", "found the end of the expression", 1)
        .replacen("found: ", "found ", 1);
    Refusal::at(ErrorKind::Syntax, at, lower_first(&message))
        .help("write one condition as PostgreSQL reads it, such as: total > 1000 and paid is null")
}

/// Line and column, both from 1, of a byte offset.
fn place_of(source: &str, offset: usize) -> (u64, u64) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line as u64, column as u64)
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
