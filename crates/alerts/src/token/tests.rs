use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::*;
use crate::{PageMark, Snapshot};

fn snapshots() -> impl Strategy<Value = Snapshot> {
    (1..u64::MAX / 2, 0..u64::from(u32::MAX)).prop_flat_map(|(xmin, width)| {
        btree_set(0..width.max(1), 0..20).prop_map(move |running| {
            let xip = running.iter().filter(|d| **d < width).map(|d| xmin + d);
            Snapshot::new(xmin, xmin + width, xip.collect()).unwrap()
        })
    })
}

fn cursors() -> impl Strategy<Value = Cursor> {
    let mark = (snapshots(), any::<i64>());
    let mark = mark.prop_map(|(upper, after_seq)| PageMark { upper, after_seq });
    (snapshots(), proptest::option::of(mark)).prop_map(|(base, page)| Cursor { base, page })
}

fn tokens() -> impl Strategy<Value = Token> {
    let identity = (any::<u64>(), any::<u32>());
    let identity = identity.prop_map(|(system_id, timeline)| Identity {
        system_id,
        timeline,
    });
    let position = (identity, cursors());
    let position = position.prop_map(|(identity, cursor)| Position { identity, cursor });
    let positions = btree_map(any::<u8>().prop_map(InstanceName::new), position, 0..10);
    (any::<[u8; 16]>(), positions).prop_map(|(cluster, positions)| Token { cluster, positions })
}

proptest! {
    #[test]
    fn round_trips(token in tokens()) {
        let text = token.encode();
        prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        prop_assert_eq!(Token::decode(&text), Ok(token));
    }

    #[test]
    fn a_cut_token_is_refused(token in tokens(), keep in 0.0..1.0f64) {
        let text = token.encode();
        let cut = &text[..(text.len() as f64 * keep) as usize];
        prop_assert!(Token::decode(cut).is_err());
    }

    #[test]
    fn a_changed_token_is_refused(token in tokens(), place in any::<prop::sample::Index>()) {
        let mut text = token.encode().into_bytes();
        let place = place.index(text.len());
        text[place] = if text[place] == b'A' { b'B' } else { b'A' };
        prop_assert!(Token::decode(std::str::from_utf8(&text).unwrap()).is_err());
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        prop_assert!(Token::decode(&text).is_err());
    }

    #[test]
    fn no_body_with_a_right_checksum_panics(mut body in proptest::collection::vec(any::<u8>(), 0..200)) {
        body.insert(0, VERSION);
        body.extend_from_slice(&crc32(&body).to_le_bytes());
        let _ = Token::decode(&URL_SAFE_NO_PAD.encode(body));
    }
}

fn token(instances: u8, xip: u64) -> Token {
    let base = Snapshot::new(
        1000,
        1000 + 3 * xip,
        (0..xip).map(|i| 1000 + 3 * i).collect(),
    );
    let cursor = Cursor::at(base.unwrap());
    let identity = Identity {
        system_id: u64::MAX,
        timeline: 1,
    };
    let position = Position { identity, cursor };
    let names = (0..=instances).map(InstanceName::new);
    let positions = names.map(|name| (name, position.clone())).collect();
    Token {
        cluster: [7; 16],
        positions,
    }
}

#[test]
fn says_why_a_text_is_refused() {
    let text = token(3, 2).encode();
    assert_eq!(Token::decode(""), Err(TokenError::Malformed("empty")));
    assert!(matches!(
        Token::decode("a=b"),
        Err(TokenError::Malformed(_))
    ));
    let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
    bytes[0] = 9;
    let other = URL_SAFE_NO_PAD.encode(&bytes);
    assert_eq!(Token::decode(&other), Err(TokenError::UnknownVersion(9)));
    bytes[0] = VERSION;
    bytes[20] ^= 1;
    let changed = URL_SAFE_NO_PAD.encode(&bytes);
    assert_eq!(Token::decode(&changed), Err(TokenError::Checksum));
    let long = "A".repeat(Token::MAX_BYTES + 1);
    assert_eq!(Token::decode(&long), Err(TokenError::TooLong(long.len())));
    assert_eq!(
        token(0, 0).check_cluster(&[8; 16]),
        Err(TokenError::OtherCluster)
    );
    assert_eq!(token(0, 0).check_cluster(&[7; 16]), Ok(()));
}

#[test]
fn a_token_that_would_be_too_long_is_coarser_and_earlier() {
    let precise = token(255, 100);
    assert_eq!(Token::decode(&precise.encode()).as_ref(), Ok(&precise));
    let huge = token(255, 2000);
    let text = huge.encode();
    assert!(text.len() <= Token::MAX_BYTES);
    let decoded = Token::decode(&text).unwrap();
    for (name, position) in &decoded.positions {
        assert!(huge.positions[name].cursor.covers(&position.cursor));
    }
}

#[test]
fn crc32_has_its_check_value() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}
