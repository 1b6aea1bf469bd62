//! What is printed means what was read, for random expressions; and nothing panics.

use proptest::prelude::*;

use super::columns;
use crate::check;
use crate::expression::check_within;

fn operand() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "c1",
            "old.c1",
            "new.\"Total\"",
            "status",
            "tags[2]",
            "attrs",
            "b",
            "1",
            "-2.5",
            "1e3",
            "'it''s'",
            "E'a\\\\b'",
            "true",
            "null",
            "array[1, c2]",
            "date '2024-01-31'",
            "\"a\"\"b\"",
            "interval '2' day",
            "lower(status)",
            "c1::int8",
            "$$x$$",
            "nums[1][2]",
            "attrs['k']",
        ])
        .prop_map(str::to_owned),
        "[a-z\\\\' ]{0,6}".prop_map(|s| format!("'{}'", s.replace('\'', "''"))),
    ]
}

/// SQL as an author might write it: with few parentheses.
fn expression() -> impl Strategy<Value = String> {
    operand().prop_recursive(5, 60, 4, |inner| {
        let infix = proptest::sample::select(vec![
            "and", "or", "=", "<>", "<", ">=", "+", "-", "*", "/", "%", "||", "->", "->>", "#>>", "@>",
            "?", "?|", "&&", "~", "!~*", "is distinct from", "like", "not ilike", "similar to",
        ]);
        let postfix = proptest::sample::select(vec![
            "is null", "is not true", "is unknown", "::text", "::numeric(5,2)", "in (1, c2)",
            "between 1 and c2", "not in ('a')", "at time zone 'UTC'", "like 'a%' escape '!'",
        ]);
        let wrap = proptest::sample::select(vec![
            "(#)", "not #", "- #", "coalesce(#, 1)", "abs(#)", "case when # then 1 else 2 end",
            "case # when 1 then c1 end", "extract(day from #)", "cast(# as int)", "array[#, #]",
            "c1 = any(#)", "b = all (#)", "mod(#, #)", "position('a' in #)", "(#)[1]", "nullif(#, 0)",
            "substring(# from 2)", "trim(leading 'x' from #)",
        ]);
        prop_oneof![
            4 => (inner.clone(), infix, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            1 => (inner.clone(), postfix).prop_map(|(a, op)| format!("{a} {op}")),
            2 => (inner.clone(), wrap).prop_map(|(a, w)| w.replace('#', &a)),
            1 => inner.prop_map(|a| format!("({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn printed_expressions_mean_the_same(text in expression()) {
        let Ok(e) = check(&text, &columns()) else { return Ok(()) };
        let again = check_within(e.new_sql(), &columns(), 100_000);
        prop_assert_eq!(again.as_ref(), Ok(&e), "of {}", text);
        if let Some(old) = e.old_sql() {
            let old = check_within(old, &columns(), 100_000);
            prop_assert!(old.is_ok_and(|old| old.mentions_old() || e.columns().is_empty()));
        }
    }

    #[test]
    fn no_text_panics(text in "[a-z0-9 '\"$\\\\()\\[\\]{}.,:;<>=~!@#%^&|?*/+_-]{0,40}") {
        let _ = check(&text, &columns());
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec(proptest::sample::select(vec![
        "c1", "not", "(", ")", "case", "when", "then", "end", "in", "between", "and", "is", "null",
        "distinct", "from", "like", "any", "cast", "as", "int", "::", "[", "]", "array", "interval",
        "'1'", "1", "extract", "day", "trim", "substring", ",", ".", "*", "->", "~", "-", "/", "0",
        "old", "new", "exists", "select", "over", "filter", "collate", "at", "time", "zone", "date",
        "if", "current_time", "position", "escape", "{", "}", "fn", "lambda", ":", "=>", "$1", "\0",
    ]), 0..30)) {
        let _ = check(&words.join(" "), &columns());
    }
}
