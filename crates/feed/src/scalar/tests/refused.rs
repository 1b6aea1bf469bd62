//! What is refused, why, and how the message reads.

use super::super::Reason;
use super::{PLAIN, declared, text};
use crate::types::{ArrayElement, ColumnType};

/// Every one of `values` is refused for `reason`.
#[track_caller]
fn refused(ty: &ColumnType, reason: Reason, values: &[&str]) {
    for value in values {
        match text(ty, value) {
            Ok(bytes) => panic!("{value:?} as {ty} gave {bytes:?}"),
            Err(fault) => assert_eq!(fault.reason, reason, "{value:?} as {ty}: {fault}"),
        }
    }
}

#[test]
fn numbers() {
    let syntax = [
        "", " ", "-", "+", "12x", "1 2", "- 1", "1.0", "1e3", "0x10", "1_000", "١",
    ];
    refused(&ColumnType::Int4, Reason::InvalidInteger, &syntax);
    refused(
        &ColumnType::Int2,
        Reason::OutOfRange,
        &["32768", "-32769", "99999999999999999999"],
    );
    refused(
        &ColumnType::Int4,
        Reason::OutOfRange,
        &["2147483648", "-2147483649"],
    );
    refused(
        &ColumnType::Int8,
        Reason::OutOfRange,
        &["9223372036854775808", "-9223372036854775809"],
    );
    refused(
        &ColumnType::Float8,
        Reason::InvalidFloat,
        &["", ".", "1e", "1,5", "infin", "e5"],
    );
    refused(
        &ColumnType::Float8,
        Reason::OutOfRange,
        &["1e309", "1e-324", "-1e400"],
    );
    refused(
        &ColumnType::Float4,
        Reason::OutOfRange,
        &["3.5e38", "1e-46"],
    );
}

#[test]
fn numerics() {
    let syntax = [
        "", ".", "1e", "1e+", "--1", "1,5", "0x10", "-NaN", "1_000", "infinit", "١",
    ];
    refused(&PLAIN, Reason::InvalidNumeric, &syntax);
    let beyond = [
        "1e131072",
        "1e-16384",
        "1e100000000000000000000",
        "-1e-99999999999",
    ];
    refused(&PLAIN, Reason::OutOfRange, &beyond);
    refused(
        &declared(10, 2),
        Reason::OutOfRange,
        &["99999999.995", "1e8", "1e100000", "inf"],
    );
    refused(
        &declared(5, 0),
        Reason::OutOfRange,
        &["99999.5", "-Infinity"],
    );
    refused(&declared(2, 4), Reason::OutOfRange, &["0.00995", "1"]);
    refused(&PLAIN, Reason::TooLong, &[&"1".repeat(200_000)]);
}

#[test]
fn dates_and_times() {
    let days = [
        "",
        "2023-02-29",
        "1900-02-29",
        "2024-13-01",
        "2024-00-10",
        "2024-04-31",
        "0000-01-01",
        "24-01-01",
        "2024-1-1",
        "20240101",
        "2024-01-01 10:00",
        "now",
        "99999999-01-01",
        "1/2/2024",
    ];
    refused(&ColumnType::Date, Reason::InvalidDate, &days);
    refused(
        &ColumnType::Date,
        Reason::OutOfRange,
        &["5874898-01-01", "4714-11-23 BC"],
    );
    let times = [
        "",
        "10",
        "25:00",
        "24:00:01",
        "12:60",
        "12:00:61",
        "12:00:00.",
        "1:00",
        "12:00Z",
        "12:00:00+02",
        "23:59:60.5",
    ];
    refused(&ColumnType::Time, Reason::InvalidTime, &times);
    let moments = [
        "2024-01-01  10:00",
        "2024-01-01x",
        "2024-01-01 10:00 CET",
        "10:00",
        "epoch",
    ];
    refused(&ColumnType::Timestamp, Reason::InvalidTimestamp, &moments);
    refused(&ColumnType::Timestamptz, Reason::InvalidTimestamp, &moments);
    let offsets = [
        "2024-01-01 10:00Z",
        "2024-01-01 10:00:00+02",
        "2024-01-01T10:00 UTC",
    ];
    refused(&ColumnType::Timestamp, Reason::InvalidTimestamp, &offsets);
    let wide = [
        "2024-01-01 10:00+16",
        "2024-01-01 10:00+15:60",
        "2024-01-01 10:00+1",
    ];
    refused(&ColumnType::Timestamptz, Reason::InvalidTimestamp, &wide);
    refused(
        &ColumnType::Timestamp,
        Reason::OutOfRange,
        &["294277-01-01", "4714-11-23 BC"],
    );
    let edge = [
        "294276-12-31 23:59:59-01",
        "4714-11-24 00:00:00+01 BC",
        "5874897-01-01",
    ];
    refused(&ColumnType::Timestamptz, Reason::OutOfRange, &edge);
}

#[test]
fn texts() {
    refused(&ColumnType::Text, Reason::InvalidText, &["a\0b"]);
    refused(
        &ColumnType::Other { sql: "inet".into() },
        Reason::InvalidText,
        &["\0"],
    );
    let three = ColumnType::Varchar { max: Some(3) };
    refused(&three, Reason::TooLong, &["abcd", "äöüß", "ab  x"]);
    refused(&three, Reason::InvalidText, &["\0"]);
    refused(
        &ColumnType::Interval,
        Reason::TooLong,
        &[&"1 day ".repeat(40)],
    );
    refused(&ColumnType::Interval, Reason::InvalidInterval, &["", "  "]);
    refused(
        &ColumnType::Bool,
        Reason::InvalidBool,
        &["", "o", "truee", "10", "ja", "2"],
    );
}

#[test]
fn binaries() {
    let hex = [
        "", "deadbeef", "\\xd", "\\xd ead", "\\xgg", "\\X00", "3q2+7w==", "\\336",
    ];
    refused(&ColumnType::Bytea, Reason::InvalidBytea, &hex);
    let uuids = [
        "",
        "{}",
        " 123e4567e89b12d3a456426614174000",
        "{123e4567e89b12d3a456426614174000",
        "123e4567e89b12d3a45642661417400",
        "123e4567e89b12d3a456426614174000-",
        "12-3e4567e89b12d3a456426614174000",
        "123e4567--e89b12d3a456426614174000",
    ];
    refused(&ColumnType::Uuid, Reason::InvalidUuid, &uuids);
}

#[test]
fn json() {
    let broken = [
        "",
        " ",
        "{",
        "[1,]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "nul",
        "01",
        "-",
        "1.",
        ".5",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "1 1",
        "[1}",
        "NaN",
        "'a'",
        "\u{a0}1",
        "a\0",
        "truex",
        "[1 2]",
        "{\"a\":1,}",
    ];
    refused(&ColumnType::Json, Reason::InvalidJson, &broken);
    refused(&ColumnType::Jsonb, Reason::InvalidJson, &broken);
    let undecodable = [
        "\"\\u0000\"",
        "\"\\ud83d\"",
        "\"\\ude00\"",
        "\"\\ud83d\\u0041\"",
        "\"\\ud83d\\ud83d\\ude00\"",
        "\"\\ud83d\\n\"",
        "1e131072",
        "[1e-16384]",
        "1e999999999999999999999",
    ];
    refused(&ColumnType::Jsonb, Reason::InvalidJson, &undecodable);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(text(&ColumnType::Jsonb, &nested(1000)).is_ok());
    refused(
        &ColumnType::Json,
        Reason::InvalidJson,
        &[&nested(1001), &"[".repeat(1_000_000)],
    );
}

#[test]
fn arrays() {
    let ints = ColumnType::Array(ArrayElement::Int2);
    let both = [
        "",
        "{",
        "}",
        "1",
        "{1",
        "{1}}",
        "{1}x",
        "{,1}",
        "{1,}",
        "{1,,2}",
        "{1 \"2\"}",
        "{}{}",
        "{{}}",
        "{{},{}}",
        "{{1,2},{3}}",
        "{{1},2}",
        "{1,{2}}",
        "{{1},NULL}",
        "{{{{{{{1}}}}}}}",
        "{\"1",
        "{1\\",
        "[1:2]={1,2}",
        "[1",
        "[1]x",
        "[[],[]]",
        "[[1],[2,3]]",
        "[{}]",
        "[true]",
    ];
    refused(&ints, Reason::InvalidArray, &both);
    refused(
        &ColumnType::Array(ArrayElement::Text),
        Reason::InvalidArray,
        &both,
    );
    let elements = [
        "{a}", "{1.5}", "{32768}", "{\"\"}", "[1.0]", "[1e3]", "[\"a\"]", "[40000]",
    ];
    refused(&ints, Reason::InvalidArray, &elements);
    let texts = ColumnType::Array(ArrayElement::Text);
    refused(
        &texts,
        Reason::InvalidArray,
        &["[1]", "[\"\\u0000\"]", "{a\"b}", "{\"a\"b}", "{a{}}"],
    );
    refused(&texts, Reason::InvalidText, &["{a\0}"]);
}

#[test]
fn messages_show_the_value_and_what_is_expected() {
    let message = |ty: &ColumnType, value: &str| match text(ty, value) {
        Ok(_) => panic!("{value} is no {ty}"),
        Err(fault) => fault.to_string(),
    };
    assert_eq!(
        message(&ColumnType::Int4, "12x"),
        "\"12x\" is not an int4: expected a whole number between -2147483648 and 2147483647"
    );
    assert_eq!(
        message(&declared(10, 2), "1e8"),
        "\"1e8\" overflows numeric(10,2): rounded to that scale its magnitude must be below 10^8"
    );
    assert_eq!(
        message(&ColumnType::Date, "2023-02-29"),
        "\"2023-02-29\" is not a date: there is no such day, expected YYYY-MM-DD, infinity or -infinity"
    );
    assert_eq!(
        message(&ColumnType::Jsonb, "[1,]"),
        "\"[1,]\" is not jsonb: expected a value at byte 3"
    );
    let long = message(&ColumnType::Int8, &format!("\n\0{}", "é".repeat(100)));
    assert!(
        long.starts_with(&format!("\"\\n\\0{}…\" is not an int8", "é".repeat(38))),
        "{long}"
    );
}
