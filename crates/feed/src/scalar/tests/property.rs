//! Whatever comes in, a value comes out in its column's form or a refusal does; never a panic.

use jiff::civil;
use proptest::prelude::*;

use super::super::{from_bytes, from_f64, from_i64, from_text};
use super::{PLAIN, declared, text};
use crate::types::{ArrayElement, ColumnType, Storage};

fn any_type() -> impl Strategy<Value = ColumnType> {
    use ColumnType as T;
    let sized = prop_oneof![
        (any::<u16>(), any::<i16>()).prop_map(|(precision, scale)| declared(precision, scale)),
        (1..=20_u16, -5..=25_i16).prop_map(|(precision, scale)| declared(precision, scale)),
        proptest::option::of(0..20_u32).prop_map(|max| T::Varchar { max }),
        (0..20_u32).prop_map(|len| T::Char { len }),
    ];
    let plain = proptest::sample::select(vec![
        T::Bool,
        T::Int2,
        T::Int4,
        T::Int8,
        T::Float4,
        T::Float8,
        PLAIN,
        T::Text,
        T::Bytea,
        T::Uuid,
        T::Date,
        T::Time,
        T::Timestamp,
        T::Timestamptz,
        T::Interval,
        T::Json,
        T::Jsonb,
        T::Array(ArrayElement::Int2),
        T::Array(ArrayElement::Int4),
        T::Array(ArrayElement::Int8),
        T::Array(ArrayElement::Text),
        T::Other { sql: "inet".into() },
    ]);
    prop_oneof![1 => sized, 4 => plain]
}

/// Arbitrary text, and text that is nearly right for one of the types.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[-+]?[0-9]{0,25}[.]?[0-9]{0,25}([eE][-+]?[0-9]{1,9})?",
        "[0-9]{3,8}-[0-9]{1,2}-[0-9]{1,2}([ Tt][0-9:.]{0,20}[-+Z ]?[0-9:A-Z ]{0,9})?( BC)?",
        "[\\[\\]{},:\"0-9a-fnulre\\\\ .-]{0,30}",
        "[{\\[]([{\\[]?(1|22|null|NULL|\"a\"|\"\\\\\\\\u00e9\"|a b)[}\\]]?[, ]){0,6}[}\\]]?",
        "\\\\x[0-9a-f ]{0,12}",
        "[{]?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}[}]?",
    ]
}

/// The value in `out` has the form that the column's storage and wire type promise.
fn check_form(ty: &ColumnType, out: &[u8]) {
    match ty.storage() {
        Storage::Fixed(width) => assert_eq!(out.len(), width),
        Storage::Var => match ty {
            ColumnType::Numeric { .. } => {
                let groups = usize::from(u16::from_be_bytes([out[0], out[1]]));
                assert_eq!(out.len(), 8 + 2 * groups);
                for group in out[8..].chunks(2) {
                    assert!(u16::from_be_bytes([group[0], group[1]]) < 10_000);
                }
            }
            ColumnType::Bytea => {}
            ColumnType::Jsonb => assert_eq!(out[0], 1),
            _ => {
                let text = std::str::from_utf8(out).expect("sent as text");
                assert!(!text.contains('\0'));
            }
        },
    }
}

/// The numeric in `out` in plain decimal form, without zeros that do not count.
fn plain_decimal(out: &[u8]) -> String {
    let word = |at: usize| u16::from_be_bytes([out[2 * at], out[2 * at + 1]]);
    let groups = usize::from(word(0));
    let weight = i64::from(word(1) as i16);
    let mut digits = String::new();
    for group in 0..groups {
        digits += &format!("{:04}", word(4 + group));
    }
    let exponent = (weight + 1) * 4 - digits.len() as i64;
    normal(word(2) == 0x4000, &digits, exponent)
}

/// Sign, digits without zeros at the ends, power of ten of the last digit.
fn normal(negative: bool, digits: &str, exponent: i64) -> String {
    let kept = digits.trim_end_matches('0');
    let exponent = exponent + (digits.len() - kept.len()) as i64;
    match kept.trim_start_matches('0') {
        "" => "0".to_owned(),
        kept => format!("{}{kept}e{exponent}", if negative { "-" } else { "" }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_text_for_any_type(ty in any_type(), text in any_text()) {
        let mut out = vec![0xAB];
        match from_text(&ty, &text, &mut out) {
            Ok(()) => check_form(&ty, &out[1..]),
            Err(fault) => {
                prop_assert_eq!(&out[..], &[0xAB][..]);
                prop_assert!(!fault.message.contains('\0'));
                prop_assert!(fault.message.len() < 1000);
            }
        }
    }

    #[test]
    fn any_bytes_for_any_type(ty in any_type(), bytes in any::<Vec<u8>>()) {
        let mut out = Vec::new();
        match from_bytes(&ty, &bytes, &mut out) {
            Ok(()) => check_form(&ty, &out),
            Err(_) => prop_assert!(out.is_empty()),
        }
    }

    #[test]
    fn any_number_for_any_type(ty in any_type(), whole in any::<i64>(), float in any::<f64>()) {
        let mut out = Vec::new();
        if from_i64(&ty, whole, &mut out).is_ok() {
            check_form(&ty, &out);
        }
        out.clear();
        if from_f64(&ty, float, &mut out).is_ok() {
            check_form(&ty, &out);
        }
    }

    #[test]
    fn whole_numbers_survive(value in any::<i64>()) {
        let bytes = value.to_le_bytes().to_vec();
        prop_assert_eq!(text(&ColumnType::Int8, &value.to_string()), Ok(bytes));
        let fits = i32::try_from(value).ok().map(|value| value.to_le_bytes().to_vec());
        prop_assert_eq!(text(&ColumnType::Int4, &value.to_string()).ok(), fits);
    }

    #[test]
    fn floats_survive(double in any::<f64>(), single in any::<f32>()) {
        let single_text = format!("{single:e}");
        prop_assert_eq!(text(&ColumnType::Float8, &double.to_string()), Ok(double.to_le_bytes().to_vec()));
        prop_assert_eq!(text(&ColumnType::Float4, &single_text), Ok(single.to_le_bytes().to_vec()));
    }

    #[test]
    fn numerics_keep_every_digit(
        negative in any::<bool>(), int in "[0-9]{0,40}", frac in "[0-9]{1,40}", exponent in -300..300_i64
    ) {
        let sign = if negative { "-" } else { "" };
        let out = text(&PLAIN, &format!("{sign}{int}.{frac}e{exponent}")).expect("a numeric");
        let expected = normal(negative, &format!("{int}{frac}"), exponent - frac.len() as i64);
        prop_assert_eq!(plain_decimal(&out), expected);
    }

    #[test]
    fn numerics_round_half_away_from_zero(value in any::<i64>(), scale in 0..6_i16, dropped in 1..6_u32) {
        let places = scale as u32 + dropped;
        let power = 10_i128.pow(dropped);
        let value = i128::from(value);
        let rounded = (value.abs() + power / 2) / power;
        let out = text(&declared(40, scale), &format!("{value}e-{places}")).expect("a numeric");
        let expected = normal(value < 0, &rounded.to_string(), -i64::from(scale));
        prop_assert_eq!(plain_decimal(&out), expected);
        prop_assert_eq!(&out[6..8], &scale.to_be_bytes()[..]);
    }

    #[test]
    fn dates_agree_with_jiff(year in 1..=9999_i16, month in 1..=12_i8, day in 1..=31_i8) {
        let value = format!("{year:04}-{month:02}-{day:02}");
        let days = civil::Date::new(year, month, day).ok().map(|date| {
            (date - civil::date(2000, 1, 1)).get_days().to_le_bytes().to_vec()
        });
        prop_assert_eq!(text(&ColumnType::Date, &value).ok(), days);
    }

    #[test]
    fn timestamps_agree_with_their_count(unix_us in -62_135_596_800_000_000..253_402_207_200_000_000_i64) {
        let moment = jiff::Timestamp::from_microsecond(unix_us).expect("in jiff's range").to_string();
        let mut counted = Vec::new();
        prop_assert!(from_i64(&ColumnType::Timestamptz, unix_us, &mut counted).is_ok());
        prop_assert_eq!(text(&ColumnType::Timestamptz, &moment), Ok(counted.clone()));
        let plain = moment.trim_end_matches('Z').replace('T', " ");
        prop_assert_eq!(text(&ColumnType::Timestamp, &plain), Ok(counted));
    }

    /// serde_json's tree is stricter than jsonb only in the range of its floats.
    #[test]
    fn json_agrees_with_serde(value in "[\\[\\]{},:\"01ab\\\\ .-]{0,12}") {
        let ours = text(&ColumnType::Jsonb, &value).is_ok();
        prop_assert_eq!(ours, serde_json::from_str::<serde_json::Value>(&value).is_ok());
    }

    #[test]
    fn json_arrays_become_the_same_literals(
        texts in proptest::collection::vec(proptest::option::of("[^\0]{0,8}"), 0..5)
    ) {
        let json = serde_json::to_string(&texts).expect("strings");
        let ty = ColumnType::Array(ArrayElement::Text);
        let literal = text(&ty, &json).expect("an array");
        let literal = String::from_utf8(literal).expect("text");
        prop_assert_eq!(text(&ty, &literal), Ok(literal.clone().into_bytes()));
        let items = texts.iter().map(|text| match text {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        });
        prop_assert_eq!(literal, format!("{{{}}}", items.collect::<Vec<_>>().join(",")));
    }
}
