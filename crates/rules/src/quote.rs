//! Quoting for SQL text: the only way a name or a string gets into a statement.

/// A quoted identifier: `"a""b"`.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant that means the same under either setting of `standard_conforming_strings`.
pub(crate) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

/// `text` between dollar quotes with a tag that does not occur in it.
pub(crate) fn dollar(text: &str) -> String {
    let mut tag = "$pgbraid$".to_owned();
    let mut n = 0_u32;
    while text.contains(&tag) {
        n += 1;
        tag = format!("$pgbraid{n}$");
    }
    format!("{tag}{text}{tag}")
}

/// `name` as one would type it: plain where that folds to itself, quoted otherwise.
pub(crate) fn typed(name: &str) -> String {
    let plain = !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
    match plain {
        true => name.to_owned(),
        false => ident(name),
    }
}
