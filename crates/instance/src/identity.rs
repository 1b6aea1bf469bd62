//! Which instance this is, and which cluster it belongs to.

use tokio_postgres::GenericClient;
use uuid::Uuid;

use crate::{
    Connector, DbError, DbErrorKind, Instance,
    outbox::{same_server, xid8},
};

/// The timeline of a primary. The control file has a promoted standby's only from its first
/// checkpoint on.
pub(crate) const TIMELINE: &str =
    "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4";

/// The next of a version that copies are compared by. A home that was behind when it was promoted
/// may lack edits that the copies have, so that it must not count on from its own.
pub(crate) fn next_version(version: &str) -> String {
    format!("greatest({version} + 1, (({TIMELINE}) - 1)::int8 << 32)")
}

/// What `migrate` wrote into the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// The cluster.
    pub cluster_id: Uuid,
    /// The name of this instance in it.
    pub instance: String,
    /// The name of the home instance.
    pub home: String,
}

/// Which PostgreSQL answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    /// From initdb; a standby has its primary's.
    pub system_id: u64,
    /// Grows when a standby is promoted.
    pub timeline: u32,
}

pub(crate) async fn read_cluster(
    client: &impl GenericClient,
) -> Result<Option<ClusterIdentity>, DbError> {
    let there: bool = client
        .query_one("select to_regclass('pgbraid.cluster') is not null", &[])
        .await?
        .get(0);
    if !there {
        return Ok(None);
    }
    let row = client
        .query_opt(
            "select cluster_id::text, instance, home from pgbraid.cluster",
            &[],
        )
        .await?;
    row.map(|row| {
        let id: String = row.get(0);
        Ok(ClusterIdentity {
            cluster_id: id.parse().map_err(|error| {
                DbError::new(
                    DbErrorKind::Contradiction,
                    format!("pgbraid.cluster holds a bad id: {error}"),
                )
            })?,
            instance: row.get(1),
            home: row.get(2),
        })
    })
    .transpose()
}

/// Whether a server is the instance of this name in this cluster.
pub(crate) fn check_cluster(
    connector: &Connector,
    found: Option<ClusterIdentity>,
    cluster: Option<Uuid>,
) -> Result<Uuid, DbError> {
    let wrong = |message: String| DbError::new(DbErrorKind::Contradiction, message);
    let (name, address) = (connector.name, &connector.address);
    let found = found.ok_or_else(|| {
        wrong(format!(
            "{name} at {address} has no pgbraid schema yet: run `pgbraid migrate`"
        ))
    })?;
    if found.instance != name.to_string() {
        return Err(wrong(format!(
            "the instance at {address} is {}, but the shard map calls it {name}: correct its \
             host or name",
            found.instance
        )));
    }
    match cluster {
        Some(cluster) if cluster != found.cluster_id => Err(wrong(format!(
            "{name} at {address} belongs to cluster {}, not to {cluster}: correct its host",
            found.cluster_id
        ))),
        _ => Ok(found.cluster_id),
    }
}

impl Instance {
    /// Once the cluster is known: whether a connection leads to the instance of this name in it.
    /// An address may come to be another server's; this instance is out of reach then.
    pub(crate) async fn check_server(
        &self,
        client: &impl GenericClient,
    ) -> Result<Option<Uuid>, DbError> {
        let Some(expected) = self.expected_cluster() else {
            return Ok(None);
        };
        let found = read_cluster(client).await?;
        match check_cluster(&self.connector, found, Some(expected)) {
            Ok(found) => Ok(Some(found)),
            Err(error) => Err(DbError::new(DbErrorKind::Outage, error.message)),
        }
    }

    /// What `migrate` wrote; `None` before the first.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn cluster_identity(&self) -> Result<Option<ClusterIdentity>, DbError> {
        let mut session = self.any_reader().await?;
        let found = read_cluster(&session.client).await?;
        session.done();
        Ok(found)
    }

    /// From which transaction id on alerts of a timeline are its own: timeline and id, ascending.
    /// Takes note of it, if this is the first look at this timeline.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn timelines(
        &self,
        expected: Option<ServerIdentity>,
    ) -> Result<Vec<(u32, u64)>, DbError> {
        let mut session = self.reader().await?;
        same_server(session.identity, expected)?;
        let now = session.identity.timeline as i32;
        let noted = "select timeline, first_xid::text from pgbraid.timeline order by timeline";
        let mut rows = session.client.query(noted, &[]).await?;
        if rows.last().is_none_or(|row| row.get::<_, i32>(0) < now) {
            // Alerts say their timeline by their numbers (migrations/0008_timelines.sql); those that
            // are not committed yet are of transactions that are running.
            session
                .client
                .execute(
                    "with own as materialized (select xid from pgbraid.alert where seq >= \
                       (select coalesce(max(timeline), 0)::int8 << 40 from pgbraid.timeline)) \
                     insert into pgbraid.timeline select $1, least( \
                       pg_snapshot_xmin(pg_current_snapshot()), \
                       (select xid from own order by xid limit 1)) on conflict do nothing",
                    &[&now],
                )
                .await?;
            rows = session.client.query(noted, &[]).await?;
        }
        session.done();
        rows.iter()
            .map(|row| Ok((row.get::<_, i32>(0).unsigned_abs(), xid8(row.get(1))?)))
            .collect()
    }

    /// Checks that the instance is the one of this name in this cluster.
    ///
    /// # Errors
    /// If it is not, or can't be asked.
    pub async fn verify_cluster(&self, cluster: Option<Uuid>) -> Result<Uuid, DbError> {
        let found = self.cluster_identity().await?;
        check_cluster(&self.connector, found, cluster)
    }
}
