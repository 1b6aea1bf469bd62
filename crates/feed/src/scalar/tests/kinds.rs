//! Values that do not come as text, and keys going back to text.

use pgbraid_shardmap::KeyType;

use super::super::{
    Reason, ValueError, from_bool, from_bytes, from_f64, from_i64, render::key_text,
};

use super::{PLAIN, declared, text};
use crate::types::{ArrayElement, ColumnType};

fn whole(ty: &ColumnType, v: i64) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::new();
    from_i64(ty, v, &mut out).map(|()| out)
}

fn float(ty: &ColumnType, v: f64) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::new();
    from_f64(ty, v, &mut out).map(|()| out)
}

fn bytes(ty: &ColumnType, v: &[u8]) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::new();
    from_bytes(ty, v, &mut out).map(|()| out)
}

fn reason(result: Result<Vec<u8>, ValueError>) -> Option<Reason> {
    result.err().map(|fault| fault.reason)
}

/// One column of every type.
fn every_type() -> Vec<ColumnType> {
    vec![
        ColumnType::Bool,
        ColumnType::Int2,
        ColumnType::Int4,
        ColumnType::Int8,
        ColumnType::Float4,
        ColumnType::Float8,
        PLAIN,
        ColumnType::Text,
        ColumnType::Varchar { max: None },
        ColumnType::Char { len: 1 },
        ColumnType::Bytea,
        ColumnType::Uuid,
        ColumnType::Date,
        ColumnType::Time,
        ColumnType::Timestamp,
        ColumnType::Timestamptz,
        ColumnType::Interval,
        ColumnType::Json,
        ColumnType::Jsonb,
        ColumnType::Array(ArrayElement::Int4),
        ColumnType::Other { sql: "inet".into() },
    ]
}

#[test]
fn each_kind_has_its_types() {
    let taking = |takes: &dyn Fn(&ColumnType) -> Option<Reason>| -> String {
        let types = every_type();
        let taking = types
            .iter()
            .filter(|ty| takes(ty) != Some(Reason::WrongType));
        taking
            .map(ColumnType::sql_name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut out = Vec::new();
    assert_eq!(
        taking(&|ty| reason(whole(ty, 1))),
        "int2 int4 int8 float4 float8 numeric date time timestamp timestamptz"
    );
    assert_eq!(
        taking(&|ty| reason(float(ty, 1.0))),
        "float4 float8 numeric"
    );
    assert_eq!(
        taking(&|ty| reason(bytes(ty, b"1"))),
        "text varchar char(1) bytea uuid interval json jsonb int4[] inet"
    );
    for ty in every_type() {
        let taken = from_bool(&ty, true, &mut out).is_ok();
        assert_eq!(taken, ty == ColumnType::Bool, "{ty}");
    }
    assert_eq!(out, [1]);
}

#[test]
fn wrong_types_are_explained() {
    assert_eq!(
        whole(&ColumnType::Uuid, 1).map_err(|fault| fault.message),
        Err("a whole number was sent for a column of type uuid: \
             expected 16 bytes, or text with 32 hex digits"
            .to_owned())
    );
}

#[test]
fn whole_numbers() {
    assert_eq!(whole(&ColumnType::Int2, -2), Ok(vec![0xfe, 0xff]));
    assert_eq!(
        reason(whole(&ColumnType::Int2, 40_000)),
        Some(Reason::OutOfRange)
    );
    assert_eq!(
        whole(&ColumnType::Int8, i64::MIN),
        text(&ColumnType::Int8, &i64::MIN.to_string())
    );
    assert_eq!(
        whole(&ColumnType::Float4, 3),
        text(&ColumnType::Float4, "3")
    );
    assert_eq!(whole(&PLAIN, i64::MIN), text(&PLAIN, &i64::MIN.to_string()));
    assert_eq!(whole(&declared(4, 2), 12), text(&declared(4, 2), "12.00"));
    assert_eq!(
        reason(whole(&declared(4, 2), 100)),
        Some(Reason::OutOfRange)
    );
}

#[test]
fn counts_since_the_unix_epoch() {
    let moment = "2017-10-02 10:56:33";
    for ty in [ColumnType::Timestamp, ColumnType::Timestamptz] {
        assert_eq!(whole(&ty, 1_506_941_793_000_000), text(&ty, moment));
        assert_eq!(whole(&ty, 0), text(&ty, "1970-01-01"));
        assert_eq!(reason(whole(&ty, i64::MIN)), Some(Reason::OutOfRange));
        // The whole upper range of such a count is before the end of a timestamp's.
        let last = text(&ty, "294247-01-10 04:00:54.775807");
        assert_eq!(whole(&ty, i64::MAX), last);
    }
    assert_eq!(
        whole(&ColumnType::Date, -1),
        text(&ColumnType::Date, "1969-12-31")
    );
    assert_eq!(
        whole(&ColumnType::Date, 19_782),
        text(&ColumnType::Date, "2024-02-29")
    );
    assert_eq!(
        reason(whole(&ColumnType::Date, i64::MIN)),
        Some(Reason::OutOfRange)
    );
    assert_eq!(
        reason(whole(&ColumnType::Date, i64::from(i32::MAX))),
        Some(Reason::OutOfRange)
    );
    assert_eq!(
        whole(&ColumnType::Time, 86_400_000_000),
        text(&ColumnType::Time, "24:00")
    );
    assert_eq!(
        reason(whole(&ColumnType::Time, -1)),
        Some(Reason::OutOfRange)
    );
    assert_eq!(
        reason(whole(&ColumnType::Time, 86_400_000_001)),
        Some(Reason::OutOfRange)
    );
}

#[test]
fn floats() {
    assert_eq!(float(&PLAIN, 0.1), text(&PLAIN, "0.1"));
    assert_eq!(float(&PLAIN, 1e300), text(&PLAIN, "1e300"));
    assert_eq!(float(&PLAIN, -0.0), text(&PLAIN, "0"));
    assert_eq!(float(&PLAIN, f64::NAN), text(&PLAIN, "NaN"));
    assert_eq!(float(&PLAIN, f64::NEG_INFINITY), text(&PLAIN, "-Infinity"));
    assert_eq!(
        float(&declared(10, 2), 0.125),
        text(&declared(10, 2), "0.13")
    );
    assert_eq!(
        float(&declared(10, 2), f64::NAN),
        text(&declared(10, 2), "NaN")
    );
    assert_eq!(
        reason(float(&declared(10, 2), f64::INFINITY)),
        Some(Reason::OutOfRange)
    );
    assert_eq!(
        reason(float(&ColumnType::Float4, 1e39)),
        Some(Reason::OutOfRange)
    );
    assert_eq!(
        reason(float(&ColumnType::Float4, 1e-50)),
        Some(Reason::OutOfRange)
    );
    assert_eq!(
        float(&ColumnType::Float4, f64::INFINITY),
        text(&ColumnType::Float4, "inf")
    );
    assert_eq!(
        float(&ColumnType::Float8, -f64::NAN),
        text(&ColumnType::Float8, "NaN")
    );
    assert_eq!(
        reason(float(&ColumnType::Int4, 1.0)),
        Some(Reason::WrongType)
    );
}

#[test]
fn bytes_of_each_kind() {
    assert_eq!(bytes(&ColumnType::Bytea, &[0, 0xff]), Ok(vec![0, 0xff]));
    assert_eq!(bytes(&ColumnType::Uuid, &[7; 16]), Ok(vec![7; 16]));
    assert_eq!(
        reason(bytes(&ColumnType::Uuid, &[7; 15])),
        Some(Reason::InvalidUuid)
    );
    assert_eq!(bytes(&ColumnType::Text, "é".as_bytes()), Ok("é".into()));
    assert_eq!(
        reason(bytes(&ColumnType::Text, &[b'a', 0xff])),
        Some(Reason::InvalidUtf8)
    );
    assert_eq!(
        reason(bytes(&ColumnType::Text, &[0])),
        Some(Reason::InvalidText)
    );
    assert_eq!(bytes(&ColumnType::Jsonb, b"1"), Ok(vec![1, b'1']));
    assert_eq!(
        reason(bytes(&ColumnType::Json, b"{")),
        Some(Reason::InvalidJson)
    );
    let fault = bytes(&ColumnType::Text, &[b'a', 0xff]).map_err(|fault| fault.message);
    assert_eq!(
        fault,
        Err("\"a�\" is not UTF-8 at byte 1: expected text as UTF-8".to_owned())
    );
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let mut out = vec![9];
    assert!(from_bytes(&ColumnType::Bytea, &[1], &mut out).is_ok());
    assert!(super::from_text(&ColumnType::Bytea, "\\xaabbc", &mut out).is_err());
    assert!(from_i64(&ColumnType::Int2, 99_999, &mut out).is_err());
    assert_eq!(out, [9, 1]);
}

#[test]
fn keys_as_postgresql_prints_them() {
    assert_eq!(key_text(KeyType::Int8, &(-5_i64).to_le_bytes()), "-5");
    let uuid = text(&ColumnType::Uuid, "{123E4567E89B12D3A456426614174000}").expect("a uuid");
    assert_eq!(
        key_text(KeyType::Uuid, &uuid),
        "123e4567-e89b-12d3-a456-426614174000"
    );
    assert_eq!(key_text(KeyType::Text, "ö 1".as_bytes()), "ö 1");
    assert_eq!(key_text(KeyType::Text, b""), "");
    // No keys, but they can be shown.
    assert_eq!(key_text(KeyType::Int8, &[1, 0xff]), "\\x01ff");
    assert_eq!(key_text(KeyType::Uuid, &[1; 3]), "\\x010101");
    assert_eq!(key_text(KeyType::Text, &[0xff]), "\\xff");
}
