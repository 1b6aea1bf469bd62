use super::*;
use consistent_hash::RingHash as _;

/// Where every table of every feed lives without a pin follows from these. Never change them.
#[test]
fn golden_values() {
    assert_eq!(RingHash.hash_vnode(&0u8, 0), 0x2b72_ef49_cdd5_1e33);
    assert_eq!(RingHash.hash_vnode(&255u8, 255), 0x03ef_d141_5fb8_a55e);
    assert_eq!(feed_word("orders"), 0x6da8_aac5_3d8f_c8c2);
    assert_eq!(feed_word("größe_of_more_than_8"), 0xa2c2_e71f_c460_3b18);
    let point = Point { feed: 1, table: 63 };
    assert_eq!(RingHash.hash_item(&point), 0x12f6_b354_afaa_d0de);
}

#[test]
fn every_integer_is_a_word_of_one_width() {
    let word = |i: u64| RingHash.hash_item(&i);
    assert_eq!(RingHash.hash_item(&7u8), word(7));
    assert_eq!(RingHash.hash_item(&7u16), word(7));
    assert_eq!(RingHash.hash_item(&7u32), word(7));
    assert_eq!(RingHash.hash_item(&7usize), word(7));
    assert_eq!(RingHash.hash_item(&7i8), word(7));
    assert_eq!(RingHash.hash_item(&7i16), word(7));
    assert_eq!(RingHash.hash_item(&7i32), word(7));
    assert_eq!(RingHash.hash_item(&-7i64), word(7u64.wrapping_neg()));
    assert_eq!(RingHash.hash_item(&-7isize), word(7u64.wrapping_neg()));
}
