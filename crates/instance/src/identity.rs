//! Which instance this is, and which cluster it belongs to.

use tokio_postgres::GenericClient;
use uuid::Uuid;

use crate::{Connector, DbError, DbErrorKind, Instance};

/// The timeline of a primary. The control file has a promoted standby's only from its first
/// checkpoint on.
pub(crate) const TIMELINE: &str =
    "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4";

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

    /// Checks that the instance is the one of this name in this cluster.
    ///
    /// # Errors
    /// If it is not, or can't be asked.
    pub async fn verify_cluster(&self, cluster: Option<Uuid>) -> Result<Uuid, DbError> {
        let found = self.cluster_identity().await?;
        check_cluster(&self.connector, found, cluster)
    }
}
