//! Expressions that are refused, with what the author is told.

use super::columns;
use crate::error::{ErrorKind, ExpressionError, RuleError};
use crate::{check, probe_sql};

fn refuse(expression: &str) -> ExpressionError {
    match check(expression, &columns()) {
        Err(RuleError::Expression(error)) => *error,
        Err(other) => panic!("{expression}: another error: {other}"),
        Ok(e) => panic!("{expression} was accepted as {}", e.new_sql()),
    }
}

/// Expression, column of the error (0: none), part of the message, part of the help.
const CASES: &[(&str, u64, &str, &str)] = &[
    // Names.
    (
        "totl > 1",
        1,
        "no column totl",
        "did you mean \"Total\" or total?",
    ),
    (
        "TOTAL > 1 and \"TOTAL\" > 1",
        15,
        "no column \"TOTAL\"",
        "did you mean",
    ),
    (
        "c1 > zebra",
        6,
        "no column zebra",
        "the columns are: id, c1",
    ),
    (
        "status = \"canceled\"",
        10,
        "no column canceled",
        "write 'canceled'",
    ),
    (
        "orders.c1 > 1",
        1,
        "orders.c1 is not a column",
        "new. or old.",
    ),
    (
        "public.orders.c1 > 1",
        1,
        "public.orders.c1 is not",
        "no other table",
    ),
    ("new.nosuch > 1", 5, "no column nosuch", "the columns are"),
    ("new.attrs.a = 1", 1, "new.attrs.a is not", "new. or old."),
    ("new is null", 1, "no column new", ""),
    ("(attrs).a = 1", 2, "access to a part", "x ->> 'a'"),
    ("tags[1:2] = tags", 1, "access to a part", "x[1]"),
    ("ctid = '(0,1)'", 1, "no column ctid", ""),
    // One expression.
    ("", 1, "expression is empty", "such as: total > 1000"),
    (" -- only a comment", 1, "expression is empty", ""),
    ("c1 > 1;", 7, "has no `;`", "remove"),
    ("c1 > 1; drop table t", 7, "has no `;`", ""),
    (
        "c1 > 1) or (true",
        7,
        "ends before )",
        "one boolean expression",
    ),
    ("c1 > 1 order by 1", 8, "ends before order", ""),
    ("c1 > 1, c2 > 2", 7, "ends before ,", ""),
    ("c1 >", 5, "found the end of the expression", ""),
    ("c1 > 1 and", 11, "found the end", "one condition"),
    ("(c1 > 1", 8, "found the end", ""),
    ("c1 isnull", 4, "ends before isnull", "write is null"),
    ("status = 'open", 10, "unterminated string", ""),
    ("c1 > 1 \0", 8, "NUL", "remove"),
    ("c1 > $1", 6, "no parameters", "value itself"),
    ("c1 > :one", 6, "no parameters", ""),
    ("c1 == 1", 4, "`==`", "`=`"),
    ("*", 1, "expected an expression", ""),
    // Subqueries and functions.
    ("exists (select 1)", 9, "no subquery", "own row"),
    ("c1 in (select c1 from t)", 8, "no subquery", ""),
    ("c1 in (values (1))", 1, "no subquery", ""),
    ("array(select 1) = nums", 7, "no subquery", ""),
    ("sum(c1) > 1", 1, "sum works on many rows", ""),
    ("count(*) > 1", 1, "count works on many rows", ""),
    ("rank() over () = 1", 1, "several rows", ""),
    ("abs(c1) filter (where b) = 1", 1, "several rows", "filter"),
    (
        "lower(distinct status) = 'a'",
        1,
        "plain list of arguments",
        "",
    ),
    (
        "now() > ts",
        1,
        "now does not depend on the row",
        "compare columns",
    ),
    (
        "ts > current_timestamp",
        6,
        "current_timestamp does not",
        "",
    ),
    ("d = current_date", 5, "current_date does not", ""),
    ("current_user = 'x'", 1, "current_user does not", ""),
    ("random() > 0.5", 1, "random does not", ""),
    (
        "lowr(status) = 'x'",
        1,
        "function lowr is not allowed",
        "did you mean lower?",
    ),
    ("pg_sleep(10) is null", 1, "pg_sleep does not", ""),
    (
        "concat(status, 'a') = 'b'",
        1,
        "function concat",
        "a rule may call: coalesce",
    ),
    ("public.lower(status) = 'x'", 1, "function public.lower", ""),
    (
        "\"Lower\"(status) = 'x'",
        1,
        "function Lower",
        "did you mean lower",
    ),
    ("pg_catalog.coalesce(c1, 2) = 1", 1, "not allowed", ""),
    (
        "lower(status, 'a') = 'b'",
        1,
        "lower has 2 arguments",
        "give it 1",
    ),
    ("round() = 1", 1, "round has 0 arguments", "give it 1 to 2"),
    ("position('a', status) = 1", 1, "with `in`", "part in whole"),
    ("abs(c1 => 2) = 1", 1, "not a plain value", ""),
    (
        "extract(fortnight from ts) = 1",
        24,
        "no field fortnight",
        "year",
    ),
    (
        "overlay(status placing 'a' from 1) = 'b'",
        9,
        "not allowed",
        "",
    ),
    ("status collate \"C\" = 'a'", 1, "collate", ""),
    ("(c1, c2) = (1, 2)", 2, "lists of values", "one by one"),
    ("status like any (tags)", 1, "like any", "or"),
    ("lower(status.*) = 'x'", 1, "not a plain value", ""),
    // Operators and constants.
    ("c1 ^ 2 > 1", 6, "operator ^", "power(a, b)"),
    ("c1 & 1 = 1", 6, "operator &", "the operators are"),
    ("~ c1 = 1", 3, "operator ~", "only not, - and +"),
    ("c1 operator(pg_catalog.+) 1 = 1", 27, "OPERATOR", ""),
    ("c1 / 0 = 1", 6, "divides by zero", ""),
    ("c1 % 0.00 = 1 or c1 / -0e5 = 1", 6, "divides by zero", ""),
    ("mod(c1, 0) = 1", 1, "divides by zero", ""),
    ("c1 / '2' = 1", 6, "divisor is a string", "without quotes"),
    ("c1 < c2 < 3", 1, "not clear what <", "parentheses"),
    ("c1 = c2 = b", 1, "not clear what =", "parentheses"),
    ("status ~ 'a' || 'b'", 1, "not clear what ~", "parentheses"),
    ("b = status ~ 'a'", 1, "not clear what ~", ""),
    ("status like 'a' ~ 'b'", 1, "not clear what ~", ""),
    ("x'10' = c1", 1, "kind of constant", ""),
    ("c1 = 0x10", 6, "kind of constant", ""),
    (
        "ts > 'now'::timestamp",
        6,
        "'now' would mean",
        "date itself",
    ),
    ("d = date 'Tomorrow'", 10, "'tomorrow' would mean", ""),
    (
        "tstz > cast(('today 10:00') as timestamptz)",
        14,
        "'today' would mean",
        "",
    ),
    (
        "iv > interval '1.5' day",
        15,
        "form of interval",
        "2 days 12 hours",
    ),
    (
        "iv > interval '1' year to month",
        15,
        "form of interval",
        "",
    ),
    ("status like 'a' escape 'ab'", 24, "one character", ""),
    (
        "c1::regclass = 'x'",
        1,
        "type REGCLASS",
        "the types are: boolean",
    ),
    ("c1::mytype = 'x'", 1, "type mytype", ""),
    ("c1::public.int4 = 1", 1, "type public.int4", ""),
    ("try_cast(c1 as int) = 1", 10, "not allowed", ""),
];

#[test]
fn refused_expressions_say_where_and_what_to_do() {
    for (expression, column, message, help) in CASES {
        let error = refuse(expression);
        let shown = format!("{expression}\n{error}");
        assert_eq!(error.column.unwrap_or(0), *column, "{shown}");
        assert!(error.message.contains(message), "{shown}");
        assert!(
            error.help.as_deref().unwrap_or("").contains(help),
            "{shown}"
        );
        assert!(
            error.help.is_some() || error.kind == ErrorKind::Syntax,
            "{shown}"
        );
    }
}

#[test]
fn an_error_shows_the_line_with_a_caret() {
    let error = refuse("c1 > 1\n\tand totl > 2");
    assert_eq!((error.line, error.column), (Some(2), Some(6)));
    assert_eq!(
        error.to_string(),
        "line 2, column 6: the feed has no column totl\n   and totl > 2\n       ^\n\
         help: did you mean \"Total\" or total?"
    );
    let long = format!("{}totl > 2 {}", "b and ".repeat(30), "and b ".repeat(30));
    let snippet = refuse(&long).snippet.unwrap_or_default();
    let (line, caret) = snippet.split_once('\n').unwrap_or_default();
    assert_eq!(line.find("totl"), caret.find('^'));
    assert!(line.starts_with("  ...") && line.ends_with("..."), "{line}");
}

#[test]
fn size_and_depth_are_bounded() {
    let too_large = |expression: &str| {
        assert_eq!(refuse(expression).kind, ErrorKind::TooLarge, "{expression}");
    };
    too_large(&"b and ".repeat(800));
    too_large(&format!("{}b{}", "(".repeat(60), ")".repeat(60)));
    too_large(&format!("b{}", " is true".repeat(30)));
    too_large(&format!("c1 in ({}1)", "1,".repeat(1700)));
    for (open, inner, close) in [
        ("(", "b", ")"),
        ("not ", "b", ""),
        ("abs(", "c1", ")"),
        ("- ", "c1", ""),
        ("case when ", "b", " then b end"),
        ("(c1 + ", "1", ")"),
        ("tags[", "1", "]"),
    ] {
        let nested = |n: usize| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
        assert!(check(&nested(100), &columns()).is_err(), "{open}");
        accept_or_deep(&nested(19));
    }
    let chained = accept_or_deep(&format!("b{}", " and b".repeat(600)));
    assert!(chained);
}

/// What is accepted must also be accepted as it is printed.
fn accept_or_deep(expression: &str) -> bool {
    let Ok(e) = check(expression, &columns()) else {
        return false;
    };
    let again = crate::expression::check_within(e.new_sql(), &columns(), 100_000);
    assert_eq!(again.as_ref(), Ok(&e));
    true
}

#[test]
fn names_and_strings_cannot_escape_their_quotes() {
    let columns = vec!["x\"; drop table t; --".to_owned()];
    let e = check(
        "\"x\"\"; drop table t; --\" = '''; drop table t; --'",
        &columns,
    );
    let e = e.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        e.new_sql(),
        "new.\"x\"\"; drop table t; --\" = '''; drop table t; --'"
    );
    let target = super::ddl::target();
    assert!(probe_sql(&target, &e).contains(e.new_sql()));
}
