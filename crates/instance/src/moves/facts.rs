//! What a plan needs to know of an instance.

use pgbraid_feed::FeedSchema;
use pgbraid_shardmap::TableId;

use crate::{DbError, Instance, sql::qualified};

/// What an instance can do for moves. Asked under the role that makes subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MoveFacts {
    pub server_version_num: i32,
    pub wal_level: String,
    pub slots_free: i64,
    pub walsenders_free: i64,
    /// Workers of logical replication that are not busy; a copy takes two.
    pub workers_free: i64,
    /// The role may make subscriptions.
    pub may_subscribe: bool,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// The collation that texts have by default.
    pub collation: String,
    /// The role that was asked.
    pub role: String,
}

/// Size of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// The table.
    pub table: TableId,
    /// As the statistics say: an estimate.
    pub rows: u64,
    /// With indexes and TOAST.
    pub bytes: u64,
}

/// A column as moves compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ColumnShape {
    pub name: String,
    pub sql_type: String,
    pub not_null: bool,
    pub collation: Option<String>,
}

impl Instance {
    /// Asks what the instance can do for moves.
    ///
    /// # Errors
    /// If it can't be asked.
    pub async fn move_facts(&self) -> Result<MoveFacts, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_one(
                "select current_setting('server_version_num')::int4, \
                 current_setting('wal_level'), \
                 current_setting('max_replication_slots')::int8 \
                   - (select count(*) from pg_replication_slots), \
                 current_setting('max_wal_senders')::int8 \
                   - (select count(*) from pg_stat_replication), \
                 current_setting('max_logical_replication_workers')::int8 \
                   - (select count(*) from pg_stat_subscription where pid is not null), \
                 (select r.rolsuper or exists (select from pg_roles p \
                   where p.rolname = 'pg_create_subscription' \
                   and pg_has_role(current_user, p.oid, 'usage')) \
                   from pg_roles r where r.rolname = current_user), \
                 pg_database_size(current_database()), d.datcollate, current_user::text \
                 from pg_database d where d.datname = current_database()",
                &[],
            )
            .await?;
        session.done();
        Ok(MoveFacts {
            server_version_num: row.get(0),
            wal_level: row.get(1),
            slots_free: row.get(2),
            walsenders_free: row.get(3),
            workers_free: row.get(4),
            may_subscribe: row.get(5),
            database_bytes: row.get::<_, i64>(6).max(0) as u64,
            collation: row.get(7),
            role: row.get(8),
        })
    }

    /// Whether the role of this connection may replicate: sources are read under it.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn may_replicate(&self) -> Result<bool, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_one(
                "select rolreplication or rolsuper from pg_roles where rolname = current_user",
                &[],
            )
            .await?;
        session.done();
        Ok(row.get(0))
    }

    /// Sizes of a feed's tables here, also of those that are left over.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn table_sizes(&self, schema: &FeedSchema) -> Result<Vec<TableSize>, DbError> {
        let mut session = self.reader().await?;
        let rows = session
            .client
            .query(
                "select substr(c.relname, length($2) + 2)::int4, \
                 greatest(c.reltuples, coalesce(s.n_live_tup, 0))::int8, \
                 pg_total_relation_size(c.oid) \
                 from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 left join pg_stat_user_tables s on s.relid = c.oid \
                 where n.nspname = $1 and c.relkind = 'r' \
                 and left(c.relname, length($2) + 1) = $2 || '_' \
                 and substr(c.relname, length($2) + 2) ~ '^[0-9]{1,4}$'",
                &[&schema.schema, &schema.table],
            )
            .await?;
        session.done();
        Ok(rows
            .into_iter()
            .map(|row| TableSize {
                table: TableId::new(row.get::<_, i32>(0) as u32),
                rows: row.get::<_, i64>(1).max(0) as u64,
                bytes: row.get::<_, i64>(2).max(0) as u64,
            })
            .collect())
    }

    /// The columns of a feed's parent, by name.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn column_shapes(&self, schema: &FeedSchema) -> Result<Vec<ColumnShape>, DbError> {
        let mut session = self.reader().await?;
        let rows = session
            .client
            .query(
                "select a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
                 case when a.attcollation <> 0 then (select n.nspname || '.' || co.collname \
                   from pg_collation co join pg_namespace n on n.oid = co.collnamespace \
                   where co.oid = a.attcollation) end \
                 from pg_attribute a where a.attrelid = to_regclass($1) and a.attnum > 0 \
                 and not a.attisdropped order by 1",
                &[&qualified(&schema.schema, &schema.table)],
            )
            .await?;
        session.done();
        Ok(rows
            .into_iter()
            .map(|row| ColumnShape {
                name: row.get(0),
                sql_type: row.get(1),
                not_null: row.get(2),
                collation: row.get(3),
            })
            .collect())
    }
}
