//! Which tables the instance owns, and who may make one.

use pgbraid_feed::FeedSchema;
use pgbraid_shardmap::{Epoch, FeedName, InstanceName, OwnershipState, TableId};

use crate::{
    DbError, DbErrorKind, Instance, changes,
    sql::{leaf, qualified},
};

/// The channel on which instances tell that ownership or rules changed.
pub const OWNERSHIP_CHANNEL: &str = "pgbraid_ownership";

/// What the instance says of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTable {
    /// The feed.
    pub feed: FeedName,
    /// The table.
    pub table: TableId,
    /// Counts the owners the table has had.
    pub epoch: Epoch,
    /// Whether the instance owns it.
    pub state: OwnershipState,
    /// Where it went, if it moved.
    pub moved_to: Option<String>,
}

/// A table to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableToMake {
    /// The table.
    pub table: TableId,
    /// Where the map wants it.
    pub instance: InstanceName,
}

impl Instance {
    /// All that the instance says of tables.
    ///
    /// # Errors
    /// If the instance can't be asked, or says something that makes no sense.
    pub async fn ownership(&self) -> Result<Vec<OwnedTable>, DbError> {
        let mut session = self.reader().await?;
        let ask = session
            .prepared(
                "select feed, tbl, epoch, state, moved_to from pgbraid.ownership order by 1, 2",
            )
            .await?;
        let rows = session.client.query(&ask, &[]).await?;
        session.done();
        rows.into_iter()
            .map(|row| {
                let bad = |what: String| {
                    DbError::new(
                        DbErrorKind::Contradiction,
                        format!("pgbraid.ownership on {}: {what}", self.name()),
                    )
                };
                let feed: String = row.get(0);
                let state: String = row.get(3);
                Ok(OwnedTable {
                    feed: FeedName::parse(&feed).map_err(|error| bad(error.to_string()))?,
                    table: TableId::new(row.get::<_, i32>(1) as u32),
                    epoch: Epoch(row.get::<_, i64>(2) as u64),
                    state: state.parse().map_err(|_| bad(format!("state {state:?}")))?,
                    moved_to: row.get(4),
                })
            })
            .collect()
    }

    /// The feeds that have tables here, and how many tables they were made with.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn stored_feeds(&self) -> Result<Vec<(String, u32)>, DbError> {
        let mut session = self.reader().await?;
        let rows = session
            .client
            .query("select name, tables from pgbraid.feed order by name", &[])
            .await?;
        session.done();
        Ok(rows
            .into_iter()
            .map(|row| (row.get(0), row.get::<_, i32>(1) as u32))
            .collect())
    }

    /// In the home: how many tables each instance holds a claim to.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn claims(&self) -> Result<Vec<(String, i64)>, DbError> {
        let mut session = self.reader().await?;
        let rows = session
            .client
            .query(
                "select instance, count(*) from pgbraid.claim group by 1 order by 1",
                &[],
            )
            .await?;
        session.done();
        Ok(rows
            .into_iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect())
    }

    /// In the home: claims tables that nobody has claimed yet. Returns who holds the claim to each
    /// table, whoever made it: first come, first served.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn claim(
        &self,
        feed: &FeedName,
        wanted: &[TableToMake],
    ) -> Result<Vec<TableToMake>, DbError> {
        let mut session = self.reader().await?;
        let tables: Vec<i32> = wanted.iter().map(|one| one.table.index() as i32).collect();
        let instances: Vec<String> = wanted.iter().map(|one| one.instance.to_string()).collect();
        session
            .client
            .execute(
                "insert into pgbraid.claim (feed, tbl, instance) \
                 select $1, w.tbl, w.instance from unnest($2::int4[], $3::text[]) as w(tbl, instance) \
                 order by w.tbl on conflict (feed, tbl) do nothing",
                &[&feed.as_ref(), &tables, &instances],
            )
            .await?;
        let rows = session
            .client
            .query(
                "select tbl, instance from pgbraid.claim where feed = $1 and tbl = any ($2) order by 1",
                &[&feed.as_ref(), &tables],
            )
            .await?;
        session.done();
        rows.into_iter()
            .map(|row| {
                let instance: String = row.get(1);
                Ok(TableToMake {
                    table: TableId::new(row.get::<_, i32>(0) as u32),
                    instance: instance.parse().map_err(|_| {
                        DbError::new(
                            DbErrorKind::Contradiction,
                            format!("pgbraid.claim on {} names {instance:?}", self.name()),
                        )
                    })?,
                })
            })
            .collect()
    }

    /// Makes tables under a claim: the partition and the ownership row, in one transaction each.
    /// A table that is there already is left as it is. Returns how many were made.
    ///
    /// # Errors
    /// If a partition can't be made.
    pub async fn make_tables(
        &self,
        schema: &FeedSchema,
        tables: &[TableId],
    ) -> Result<usize, DbError> {
        let mut client = self.connect("").await?;
        let stored: i32 = client
            .query_one(
                "with new as (insert into pgbraid.feed (name, table_schema, table_name, tables) \
                 values ($1, $2, $3, $4) on conflict (name) do nothing returning tables) \
                 select tables from new union all \
                 select tables from pgbraid.feed where name = $1 limit 1",
                &[
                    &schema.feed.as_ref(),
                    &schema.schema,
                    &schema.table,
                    &(schema.tables as i32),
                ],
            )
            .await?
            .get(0);
        if stored != schema.tables as i32 {
            return Err(DbError::new(
                DbErrorKind::Contradiction,
                format!(
                    "feed {} has {stored} tables on {}, but the shard map says {}: the number of \
                     tables never changes; put {stored} back",
                    schema.feed,
                    self.name(),
                    schema.tables
                ),
            ));
        }
        let mut made = 0;
        for table in tables {
            let transaction = client.transaction().await?;
            // Whoever changes the feed's triggers waits for this table, or it for him.
            transaction
                .execute("select from pgbraid.rule_set for share", &[])
                .await?;
            // A second router with the same claim waits here for the first.
            let fresh = transaction
                .execute(
                    "insert into pgbraid.ownership (feed, tbl, epoch, state) \
                     values ($1, $2, 1, 'owned') on conflict (feed, tbl) do nothing",
                    &[&schema.feed.as_ref(), &(table.index() as i32)],
                )
                .await?;
            if fresh == 0 {
                continue;
            }
            let sql = format!(
                "create table if not exists {} partition of {} \
                 for values with (modulus {}, remainder {}) with (fillfactor = 85)",
                qualified(&schema.schema, &leaf(&schema.table, table.index())),
                qualified(&schema.schema, &schema.table),
                schema.tables,
                table.index()
            );
            transaction.batch_execute(&sql).await.map_err(|error| {
                DbError::from(error).context(format!(
                    "making {table} of feed {} on {}",
                    schema.feed,
                    self.name()
                ))
            })?;
            changes::track_leaf(&transaction, schema, *table).await?;
            transaction
                .batch_execute("notify pgbraid_ownership")
                .await?;
            transaction.commit().await?;
            made += 1;
        }
        Ok(made)
    }
}
