//! In the home: which placement routers carry out by themselves.

use tokio_postgres::Row;

use crate::{DbError, Instance};

/// The placement that is agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Names it: 16 digits.
    pub placement: String,
    /// Who put it into force.
    pub by: String,
    /// When, as PostgreSQL writes it to the second, in UTC.
    pub since: String,
}

/// What [`agreed`] reads.
pub(super) const COLUMNS: &str =
    "agreed, agreed_by, to_char(agreed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";

/// Of [`COLUMNS`] from `at` on.
pub(super) fn agreed(row: &Row, at: usize) -> Option<Agreed> {
    Some(Agreed {
        placement: row.get::<_, Option<String>>(at)?,
        by: row.get::<_, Option<String>>(at + 1)?,
        since: row.get::<_, Option<String>>(at + 2)?,
    })
}

impl Instance {
    /// Puts a placement in the place of the one that the caller takes for agreed on; of several that
    /// try that at once, one succeeds. Returns whether it did.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn agree_instead(
        &self,
        placement: &str,
        by: &str,
        instead_of: Option<&str>,
    ) -> Result<bool, DbError> {
        let sql = "update pgbraid.mover set agreed = $1, agreed_by = $2, \
                   agreed_at = clock_timestamp() where agreed is not distinct from $3";
        self.change_agreed(sql, &[&placement, &by, &instead_of])
            .await
    }

    /// Agrees on a placement, as the mover of a term. Returns whether it is the mover yet.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn agree(&self, placement: &str, by: &str, term: i64) -> Result<bool, DbError> {
        let sql = "update pgbraid.mover set agreed = $1, agreed_by = $2, \
                   agreed_at = clock_timestamp() where term = $3";
        self.change_agreed(sql, &[&placement, &by, &term]).await
    }

    /// Agrees on nothing: routers make no moves until somebody applies a map, or edits one.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn agree_on_nothing(&self) -> Result<(), DbError> {
        let sql = "update pgbraid.mover set agreed = null, agreed_by = null, agreed_at = null";
        self.change_agreed(sql, &[]).await?;
        Ok(())
    }

    async fn change_agreed(
        &self,
        sql: &str,
        values: &[&(dyn postgres_types::ToSql + Sync)],
    ) -> Result<bool, DbError> {
        let mut session = self.reader().await?;
        let changed = session.client.execute(sql, values).await?;
        session.done();
        Ok(changed == 1)
    }
}
