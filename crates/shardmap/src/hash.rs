//! PostgreSQL's hash partitioning: from a key to its table.
//!
//! A row of a table that is partitioned by hash goes to the partition whose remainder is the row's
//! hash modulo N. The row's hash combines the *extended* hashes of the key columns, each taken with
//! one fixed seed (`compute_partition_hash_value` in `src/backend/partitioning/partbounds.c`); here
//! the key is one column, not null. The hash of bytes is Bob Jenkins' lookup3 as PostgreSQL has it
//! (`src/common/hashfn.c`): a word is read in little-endian order, as it is on every platform
//! where an instance is likely to run. The result agrees with a PostgreSQL on such a platform.

use crate::TableId;

/// `HASH_PARTITION_SEED` of `src/include/catalog/partition.h`.
pub const HASH_PARTITION_SEED: u64 = 0x7A5B_2236_7996_DCFD;

/// The row hash of an `int8` key.
#[inline]
pub fn int8(key: i64) -> u64 {
    combine(0, extended_int8(key, HASH_PARTITION_SEED))
}

/// The row hash of a `text` key (its UTF-8 bytes) or a `uuid` key (its 16 bytes in network order).
///
/// A text key must have a deterministic collation, as every default collation is: only then does
/// PostgreSQL hash the bytes themselves.
#[inline]
pub fn bytes(key: &[u8]) -> u64 {
    combine(0, extended_bytes(key, HASH_PARTITION_SEED))
}

/// The table of a row: the row hash modulo the feed's number of tables. No tables are taken as one.
#[inline]
pub fn table_of(row_hash: u64, tables: u32) -> TableId {
    let tables = u64::from(tables.max(1));
    // A division costs more than the hash; the usual number of tables needs none.
    let remainder = match tables.is_power_of_two() {
        true => row_hash & (tables - 1),
        false => row_hash % tables,
    };
    // It is less than a u32, so the cast loses nothing.
    TableId::new(remainder as u32)
}

/// The tables of `int8` keys, given as little-endian bytes; as [`table_of`] of [`int8`], several at
/// a time where the processor can.
pub fn tables_of_int8(keys: &[[u8; 8]], tables: u32) -> Vec<u32> {
    let hash = |key: &[u8; 8]| int8(i64::from_le_bytes(*key));
    let count = tables.max(1);
    match count.is_power_of_two() {
        // Only the lower half of the hash is asked for, and so computed.
        true => (keys.iter())
            .map(|key| hash(key) as u32 & (count - 1))
            .collect(),
        false => (keys.iter())
            .map(|key| table_of(hash(key), count).index())
            .collect(),
    }
}

/// `hash_combine64` of `src/include/common/hashfn.h`.
#[inline]
fn combine(a: u64, b: u64) -> u64 {
    let mixed = b
        .wrapping_add(0x49a0_f4dd_15e5_a8e3)
        .wrapping_add(a << 54)
        .wrapping_add(a >> 7);
    a ^ mixed
}

/// `hashint8extended`: the halves are folded so that an int8 hashes like the int4 of equal value.
#[inline]
fn extended_int8(key: i64, seed: u64) -> u64 {
    let low = key as u32;
    let high = (key >> 32) as u32;
    extended_u32(low ^ if key >= 0 { high } else { !high }, seed)
}

/// `hash_bytes_uint32_extended`.
#[inline]
fn extended_u32(key: u32, seed: u64) -> u64 {
    let mut words = Words::start(4, seed);
    words.a = words.a.wrapping_add(key);
    words.finish()
}

/// `hash_bytes_extended`.
fn extended_bytes(key: &[u8], seed: u64) -> u64 {
    // PostgreSQL's lengths are 32 bits wide, and no key is longer than 1 GiB.
    let mut words = Words::start(key.len() as u32, seed);
    let (blocks, rest) = key.as_chunks::<12>();
    for [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] in blocks {
        words.add(
            u32::from_le_bytes([*a0, *a1, *a2, *a3]),
            u32::from_le_bytes([*b0, *b1, *b2, *b3]),
            u32::from_le_bytes([*c0, *c1, *c2, *c3]),
        );
        words.mix();
    }
    // The rest is at most 11 bytes. The lowest byte of `c` stays free: it belongs to the length.
    let (first, second) = rest.split_at(rest.len().min(4));
    let (second, third) = second.split_at(second.len().min(4));
    words.add(
        little_endian(first),
        little_endian(second),
        little_endian(third) << 8,
    );
    words.finish()
}

/// Up to four bytes as a number, the first one lowest.
#[inline]
fn little_endian(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| (word << 8) | u32::from(byte))
}

/// The three words of lookup3.
struct Words {
    a: u32,
    b: u32,
    c: u32,
}

impl Words {
    #[inline]
    fn start(len: u32, seed: u64) -> Self {
        let word = 0x9e37_79b9_u32.wrapping_add(len).wrapping_add(3_923_095);
        let mut words = Self {
            a: word,
            b: word,
            c: word,
        };
        if seed != 0 {
            words.add((seed >> 32) as u32, seed as u32, 0);
            words.mix();
        }
        words
    }

    #[inline]
    fn add(&mut self, a: u32, b: u32, c: u32) {
        self.a = self.a.wrapping_add(a);
        self.b = self.b.wrapping_add(b);
        self.c = self.c.wrapping_add(c);
    }

    #[inline]
    fn mix(&mut self) {
        let Self { a, b, c } = self;
        stir(a, b, c, 4);
        stir(b, c, a, 6);
        stir(c, a, b, 8);
        stir(a, b, c, 16);
        stir(b, c, a, 19);
        stir(c, a, b, 4);
    }

    #[inline]
    fn finish(self) -> u64 {
        let Self {
            mut a,
            mut b,
            mut c,
        } = self;
        fold(&mut c, b, 14);
        fold(&mut a, c, 11);
        fold(&mut b, a, 25);
        fold(&mut c, b, 16);
        fold(&mut a, c, 4);
        fold(&mut b, a, 14);
        fold(&mut c, b, 24);
        (u64::from(b) << 32) | u64::from(c)
    }
}

/// One line of lookup3's `mix`: `x -= z; x ^= rot(z, by); z += y`.
#[inline]
fn stir(x: &mut u32, y: &mut u32, z: &mut u32, by: u32) {
    *x = x.wrapping_sub(*z) ^ z.rotate_left(by);
    *z = z.wrapping_add(*y);
}

/// One line of lookup3's `final`: `x ^= y; x -= rot(y, by)`.
#[inline]
fn fold(x: &mut u32, y: u32, by: u32) {
    *x = (*x ^ y).wrapping_sub(y.rotate_left(by));
}

#[cfg(test)]
mod tests;
