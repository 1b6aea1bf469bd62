use super::*;

/// Made by PostgreSQL 15: `hashint8extended(key, 8816678312871386365)`.
const INT8: &[(i64, i64)] = &[
    (0, -4403592609991167795),
    (1, 5968994663651403477),
    (-1, -5017072347659237694),
    (42, 7363975540656877951),
    (2147483647, -6050265599104649060),
    (2147483648, 4938542303000433043),
    (-2147483648, 4938542303000433043),
    (-2147483649, -6050265599104649060),
    (4294967295, -5017072347659237694),
    (4294967296, 5968994663651403477),
    (i64::MAX, 4938542303000433043),
    (i64::MIN, -6050265599104649060),
    (1234567890123456789, -9105224441813162067),
];

/// Made by PostgreSQL 15: `hashtextextended(key, 8816678312871386365)`.
const TEXT: &[(&str, i64)] = &[
    ("", -5700645584453517373),
    ("a", -6705225459120232837),
    ("ab", 596009030900183869),
    ("abc", 3628778498291917250),
    ("abcd", 4029384952263848046),
    ("abcdefg", -1516236981150442578),
    ("abcdefgh", -7754745184861941070),
    ("abcdefghi", -7860738947571725408),
    ("abcdefghij", -8306284229451770207),
    ("abcdefghijk", -2046435308545367432),
    ("abcdefghijkl", -7876791541613377658),
    ("abcdefghijklm", -6785754114725280077),
    ("e481f51cbdc54678b7cc49136f2d6af7", 7728007709883536533),
    ("Größe", -1202119147039885323),
    ("注文-七", 7003159727005032708),
    ("🦀", 1255201537425408073),
];

/// Made by PostgreSQL 15: `hashtextextended(repeat('x', 1000), 8816678312871386365)`.
const LONG_TEXT: i64 = 2850011608476373763;

/// Made by PostgreSQL 15: `uuid_hash_extended(key, 8816678312871386365)`, the key as a number.
const UUID: &[(u128, i64)] = &[
    (0x00000000000000000000000000000000, -5281082146396728638),
    (0xffffffffffffffffffffffffffffffff, -148986464341306210),
    (0xe481f51cbdc54678b7cc49136f2d6af7, -7998802493982707145),
];

fn row_hash(extended: i64) -> u64 {
    combine(0, extended as u64)
}

#[test]
fn the_seed_is_the_one_in_the_golden_values() {
    assert_eq!(HASH_PARTITION_SEED, 8_816_678_312_871_386_365);
}

#[test]
fn int8_is_hashed_like_postgresql() {
    for &(key, extended) in INT8 {
        assert_eq!(int8(key), row_hash(extended), "key {key}");
    }
}

#[test]
fn text_is_hashed_like_postgresql() {
    for &(key, extended) in TEXT {
        assert_eq!(bytes(key.as_bytes()), row_hash(extended), "key {key:?}");
    }
    assert_eq!(bytes("x".repeat(1000).as_bytes()), row_hash(LONG_TEXT));
}

#[test]
fn uuid_is_hashed_like_postgresql() {
    for &(key, extended) in UUID {
        assert_eq!(bytes(&key.to_be_bytes()), row_hash(extended), "key {key:x}");
    }
}

/// Where PostgreSQL 15 put these rows in tables of 64 hash partitions.
#[test]
fn rows_go_where_postgresql_puts_them() {
    let table = |hash| table_of(hash, 64).index();
    for (key, partition) in [(42, 34), (-1, 37), (0, 48), (i64::MAX, 54), (i64::MIN, 63)] {
        assert_eq!(table(int8(key)), partition, "key {key}");
    }
    let text = [
        ("Größe", 24),
        ("", 38),
        ("e481f51cbdc54678b7cc49136f2d6af7", 56),
    ];
    for (key, partition) in text {
        assert_eq!(table(bytes(key.as_bytes())), partition, "key {key:?}");
    }
    let uuid = 0xe481f51cbdc54678b7cc49136f2d6af7_u128;
    assert_eq!(table(bytes(&uuid.to_be_bytes())), 26);
    assert_eq!(table(bytes(&[0; 16])), 37);
}

#[test]
fn no_tables_do_not_panic() {
    assert_eq!(table_of(u64::MAX, 0), TableId::new(0));
}

proptest::proptest! {
    /// Many keys at once go where each goes by itself.
    #[test]
    fn tables_of_keys_are_those_of_each_key(
        keys in proptest::collection::vec(proptest::num::i64::ANY, 0..50),
        tables in 0u32..5000,
    ) {
        let bytes: Vec<[u8; 8]> = keys.iter().map(|key| key.to_le_bytes()).collect();
        for tables in [tables, tables.next_power_of_two()] {
            let each: Vec<u32> =
                keys.iter().map(|key| table_of(int8(*key), tables).index()).collect();
            proptest::prop_assert_eq!(tables_of_int8(&bytes, tables), each);
        }
    }
}
