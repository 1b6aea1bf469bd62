//! The connections of one instance.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bb8::{ManageConnection, Pool, PooledConnection, QueueStrategy, RunError};
use metrics::counter;
use pgbraid_shardmap::InstanceName;
use tokio_postgres::{Client, Statement};
use tracing::debug;
use uuid::Uuid;

use crate::{
    Connector, DbError, DbErrorKind, ServerIdentity,
    identity::{TIMELINE, check_cluster, read_cluster},
    outbox::PartFacts,
    statements::StatementCache,
    stored::StoredShare,
};

/// A pooled connection.
pub struct Session {
    pub(crate) client: Client,
    pub(crate) statements: StatementCache,
    /// Statements whose text never changes.
    fixed: HashMap<&'static str, Statement>,
    /// Process id and start of its backend: together they name one process.
    pub(crate) pid: i32,
    pub(crate) backend_start: String,
    /// Of its server; a connection to a primary keeps it for life.
    pub(crate) identity: ServerIdentity,
    /// The cluster that its server was found to belong to, under the instance's name.
    cluster: Option<Uuid>,
    /// The parts of the outbox that it knows of.
    pub(crate) parts: Option<PartFacts>,
    /// Set while something is under way: a session dropped in the middle is not used again.
    pub(crate) broken: bool,
}

impl Session {
    /// Nothing is under way any more.
    pub(crate) fn done(&mut self) {
        self.broken = false;
    }

    /// The same for a single statement that was answered, if only by an error.
    pub(crate) fn ended<T>(
        &mut self,
        answer: Result<T, tokio_postgres::Error>,
    ) -> Result<T, DbError> {
        if answer
            .as_ref()
            .map_or_else(|error| error.as_db_error().is_some(), |_| true)
        {
            self.done();
        }
        answer.map_err(DbError::from)
    }

    /// A statement that is prepared once on this connection.
    pub(crate) async fn prepared(&mut self, sql: &'static str) -> Result<Statement, DbError> {
        if let Some(statement) = self.fixed.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.fixed.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// Settings of writers' sessions. A batch meets its table by index, in the order of its keys: two
/// batches that took rows in another order could deadlock. It is planned once, not every time. And
/// a router that was stopped between a batch and its commit does not hold the rows for long.
const WRITER_OPTIONS: &str = "-c plan_cache_mode=force_generic_plan -c enable_hashjoin=off \
     -c enable_mergejoin=off -c jit=off -c idle_in_transaction_session_timeout=5000";

/// The outbox is read by index whatever the statistics say about so young a table.
const OUTBOX_OPTIONS: &str =
    "-c enable_seqscan=off -c plan_cache_mode=force_custom_plan -c jit=off";

/// Connections for the work of consumer groups: claims of one group wait for each other anyway.
const GROUP_CONNECTIONS: u32 = 4;

pub(crate) struct Manager {
    connector: Connector,
    options: &'static str,
    statements: usize,
    /// Writers: the cluster that the server must belong to, once it is known.
    cluster: Option<Arc<OnceLock<Uuid>>>,
}

impl ManageConnection for Manager {
    type Connection = Session;
    type Error = DbError;

    async fn connect(&self) -> Result<Session, DbError> {
        let client = self.connector.client(self.options).await?;
        // The control file has a promoted standby's new timeline after its first checkpoint only,
        // which can take minutes: the log is written on it at once.
        let row = client
            .query_one(
                &format!(
                    "select pg_backend_pid(), backend_start::text, system_identifier, \
                 case when pg_is_in_recovery() then timeline_id \
                 else {TIMELINE} end \
                 from pg_stat_get_activity(pg_backend_pid()), pg_control_system(), \
                 pg_control_checkpoint()"
                ),
                &[],
            )
            .await?;
        let mut cluster = None;
        if let Some(expected) = &self.cluster {
            // An address may come to be another server's: rows must not go there, whatever tables
            // it has.
            let found = read_cluster(&client).await?;
            let expected = expected.get().copied();
            cluster = Some(check_cluster(&self.connector, found, expected)?);
        }
        Ok(Session {
            pid: row.get(0),
            backend_start: row.get(1),
            identity: ServerIdentity {
                system_id: row.get::<_, i64>(2) as u64,
                timeline: row.get::<_, i32>(3) as u32,
            },
            cluster,
            client,
            statements: StatementCache::new(self.statements),
            fixed: HashMap::new(),
            parts: None,
            broken: false,
        })
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), DbError> {
        session.client.simple_query("").await?;
        Ok(())
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.broken || session.client.is_closed()
    }
}

/// Logs and counts what goes wrong in the background of a pool.
#[derive(Clone, Debug)]
struct Errors {
    instance: InstanceName,
    /// Why the last attempt to connect failed: the pool itself only says that time is over.
    last: Arc<Mutex<Option<String>>>,
}

impl bb8::ErrorSink<DbError> for Errors {
    fn sink(&self, error: DbError) {
        counter!("pgbraid_pool_errors_total", "instance" => self.instance.to_string()).increment(1);
        debug!(instance = %self.instance, "pool: {error}");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.message);
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<DbError>> {
        Box::new(self.clone())
    }
}

/// State of the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Open writer connections.
    pub writers: u32,
    /// Of these, not in use.
    pub writers_idle: u32,
    /// Open reader connections.
    pub readers: u32,
    /// Of these, not in use.
    pub readers_idle: u32,
}

/// One PostgreSQL instance: everything that pgbraid does to it goes through here.
#[derive(Clone)]
pub struct Instance {
    pub(crate) connector: Connector,
    writers: Pool<Manager>,
    readers: Pool<Manager>,
    groups: Pool<Manager>,
    wait: Duration,
    last_error: Arc<Mutex<Option<String>>>,
    cluster: Arc<OnceLock<Uuid>>,
    pub(crate) stored: Arc<StoredShare>,
}

impl Instance {
    /// An instance. Connects when first used.
    pub fn new(
        connector: Connector,
        writers: u32,
        readers: u32,
        statements: usize,
        wait: Duration,
    ) -> Arc<Self> {
        let errors = Errors {
            instance: connector.name,
            last: Arc::default(),
        };
        counter!("pgbraid_pool_errors_total", "instance" => connector.name.to_string())
            .increment(0);
        let cluster: Arc<OnceLock<Uuid>> = Arc::default();
        let pool = |size: u32, options, cluster| {
            Pool::builder()
                .max_size(size.max(1))
                .min_idle(Some(0))
                .connection_timeout(wait)
                // Each statement shows by itself whether the connection works.
                .test_on_check_out(false)
                // While one is enough, it is always the same: its backend has its caches warm.
                .queue_strategy(QueueStrategy::Lifo)
                .error_sink(Box::new(errors.clone()))
                .build_unchecked(Manager {
                    connector: connector.clone(),
                    options,
                    statements,
                    cluster,
                })
        };
        Arc::new(Self {
            writers: pool(writers, WRITER_OPTIONS, Some(cluster.clone())),
            readers: pool(readers, OUTBOX_OPTIONS, None),
            groups: pool(GROUP_CONNECTIONS, OUTBOX_OPTIONS, None),
            cluster,
            stored: Arc::default(),
            wait,
            last_error: errors.last,
            connector,
        })
    }

    /// Names the cluster that the instance must belong to: rows are written to no other.
    pub fn expect_cluster(&self, cluster: Uuid) {
        let _ = self.cluster.set(cluster);
    }

    /// The cluster that the instance must belong to, once it is known.
    pub fn expected_cluster(&self) -> Option<Uuid> {
        self.cluster.get().copied()
    }

    /// The instance's name.
    pub fn name(&self) -> InstanceName {
        self.connector.name
    }

    /// `host:port` of its hosts.
    pub fn address(&self) -> &str {
        &self.connector.address
    }

    /// How another instance reaches this one; see [`Connector::conninfo`].
    pub fn conninfo(&self, passfile: Option<&str>, root_cert: Option<&str>) -> String {
        self.connector.conninfo(passfile, root_cert)
    }

    /// State of the pools.
    pub fn pool_stats(&self) -> PoolStats {
        let (writers, readers) = (self.writers.state(), self.readers.state());
        PoolStats {
            writers: writers.connections,
            writers_idle: writers.idle_connections,
            readers: readers.connections,
            readers_idle: readers.idle_connections,
        }
    }

    pub(crate) async fn writer(&self) -> Result<PooledConnection<'_, Manager>, DbError> {
        self.take(&self.writers).await
    }

    /// A connection for everything but writing batches. Once the cluster is known, it is one to
    /// the instance of this name in this cluster: rows and alerts of another would be taken for its
    /// own. It counts as broken until [`Session::done`]: a caller whose time is over drops it in the
    /// middle of its work, and the next one must not wait behind that.
    pub(crate) async fn reader(&self) -> Result<PooledConnection<'_, Manager>, DbError> {
        let session = self.any_reader().await?;
        self.checked(session).await
    }

    /// As [`Self::reader`], for what members of groups do: they do not wait behind reads, nor reads
    /// behind them.
    pub(crate) async fn group_session(&self) -> Result<PooledConnection<'_, Manager>, DbError> {
        let mut session = self.take(&self.groups).await?;
        session.broken = true;
        self.checked(session).await
    }

    async fn checked<'a>(
        &self,
        mut session: PooledConnection<'a, Manager>,
    ) -> Result<PooledConnection<'a, Manager>, DbError> {
        if session.cluster.is_none() {
            match self.check_server(&session.client).await {
                Ok(found) => session.cluster = found,
                Err(error) => {
                    session.done();
                    return Err(error);
                }
            }
        }
        Ok(session)
    }

    /// A connection of its own, to the right server as with [`Self::reader`].
    pub(crate) async fn connect(&self, options: &str) -> Result<Client, DbError> {
        let client = self.connector.client(options).await?;
        self.check_server(&client).await?;
        Ok(client)
    }

    /// As [`Self::reader`], to whichever server answers.
    pub(crate) async fn any_reader(&self) -> Result<PooledConnection<'_, Manager>, DbError> {
        let mut session = self.take(&self.readers).await?;
        session.broken = true;
        Ok(session)
    }

    async fn take<'a>(
        &self,
        pool: &'a Pool<Manager>,
    ) -> Result<PooledConnection<'a, Manager>, DbError> {
        pool.get().await.map_err(|error| match error {
            RunError::User(error) => error,
            RunError::TimedOut => {
                let last = self
                    .last_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let message = last.unwrap_or_else(|| {
                    format!(
                        "no connection to {} at {} within {:?}: all are in use",
                        self.name(),
                        self.address(),
                        self.wait
                    )
                });
                DbError::new(DbErrorKind::Outage, message)
            }
        })
    }
}
