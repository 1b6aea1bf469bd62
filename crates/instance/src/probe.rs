//! What `check --online` and `status` ask an instance.

use crate::{DbError, Instance};

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Probe {
    /// e.g. `15.18`.
    pub server_version: String,
    pub server_version_num: i32,
    pub wal_level: String,
    pub max_connections: i32,
    pub connections: i64,
    pub max_replication_slots: i32,
    pub in_recovery: bool,
    /// The role may create schemas and tables in the database.
    pub may_create: bool,
    pub superuser: bool,
    pub encoding: String,
    pub ssl: bool,
}

impl Instance {
    /// Asks.
    ///
    /// # Errors
    /// If the instance can't be reached.
    pub async fn probe(&self) -> Result<Probe, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_one(
                "select current_setting('server_version'), \
                 current_setting('server_version_num')::int4, current_setting('wal_level'), \
                 current_setting('max_connections')::int4, \
                 (select count(*) from pg_stat_activity where backend_type = 'client backend'), \
                 current_setting('max_replication_slots')::int4, pg_is_in_recovery(), \
                 has_database_privilege(current_database(), 'create'), \
                 (select rolsuper from pg_roles where rolname = current_user), \
                 current_setting('server_encoding'), \
                 coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false)",
                &[],
            )
            .await?;
        session.done();
        Ok(Probe {
            server_version: row.get(0),
            server_version_num: row.get(1),
            wal_level: row.get(2),
            max_connections: row.get(3),
            connections: row.get(4),
            max_replication_slots: row.get(5),
            in_recovery: row.get(6),
            may_create: row.get(7),
            superuser: row.get(8),
            encoding: row.get(9),
            ssl: row.get(10),
        })
    }
}
