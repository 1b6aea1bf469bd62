//! The stored keys by their table, and random batches of one table's keys.

use pgbraid_shardmap::hash;
use rand::{RngExt, rngs::SmallRng};

/// Keys 0 to N - 1, each under the table that holds it.
pub struct Keys {
    tables: Vec<Vec<i64>>,
}

impl Keys {
    pub fn new(tables: u32, keys: u64) -> Self {
        let expected = usize::try_from(keys / u64::from(tables.max(1))).unwrap_or_default();
        let mut lists: Vec<Vec<i64>> = (0..tables.max(1))
            .map(|_| Vec::with_capacity(expected + expected / 16))
            .collect();
        for key in 0..i64::try_from(keys).unwrap_or(i64::MAX) {
            let table = hash::table_of(hash::int8(key), tables);
            lists[table.index() as usize].push(key);
        }
        Self { tables: lists }
    }

    pub fn of(&self, table: usize) -> &[i64] {
        &self.tables[table]
    }

    pub fn tables(&self) -> usize {
        self.tables.len()
    }
}

/// Rows to write.
#[derive(Default)]
pub struct Rows {
    pub keys: Vec<i64>,
    pub c1: Vec<i32>,
    pub c2: Vec<i32>,
}

impl Rows {
    /// Draws so many of a table's keys, in order, each once: a few less when one is drawn twice.
    pub fn draw(&mut self, random: &mut SmallRng, table: &[i64], rows: usize) {
        self.keys.clear();
        self.keys
            .extend((0..rows).map(|_| table[random.random_range(0..table.len())]));
        self.keys.sort_unstable();
        self.keys.dedup();
        self.c1.clear();
        self.c2.clear();
        for _ in 0..self.keys.len() {
            self.c1.push(random.random_range(0..1000));
            // As in single.sql: 1 row in 10,000 meets the rule.
            self.c2.push(random.random_range(1..=10_000));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_key_is_in_its_table_once() {
        let keys = Keys::new(4, 1000);
        let mut all: Vec<i64> = (0..4).flat_map(|table| keys.of(table).to_vec()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        for table in 0..4u32 {
            let own = |key: &i64| hash::table_of(hash::int8(*key), 4).index() == table;
            assert!(keys.of(table as usize).iter().all(own));
        }
    }

    #[test]
    fn batches_are_sorted_without_repeats() {
        let keys = Keys::new(2, 100);
        let mut rows = Rows::default();
        rows.draw(&mut SmallRng::seed_from_u64(1), keys.of(1), 200);
        assert!(rows.keys.is_sorted_by(|a, b| a < b));
        assert!(rows.keys.len() > 20 && rows.keys.len() <= keys.of(1).len());
        assert_eq!(rows.keys.len(), rows.c1.len());
        assert_eq!(rows.keys.len(), rows.c2.len());
    }
}
