//! Constants: numbers, strings in PostgreSQL's several spellings, typed literals.

use sqlparser::ast::{DateTimeField, Expr, Interval, Spanned, Value, ValueWithSpan};

use crate::error::{ErrorKind, Refusal};
use crate::node::Node;

/// Words that PostgreSQL replaces by the current time when it reads a date or a time: in a
/// trigger that is the time when the rule was stored, which nobody means.
const MOVING_TIMES: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// A constant without a type.
pub(crate) fn value(value: &ValueWithSpan) -> Result<Node, Box<Refusal>> {
    let refuse = |message: &str, help: &str| {
        Err(Refusal::new(ErrorKind::NotAllowed, value.span, message).help(help))
    };
    match &value.value {
        Value::Number(digits, false) => number(digits).map_or_else(
            || refuse("this is not a decimal number", "write it like 12 or 1.5"),
            |digits| Ok(Node::Number(digits)),
        ),
        Value::Boolean(truth) => Ok(Node::Bool(*truth)),
        Value::Null => Ok(Node::Null),
        Value::Placeholder(name) => refuse(
            &format!("a rule has no parameters, so {name} has no value"),
            "write the value itself",
        ),
        other => match text(other) {
            Some(text) if text.contains('\0') => refuse(
                "the string contains a NUL character, which PostgreSQL cannot store",
                "remove it",
            ),
            Some(text) => Ok(Node::Text(text.to_owned())),
            None => refuse(
                "this kind of constant is not allowed in a rule",
                "write a plain number or a string in single quotes",
            ),
        },
    }
}

/// The text of a constant that PostgreSQL would read as a string.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::SingleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::UnicodeStringLiteral(text) => Some(text),
        Value::DollarQuotedString(text) => Some(&text.value),
        _ => None,
    }
}

/// Digits as PostgreSQL 14 reads them: the parser also takes `1_000`, which came with 16.
fn number(digits: &str) -> Option<String> {
    let digits = digits.replace('_', "");
    let mut rest = digits.as_str();
    let whole = take_digits(&mut rest);
    let mut part = 0;
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        part = take_digits(&mut rest);
    }
    if let Some(after) = rest.strip_prefix(['e', 'E']) {
        rest = after.strip_prefix(['+', '-']).unwrap_or(after);
        if take_digits(&mut rest) == 0 {
            return None;
        }
    }
    (rest.is_empty() && whole + part > 0).then_some(digits)
}

fn take_digits(rest: &mut &str) -> usize {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    *rest = rest.get(end..).unwrap_or("");
    end
}

/// For a divisor: Some(true) if it is a constant other than zero, Some(false) if it is zero.
pub(crate) fn nonzero(node: &Node) -> Option<bool> {
    match node {
        Node::Number(digits) => {
            let mantissa = digits.split(['e', 'E']).next().unwrap_or("");
            Some(mantissa.contains(|c: char| matches!(c, '1'..='9')))
        }
        Node::Prefix { op, of } if *op != "not" => nonzero(of),
        _ => None,
    }
}

/// The word of a date or time constant that means another time at each reading.
pub(crate) fn moving_time(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    lower
        .split(|c: char| !c.is_ascii_alphabetic())
        .find_map(|word| MOVING_TIMES.into_iter().find(|moving| *moving == word))
}

/// `interval '2 days'` and `interval '2' day`, as the text of an interval.
pub(crate) fn interval(interval: &Interval) -> Result<String, Box<Refusal>> {
    let refuse = || {
        Refusal::new(
            ErrorKind::NotAllowed,
            interval.value.span(),
            "this form of interval is not allowed in a rule",
        )
        .help("write it like interval '2 days 12 hours'")
    };
    let text = match &*interval.value {
        Expr::Value(v) => text(&v.value).ok_or_else(refuse)?,
        _ => return Err(refuse()),
    };
    let plain = interval.leading_precision.is_none()
        && interval.last_field.is_none()
        && interval.fractional_seconds_precision.is_none();
    match &interval.leading_field {
        _ if !plain || text.contains('\0') => Err(refuse()),
        None => Ok(text.to_owned()),
        Some(field) => {
            let unit = match field {
                DateTimeField::Year => "year",
                DateTimeField::Month => "month",
                DateTimeField::Day => "day",
                DateTimeField::Hour => "hour",
                DateTimeField::Minute => "minute",
                DateTimeField::Second => "second",
                _ => return Err(refuse()),
            };
            // PostgreSQL drops what is finer than the unit; a whole number has nothing finer.
            let count = text.trim();
            let digits = count.strip_prefix('-').unwrap_or(count);
            match !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                true => Ok(format!("{count} {unit}")),
                false => Err(refuse()),
            }
        }
    }
}

/// The part that `extract` takes out of a date, a time or an interval.
pub(crate) fn extract_field(field: &DateTimeField) -> Option<&'static str> {
    const FIELDS: [&str; 19] = [
        "century",
        "day",
        "decade",
        "dow",
        "doy",
        "epoch",
        "hour",
        "isodow",
        "isoyear",
        "julian",
        "microseconds",
        "millennium",
        "milliseconds",
        "minute",
        "month",
        "quarter",
        "second",
        "week",
        "year",
    ];
    let name = match field {
        DateTimeField::Custom(ident) => ident.value.to_ascii_lowercase(),
        other => other.to_string().to_ascii_lowercase(),
    };
    FIELDS.into_iter().find(|known| *known == name)
}
