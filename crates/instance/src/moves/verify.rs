//! Compares a table on two instances: rows and a checksum, computed in PostgreSQL.

use std::time::Duration;

use pgbraid_feed::FeedSchema;
use pgbraid_shardmap::TableId;
use postgres_types::PgLsn;
use tokio_postgres::Client;

use crate::{
    DbError, Instance,
    sql::{leaf, qualified, quote_ident},
};

/// What a table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its rows.
    pub rows: u64,
    /// The sum of a 64-bit hash of each row, columns by name: the order of rows does not matter.
    pub checksum: String,
}

/// A table as it was at one moment: a transaction that sees nothing later.
pub struct FrozenTable {
    client: Client,
    leaf: String,
    columns: String,
}

impl Instance {
    /// A connection that is to freeze a table.
    ///
    /// # Errors
    /// If the instance can't be reached.
    pub async fn freeze(
        &self,
        schema: &FeedSchema,
        table: TableId,
    ) -> Result<FrozenTable, DbError> {
        let client = self
            .connect("-c statement_timeout=0 -c idle_in_transaction_session_timeout=0")
            .await?;
        let mut names: Vec<String> = std::iter::once(&schema.key.name)
            .chain(schema.columns.iter().map(|column| &column.name))
            .map(|name| format!("t.{}", quote_ident(name)))
            .collect();
        names.sort();
        Ok(FrozenTable {
            client,
            leaf: qualified(&schema.schema, &leaf(&schema.table, table.index())),
            columns: names.join(", "),
        })
    }
}

impl FrozenTable {
    /// Locks out the table's writers until [`Self::unlock`]. Returns a position that every write
    /// lies before.
    ///
    /// # Errors
    /// `Conflict` if the lock can't be had in time.
    pub async fn lock(&self, timeout: Duration) -> Result<PgLsn, DbError> {
        self.client
            .batch_execute(&format!(
                "begin; set local lock_timeout = {}; lock table {} in share mode",
                timeout.as_millis().max(1),
                self.leaf
            ))
            .await?;
        // What the lock waited for may have been committed without being flushed.
        let row = self
            .client
            .query_one("select pg_current_wal_insert_lsn()", &[])
            .await?;
        Ok(row.get(0))
    }

    /// Lets writers pass again.
    ///
    /// # Errors
    /// If the instance can't be reached.
    pub async fn unlock(&self) -> Result<(), DbError> {
        Ok(self.client.batch_execute("rollback").await?)
    }

    /// Sees what is there now, and nothing later.
    ///
    /// # Errors
    /// If the instance can't be reached.
    pub async fn snapshot(&self) -> Result<(), DbError> {
        self.client
            .batch_execute("begin isolation level repeatable read, read only; select 1")
            .await?;
        Ok(())
    }

    /// Counts and sums up what was seen.
    ///
    /// # Errors
    /// If the table can't be read.
    pub async fn contents(&self) -> Result<Contents, DbError> {
        let sql = format!(
            "select count(*), coalesce(sum(hashtextextended(row({})::text, 0)), 0)::text from {} t",
            self.columns, self.leaf
        );
        let row = self.client.query_one(&sql, &[]).await?;
        Ok(Contents {
            rows: row.get::<_, i64>(0) as u64,
            checksum: row.get(1),
        })
    }
}
