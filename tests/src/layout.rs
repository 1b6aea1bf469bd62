//! Where the keys of a feed are.

use pgbraid_shardmap::hash;

use crate::Cluster;

/// Owners of a feed's tables, by int8 key.
#[derive(Clone, Debug)]
pub struct Layout {
    owners: Vec<usize>,
}

impl Layout {
    /// Asks all instances what they own.
    ///
    /// # Panics
    /// If an instance can't be asked, or a table has no owner or two.
    pub async fn of(cluster: &Cluster, feed: &str) -> Self {
        let mut owners: Vec<(i32, usize)> = Vec::new();
        for instance in 0..cluster.instances().into() {
            let owned = "select tbl from pgbraid.ownership where feed = $1 and state = 'owned'";
            let rows = cluster.sql(instance).await.query(owned, &[&feed]).await;
            let rows = rows.expect("ownership can be read");
            owners.extend(rows.iter().map(|row| (row.get(0), instance)));
        }
        owners.sort_unstable();
        for (number, (table, _)) in owners.iter().enumerate() {
            assert_eq!(
                *table, number as i32,
                "each table has one owner: {owners:?}"
            );
        }
        let owners = owners.into_iter().map(|(_, instance)| instance).collect();
        Self { owners }
    }

    /// The table of a key.
    pub fn table(&self, key: i64) -> usize {
        hash::table_of(hash::int8(key), self.owners.len() as u32).index() as usize
    }

    /// The instance of a key.
    pub fn owner(&self, key: i64) -> usize {
        self.owners[self.table(key)]
    }

    /// The instance of each table.
    pub fn owners(&self) -> &[usize] {
        &self.owners
    }

    /// The first keys that pass a test, from 0.
    pub fn keys(&self, count: usize, pass: impl Fn(&Self, i64) -> bool) -> Vec<i64> {
        (0..).filter(|key| pass(self, *key)).take(count).collect()
    }
}
