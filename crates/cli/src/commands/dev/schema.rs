//! Finds the feed's parent in the user's SQL.

/// A table that a `create table` makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub schema: Option<String>,
    pub name: String,
}

#[derive(Debug, PartialEq)]
enum Word {
    /// In lower case.
    Plain(String),
    Quoted(String),
    Other(char),
}

/// The first table that is partitioned by hash, or else the first table.
pub fn parent(sql: &str) -> Option<Parent> {
    let words = words(sql);
    let statements = words.split(|word| *word == Word::Other(';'));
    let tables: Vec<(Parent, bool)> = statements.filter_map(table).collect();
    let by_hash = tables.iter().position(|(_, by_hash)| *by_hash);
    let (parent, _) = tables.into_iter().nth(by_hash.unwrap_or(0))?;
    Some(parent)
}

/// The table that a statement makes, and whether it is partitioned by hash.
fn table(statement: &[Word]) -> Option<(Parent, bool)> {
    let mut rest = after(statement, &["create"])?;
    rest = after(rest, &["unlogged"]).unwrap_or(rest);
    rest = after(rest, &["table"])?;
    rest = after(rest, &["if", "not", "exists"]).unwrap_or(rest);
    let (first, rest) = rest.split_first()?;
    let first = name(first)?;
    let parent = match rest {
        [Word::Other('.'), second, ..] => Parent {
            schema: Some(first),
            name: name(second)?,
        },
        _ => Parent {
            schema: None,
            name: first,
        },
    };
    let by_hash =
        (0..rest.len()).any(|at| after(&rest[at..], &["partition", "by", "hash"]).is_some());
    Some((parent, by_hash))
}

fn after<'a>(words: &'a [Word], expected: &[&str]) -> Option<&'a [Word]> {
    let (start, rest) = words.split_at_checked(expected.len())?;
    let same = |(word, text): (&Word, &&str)| matches!(word, Word::Plain(w) if w == text);
    start.iter().zip(expected).all(same).then_some(rest)
}

fn name(word: &Word) -> Option<String> {
    match word {
        Word::Plain(name) | Word::Quoted(name) => Some(name.clone()),
        Word::Other(_) => None,
    }
}

/// Without comments, and without what stands in strings.
fn words(sql: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = rest.trim_start();
        } else if rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            rest = rest[2..].split_once("*/").map_or("", |(_, rest)| rest);
        } else if c == '\'' {
            rest = quoted(&rest[1..], '\'').1;
        } else if c == '"' {
            let (name, after) = quoted(&rest[1..], '"');
            words.push(Word::Quoted(name));
            rest = after;
        } else if let Some(after) = dollar_quoted(rest) {
            rest = after;
        } else if c.is_alphanumeric() || c == '_' {
            let part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            words.push(Word::Plain(rest[..end].to_lowercase()));
            rest = &rest[end..];
        } else {
            words.push(Word::Other(c));
            rest = &rest[c.len_utf8()..];
        }
    }
    words
}

/// What stands before the closing quote, and what comes after it. A doubled quote is one.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut inside = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(quote) {
        inside.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix(quote) {
            Some(after) => rest = after,
            None => return (inside, rest),
        }
        inside.push(quote);
    }
    (inside, "")
}

/// What comes after `$tag$ ... $tag$`.
fn dollar_quoted(text: &str) -> Option<&str> {
    let end = text.strip_prefix('$')?.find('$')? + 2;
    let tag = &text[..end];
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    if !tag.chars().all(plain) {
        return None;
    }
    Some(text[end..].split_once(tag).map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sql: &str) -> Option<(Option<String>, String)> {
        parent(sql).map(|parent| (parent.schema, parent.name))
    }

    #[test]
    fn the_first_table_by_hash() {
        let sql = "-- create table no (x int);\n/* create table no (); */
            create function f() returns text language sql as $b$ create table no (); $b$;
            select 'create table no (); it''s', \"x;y\";
            CREATE TABLE lookup (id int);
            Create Table If Not Exists Sales.\"Orders \"\"Wide\" (id int8) partition by hash (id);
            create table later (id int8) partition by hash (id)";
        let (schema, name) = found(sql).unwrap();
        assert_eq!(schema.as_deref(), Some("sales"));
        assert_eq!(name, "Orders \"Wide");
    }

    #[test]
    fn without_any_by_hash_the_first() {
        assert_eq!(
            found("create table a (x int); create table b ()"),
            Some((None, "a".into()))
        );
        assert_eq!(found("select 1"), None);
        assert_eq!(found("create table"), None);
    }

    #[test]
    fn any_text_ends() {
        for text in [
            "'",
            "\"",
            "$",
            "$$",
            "$a$ x",
            "/*",
            "--",
            "é$é",
            "create table \"",
        ] {
            let _ = parent(text);
        }
    }

    #[test]
    fn the_schema_of_the_demo() {
        let sql = super::super::files::DEMO_SCHEMA;
        assert_eq!(found(sql), Some((None, "orders".into())));
    }
}
