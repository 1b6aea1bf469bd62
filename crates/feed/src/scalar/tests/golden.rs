//! Values as PostgreSQL 15 itself sent them (`select encode(numeric_send($1::numeric), 'hex')` and
//! so on), so that a test needs no server to compare with it.

use super::{PLAIN, declared, sent_hex, text};
use crate::types::{ArrayElement, ColumnType};

const SENT: &[(ColumnType, &str, &str)] = &[
    (PLAIN, "0", "0000000000000000"),
    (PLAIN, "0.00", "0000000000000002"),
    (PLAIN, "-0", "0000000000000000"),
    (PLAIN, "1", "00010000000000000001"),
    (PLAIN, "-12.50", "0002000040000002000c1388"),
    (PLAIN, "10000", "00010001000000000001"),
    (PLAIN, "0.0001", "0001ffff000000040001"),
    (
        PLAIN,
        "123456789.987654321",
        "0006000200000009000109291a852694153803e8",
    ),
    (PLAIN, "1e20", "00010005000000000001"),
    (PLAIN, "1e-5", "0001fffe0000000503e8"),
    (PLAIN, "1e131071", "00017fff0000000003e8"),
    (PLAIN, "1e-16383", "0001f00000003fff000a"),
    (PLAIN, "NaN", "00000000c0000000"),
    (PLAIN, "Infinity", "00000000d0000020"),
    (PLAIN, "-inf", "00000000f0000020"),
    (PLAIN, "0e99999", "0000000000000000"),
    (PLAIN, "00012.3400", "0002000000000004000c0d48"),
    (
        declared(10, 2),
        "99999999.994",
        "0003000100000002270f270f26ac",
    ),
    (declared(10, 2), "-0.005", "0001ffff400000020064"),
    (declared(10, 2), "0.004", "0000000000000002"),
    (declared(10, 2), "-0.004", "0000000000000002"),
    (declared(5, 0), "9999.5", "00010001000000000001"),
    (declared(5, 0), "NaN", "00000000c0000000"),
    (declared(3, -3), "149999.5", "0001000100000000000f"),
    (declared(3, -3), "499", "0000000000000000"),
    (declared(3, -3), "500", "000100000000000003e8"),
    (declared(2, 4), "0.00994999", "0001ffff000000040063"),
    (declared(2, 4), "0.00005", "0001ffff000000040001"),
    (ColumnType::Date, "2000-01-01", "00000000"),
    (ColumnType::Date, "1970-01-01", "ffffd533"),
    (ColumnType::Date, "2024-02-29", "00002279"),
    (ColumnType::Date, "1900-03-01", "ffff718f"),
    (ColumnType::Date, "0001-01-01", "fff4dbf9"),
    (ColumnType::Date, "0044-03-15 BC", "fff49d7b"),
    (ColumnType::Date, "4714-11-24 BC", "ffda97a7"),
    (ColumnType::Date, "5874897-12-31", "7fda970c"),
    (ColumnType::Date, "infinity", "7fffffff"),
    (ColumnType::Date, "-infinity", "80000000"),
    (ColumnType::Time, "13:45", "0000000b866e0f00"),
    (ColumnType::Time, "00:00:00.000001", "0000000000000001"),
    (ColumnType::Time, "24:00:00", "000000141dd76000"),
    (ColumnType::Time, "23:59:59.9999999", "000000141dd76000"),
    (ColumnType::Time, "12:00:00.0000005", "0000000a0eebb000"),
    (ColumnType::Time, "12:00:00.0000015", "0000000a0eebb002"),
    (ColumnType::Time, "12:30:60", "0000000a7dc90900"),
    (
        ColumnType::Timestamp,
        "2000-01-01 00:00:00",
        "0000000000000000",
    ),
    (
        ColumnType::Timestamp,
        "1999-12-31 23:59:59.999999",
        "ffffffffffffffff",
    ),
    (
        ColumnType::Timestamp,
        "2017-10-02T10:56:33",
        "0001fd8cff0cfa40",
    ),
    (
        ColumnType::Timestamp,
        "294276-12-31 23:59:59.999999",
        "7fffff5bb3b29fff",
    ),
    (
        ColumnType::Timestamp,
        "4714-11-24 00:00:00 BC",
        "fd0f7cc1411fa000",
    ),
    (ColumnType::Timestamp, "2024-05-01", "0002ba57efb5a000"),
    (ColumnType::Timestamp, "infinity", "7fffffffffffffff"),
    (
        ColumnType::Timestamp,
        "2024-02-29 24:00:00",
        "0002b58cd363c000",
    ),
    (
        ColumnType::Timestamptz,
        "2017-10-02 10:56:33+00",
        "0001fd8cff0cfa40",
    ),
    (
        ColumnType::Timestamptz,
        "2017-10-02 10:56:33.5-03:30",
        "0001fd8fee195960",
    ),
    (
        ColumnType::Timestamptz,
        "2017-10-02 10:56:33 UTC",
        "0001fd8cff0cfa40",
    ),
    (
        ColumnType::Timestamptz,
        "2017-10-02T10:56:33+0530",
        "0001fd8862e0f440",
    ),
    (
        ColumnType::Timestamptz,
        "2017-10-02 10:56:33-15:59:59",
        "0001fd9a6837f800",
    ),
    (
        ColumnType::Timestamptz,
        "0044-03-15 12:00:00+02 BC",
        "ff1af9e74e1f8800",
    ),
    (ColumnType::Float4, "0.1", "3dcccccd"),
    (ColumnType::Float4, "1e-45", "00000001"),
    (ColumnType::Float8, "0.1", "3fb999999999999a"),
    (ColumnType::Float8, "-Infinity", "fff0000000000000"),
    (ColumnType::Float4, "16777217", "4b800000"),
];

#[test]
fn same_bytes_as_postgresql() {
    for (ty, value, hex) in SENT {
        let bytes = text(ty, value).unwrap_or_else(|fault| panic!("{value} as {ty}: {fault}"));
        assert_eq!(sent_hex(ty, bytes), *hex, "{value} as {ty}");
    }
}

/// A number at both limits: PostgreSQL takes it, and no digit is lost.
#[test]
fn the_longest_numeric() {
    let longest = format!("{}.{}", "9".repeat(131_072), "1".repeat(16_383));
    let bytes = text(&PLAIN, &longest).expect("at the limit");
    assert_eq!(bytes.len(), 8 + 2 * (131_072 / 4 + 16_384 / 4));
    assert!(bytes.starts_with(&[0x90, 0x00, 0x7f, 0xff, 0x00, 0x00, 0x3f, 0xff]));
    assert!(bytes.ends_with(&[0x04, 0x56]));
    assert!(text(&PLAIN, &format!("9{longest}")).is_err());
    assert!(text(&PLAIN, &format!("{longest}1")).is_err());
}

#[test]
fn words_for_bool() {
    for word in ["t", "TR", "true", "y", "Yes", "on", "1", " true\t"] {
        assert_eq!(text(&ColumnType::Bool, word), Ok(vec![1]), "{word}");
    }
    for word in ["f", "FALSE", "n", "no", "of", "off", "0"] {
        assert_eq!(text(&ColumnType::Bool, word), Ok(vec![0]), "{word}");
    }
}

#[test]
fn uuids_in_every_form() {
    let bytes = 0x123e_4567_e89b_12d3_a456_4266_1417_4000_u128
        .to_be_bytes()
        .to_vec();
    for form in [
        "123e4567-e89b-12d3-a456-426614174000",
        "123E4567E89B12D3A456426614174000",
        "{123e4567-e89b-12d3-a456-426614174000}",
        "123e-4567-e89b-12d3-a456-4266-1417-4000",
    ] {
        assert_eq!(text(&ColumnType::Uuid, form).as_ref(), Ok(&bytes), "{form}");
    }
}

#[test]
fn bytea_in_hex() {
    assert_eq!(
        text(&ColumnType::Bytea, "\\xdead BEEF"),
        Ok(vec![0xde, 0xad, 0xbe, 0xef])
    );
    assert_eq!(text(&ColumnType::Bytea, "\\x"), Ok(vec![]));
}

#[test]
fn blanks_beyond_the_length_are_cut() {
    let three = ColumnType::Varchar { max: Some(3) };
    assert_eq!(text(&three, "äöü"), Ok("äöü".into()));
    assert_eq!(text(&three, "ab   "), Ok("ab ".into()));
    assert_eq!(text(&ColumnType::Char { len: 3 }, "    "), Ok("   ".into()));
}

#[test]
fn json_is_kept_as_it_is() {
    let json = " {\"a\": [1, 2.50, null, \"\\ud83d\\ude00\"]} ";
    assert_eq!(text(&ColumnType::Json, json), Ok(json.into()));
    assert_eq!(
        text(&ColumnType::Jsonb, json),
        Ok(format!("\u{1}{json}").into())
    );
    // PostgreSQL's json does not look into escapes; its jsonb does.
    for escape in ["\"\\u0000\"", "\"\\ud83d\""] {
        assert!(text(&ColumnType::Json, escape).is_ok());
        assert!(text(&ColumnType::Jsonb, escape).is_err());
    }
}

/// Literals that PostgreSQL 15 takes go out as they are, JSON arrays as a literal.
#[test]
fn arrays() {
    let ints = ColumnType::Array(ArrayElement::Int4);
    let texts = ColumnType::Array(ArrayElement::Text);
    for literal in [
        "{}",
        "{1,NULL,null}",
        "{{1,2},{3,4}}",
        "{ 1 , \"2\" }",
        "{{{{{{1}}}}}}",
        "{\\1}",
    ] {
        assert_eq!(text(&ints, literal), Ok(literal.into()), "{literal}");
    }
    for literal in [
        "{a b, c }",
        "{\"a,b\",\"{}\",\"\"}",
        "{a\\,b}",
        "{\"q\\\"\",NULL}",
        "{é}",
    ] {
        assert_eq!(text(&texts, literal), Ok(literal.into()), "{literal}");
    }
    assert_eq!(
        text(&ints, " [[1, 2], [null, \"4\"]] "),
        Ok("{{1,2},{NULL,\"4\"}}".into())
    );
    assert_eq!(text(&ints, "[]"), Ok("{}".into()));
    assert_eq!(
        text(&texts, r#"["a b", null, "null", "q\"\\\u00e9", ""]"#),
        Ok(r#"{"a b",NULL,"null","q\"\\é",""}"#.into())
    );
}
