//! Expressions that are allowed, with the SQL that they become.

use super::{accept, columns};
use crate::check;

const CASES: &[(&str, &str)] = &[
    // Names.
    ("c2 > 9999", r#"new."c2" > 9999"#),
    (
        "C2 > 1 and NEW.Status = 'x'",
        r#"(new."c2" > 1) and (new."status" = 'x')"#,
    ),
    (r#""Total" > total"#, r#"new."Total" > new."total""#),
    (
        r#""a""b" = 1 and größe = 2"#,
        r#"(new."a""b" = 1) and (new."größe" = 2)"#,
    ),
    ("old.c2 < new.c2", r#"old."c2" < new."c2""#),
    (
        "date > date '2024-01-31'",
        r#"new."date" > cast('2024-01-31' as date)"#,
    ),
    (
        "pg_catalog.substring(status, 2) = old.date::text",
        r#"pg_catalog.substring(new."status", 2) = cast(old."date" as text)"#,
    ),
    // Constants.
    (
        "c1 = -5 and c1 > 1e5 and c1 > .5",
        r#"(new."c1" = -5) and (new."c1" > 1e5) and (new."c1" > .5)"#,
    ),
    ("c1 > 1_000", r#"new."c1" > 1000"#),
    ("status = 'it''s'", r#"new."status" = 'it''s'"#),
    (r"status = 'a\b'", r#"new."status" = E'a\\b'"#),
    (r"status = E'a\'\\b'", r#"new."status" = E'a''\\b'"#),
    ("status = $$it's$$", r#"new."status" = 'it''s'"#),
    (r"status = U&'\0041'", r#"new."status" = 'A'"#),
    (
        "b = true or b = null",
        r#"(new."b" = true) or (new."b" = null)"#,
    ),
    (
        "ts < timestamp '2024-01-31 10:00'",
        r#"new."ts" < cast('2024-01-31 10:00' as timestamp)"#,
    ),
    (
        "tstz < timestamp with time zone 'epoch'",
        r#"new."tstz" < cast('epoch' as timestamptz)"#,
    ),
    (
        "iv > interval '2 days'",
        r#"new."iv" > cast('2 days' as interval)"#,
    ),
    (
        "iv > interval '-3' hour",
        r#"new."iv" > cast('-3 hour' as interval)"#,
    ),
    // Logic and comparison.
    (
        "not b and b or b",
        r#"((not new."b") and new."b") or new."b""#,
    ),
    ("b and (b and b)", r#"new."b" and (new."b" and new."b")"#),
    ("not c1 = 2", r#"not (new."c1" = 2)"#),
    (
        "c1 != 2 and c1 <= 3 and c1 >= 4",
        r#"(new."c1" <> 2) and (new."c1" <= 3) and (new."c1" >= 4)"#,
    ),
    (
        "c1>-1 and c1=+1",
        r#"(new."c1" > -1) and (new."c1" = (+ 1))"#,
    ),
    (
        "c1 is null or c1 notnull",
        r#"(new."c1" is null) or (new."c1" is not null)"#,
    ),
    (
        "b is not true or b is unknown",
        r#"(new."b" is not true) or (new."b" is unknown)"#,
    ),
    ("c1 = 2 is false", r#"(new."c1" = 2) is false"#),
    (
        "c1 is not distinct from c2 + 1",
        r#"new."c1" is not distinct from (new."c2" + 1)"#,
    ),
    (
        "c1 not between 1 and c2 * 2",
        r#"new."c1" not between 1 and (new."c2" * 2)"#,
    ),
    ("c1 in (1, -2, c2)", r#"new."c1" in (1, -2, new."c2")"#),
    ("(c1 < c2) = b", r#"(new."c1" < new."c2") = new."b""#),
    // Arithmetic, with no way to divide by zero.
    (
        "c1 + c2 - 3 * 2 > 0",
        r#"(new."c1" + new."c2" - (3 * 2)) > 0"#,
    ),
    ("c1 - (c2 - 3) > 0", r#"(new."c1" - (new."c2" - 3)) > 0"#),
    ("c1 / c2 > 2", r#"(new."c1" / nullif(new."c2", 0)) > 2"#),
    ("c1 / -2.5 % 7 = 1", r#"(new."c1" / -2.5 % 7) = 1"#),
    (
        "c1 % (c2 - 1) = 0",
        r#"(new."c1" % nullif(new."c2" - 1, 0)) = 0"#,
    ),
    (
        "c1 / nullif(c2, 0) > 2",
        r#"(new."c1" / nullif(new."c2", 0)) > 2"#,
    ),
    (
        "mod(c1, c2) = 1 and mod(c1, 2) = 1",
        r#"(pg_catalog.mod(new."c1", nullif(new."c2", 0)) = 1) and (pg_catalog.mod(new."c1", 2) = 1)"#,
    ),
    (
        "- c1 < 0 and - - c1 > 0",
        r#"((- new."c1") < 0) and ((- (- new."c1")) > 0)"#,
    ),
    // Text.
    (
        "status like 'a!%' escape '!'",
        r#"new."status" like 'a!%' escape '!'"#,
    ),
    (
        "status not ilike 'a%' or status similar to '(a|b)'",
        r#"(new."status" not ilike 'a%') or (new."status" similar to '(a|b)')"#,
    ),
    (
        "status ~ '^a' and status !~* 'b$'",
        r#"(new."status" ~ '^a') and (new."status" !~* 'b$')"#,
    ),
    (
        "status || note = 'ab'",
        r#"(new."status" || new."note") = 'ab'"#,
    ),
    (
        "status ~ ('a' || note)",
        r#"new."status" ~ ('a' || new."note")"#,
    ),
    // Json and arrays.
    ("attrs ->> 'a' = 'b'", r#"(new."attrs" ->> 'a') = 'b'"#),
    (
        "attrs -> 'a' -> 0 ->> 'b' = 'c'",
        r#"(new."attrs" -> 'a' -> 0 ->> 'b') = 'c'"#,
    ),
    ("attrs->-1 = '1'", r#"(new."attrs" -> -1) = '1'"#),
    (
        "attrs #>> '{a,b}' = 'c' and attrs #> '{a}' @> '1'",
        r#"((new."attrs" #>> '{a,b}') = 'c') and (new."attrs" #> '{a}' @> '1')"#,
    ),
    (
        "attrs ? 'a' and attrs ?| array['a'] and attrs ?& tags",
        r#"(new."attrs" ? 'a') and (new."attrs" ?| array['a']) and (new."attrs" ?& new."tags")"#,
    ),
    (
        "attrs @> '{}' and '{}' <@ attrs",
        r#"(new."attrs" @> '{}') and ('{}' <@ new."attrs")"#,
    ),
    (
        "tags[1] = 'x' and new.nums[2] = old.nums[c1]",
        r#"(new."tags"[1] = 'x') and (new."nums"[2] = old."nums"[new."c1"])"#,
    ),
    ("(tags || 'x')[1] = 'y'", r#"(new."tags" || 'x')[1] = 'y'"#),
    ("attrs['a']['b'] = '1'", r#"new."attrs"['a']['b'] = '1'"#),
    (
        "'x' = any(tags) or c1 <> all(array[1, 2])",
        r#"('x' = any (new."tags")) or (new."c1" <> all (array[1, 2]))"#,
    ),
    (
        "c1 = some (nums) and nums && array[1]",
        r#"(new."c1" = any (new."nums")) and (new."nums" && array[1])"#,
    ),
    (
        "array[[1],[2]] = nums",
        r#"array[array[1], array[2]] = new."nums""#,
    ),
    // Case and calls.
    (
        "case when b then 1 else 2 end = 1",
        r#"case when new."b" then 1 else 2 end = 1"#,
    ),
    (
        "case c1 when 1 then b end",
        r#"case new."c1" when 1 then new."b" end"#,
    ),
    (
        "coalesce(c1, 0) > greatest(c2, 1)",
        r#"coalesce(new."c1", 0) > greatest(new."c2", 1)"#,
    ),
    (
        "lower(status) = pg_catalog.upper(note)",
        r#"pg_catalog.lower(new."status") = pg_catalog.upper(new."note")"#,
    ),
    (
        "LEFT(status, 2) = 'ab' and ceil(total) = 2",
        r#"(pg_catalog.left(new."status", 2) = 'ab') and (pg_catalog.ceil(new."total") = 2)"#,
    ),
    (
        "position('a' in status) > 0",
        r#"pg_catalog.position(new."status", 'a') > 0"#,
    ),
    (
        "substring(status from 2 for 3) = 'a'",
        r#"pg_catalog.substring(new."status", 2, 3) = 'a'"#,
    ),
    (
        "substring(status for 3) = substr(status, 2)",
        r#"pg_catalog.substring(new."status", 1, 3) = pg_catalog.substr(new."status", 2)"#,
    ),
    (
        "trim(status) = trim(both 'x' from note)",
        r#"pg_catalog.btrim(new."status") = pg_catalog.btrim(new."note", 'x')"#,
    ),
    (
        "trim(leading 'x' from note) = ''",
        r#"pg_catalog.ltrim(new."note", 'x') = ''"#,
    ),
    (
        "extract(year from ts) = 2024",
        r#"extract(year from new."ts") = 2024"#,
    ),
    (
        "date_trunc('day', ts) = ts",
        r#"pg_catalog.date_trunc('day', new."ts") = new."ts""#,
    ),
    (
        "tstz at time zone 'UTC' > ts",
        r#"pg_catalog.timezone('UTC', new."tstz") > new."ts""#,
    ),
    (
        "num_nulls(c1, c2) = 1",
        r#"pg_catalog.num_nulls(new."c1", new."c2") = 1"#,
    ),
    // Casts.
    (
        "(attrs->>'n')::int > 3",
        r#"cast(new."attrs" ->> 'n' as int4) > 3"#,
    ),
    (
        "cast(note as decimal(10, 2)) > 1",
        r#"cast(new."note" as numeric(10,2)) > 1"#,
    ),
    (
        "note::character varying(3) = '1'::bigint::text",
        r#"cast(new."note" as varchar(3)) = cast(cast('1' as int8) as text)"#,
    ),
    (
        "nums::bigint[] = '{1}'::int8[]",
        r#"cast(new."nums" as int8[]) = cast('{1}' as int8[])"#,
    ),
    (
        "ts::date - d > 3",
        r#"(cast(new."ts" as date) - new."d") > 3"#,
    ),
    (
        "c1::double precision > 1 and c1::real > 1",
        r#"(cast(new."c1" as float8) > 1) and (cast(new."c1" as float4) > 1)"#,
    ),
    // Comments and space.
    ("c1 /* a /* nested */ one */ > 1 -- end", r#"new."c1" > 1"#),
    ("\n c1\t>\r\n1 ", r#"new."c1" > 1"#),
    ("b", r#"new."b""#),
];

#[test]
fn accepted_expressions_print_qualified() {
    for (expression, sql) in CASES {
        let checked = accept(expression);
        assert_eq!(checked.new_sql(), *sql, "of {expression}");
        let again = check(sql, &columns()).unwrap_or_else(|e| panic!("{sql}\n{e}"));
        assert_eq!(again, checked, "the printed {sql} means something else");
    }
}

#[test]
fn a_plain_rule_has_a_form_for_every_row() {
    let e = accept("c2 > 9999 and new.c1 = 2");
    assert_eq!(e.new_sql(), r#"(new."c2" > 9999) and (new."c1" = 2)"#);
    assert_eq!(e.old_sql(), Some(r#"(old."c2" > 9999) and (old."c1" = 2)"#));
    assert_eq!(e.row_sql(), Some(r#"(r."c2" > 9999) and (r."c1" = 2)"#));
    assert!(!e.mentions_old());
    assert_eq!(e.columns().iter().collect::<Vec<_>>(), ["c1", "c2"]);
}

#[test]
fn a_transition_rule_has_no_form_for_one_row() {
    let e = accept("old.status <> status and c1 = 1");
    assert!(e.mentions_old());
    assert_eq!(e.old_sql(), None);
    assert_eq!(e.row_sql(), None);
    assert_eq!(e.columns().iter().collect::<Vec<_>>(), ["c1", "status"]);
}
