//! Upserts and deletes of batches.

use std::time::Duration;

use futures::future::{join, join_all};
use pgbraid_feed::{Batch, Operation, Statement, encode::ArrayParam};
use pgbraid_shardmap::TableId;
use postgres_types::ToSql;
use tokio_postgres::Client;

use crate::{
    DbError, DbErrorKind, Instance,
    pool::Session,
    sql::leaf,
    statement_text,
    statements::{StatementForm, StatementKey},
    stored::StoredShare,
};

/// What a statement writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteTarget {
    /// A table by itself.
    Table(TableId),
    /// The parent; PostgreSQL routes.
    Parent,
}

/// A backend whose connection was lost while it may have been writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBackend {
    /// Process id.
    pub pid: i32,
    /// When it was started, as `pg_stat_activity` prints it.
    pub backend_start: String,
}

/// Time that an answer may take beyond the server's own `statement_timeout`.
const GRACE: Duration = Duration::from_secs(5);

impl Instance {
    /// Writes the statements of a batch on one connection, pipelined, each in its own
    /// transaction. One result for each; the lost backend is there if the connection broke.
    pub async fn write(
        &self,
        batch: &Batch<'_>,
        statements: &[Statement],
        target: WriteTarget,
    ) -> (Vec<Result<(), DbError>>, Option<LostBackend>) {
        let mut session = match self.writer().await {
            Ok(session) => session,
            Err(error) => {
                let all = |_| Err(DbError::new(error.kind, error.message.clone()));
                return (statements.iter().map(all).collect(), None);
            }
        };
        // If this future is dropped half way the session must not be used again.
        session.broken = true;
        let limit = self.connector.statement_timeout * statements.len() as u32 + GRACE;
        let written = write_all(&mut session, &self.stored, batch, statements, target);
        let results = match tokio::time::timeout(limit, written).await {
            Ok(results) => results,
            Err(_) => statements
                .iter()
                .map(|_| {
                    Err(DbError::new(
                        DbErrorKind::Lost,
                        format!("{} has not answered within {limit:?}", self.name()),
                    ))
                })
                .collect(),
        };
        let lost = results
            .iter()
            .any(|result| matches!(result, Err(error) if error.kind == DbErrorKind::Lost));
        let lost = lost.then(|| LostBackend {
            pid: session.pid,
            backend_start: session.backend_start.clone(),
        });
        let read_only = |error: &DbError| error.sqlstate.as_deref() == Some("25006");
        session.broken = lost.is_some()
            || results
                .iter()
                .any(|result| result.as_ref().is_err_and(read_only));
        if results.iter().any(|result| {
            result
                .as_ref()
                .is_err_and(|error| error.sqlstate.as_deref() == Some("0A000"))
        }) {
            // "cached plan must not change result type": prepare again.
            session.statements.clear();
        }
        (results, lost)
    }

    /// Ends a lost backend if it is still there. Done once this returns without error.
    ///
    /// # Errors
    /// If the instance can't be asked, or the backend is still there after it was told to end.
    pub async fn settle(&self, lost: &LostBackend) -> Result<(), DbError> {
        let mut session = self.reader().await?;
        let ended = async {
            for attempt in 0..20u64 {
                let there = session
                    .client
                    .query_opt(
                        "select pg_terminate_backend(pid) from pg_stat_activity \
                         where pid = $1 and backend_start::text = $2",
                        &[&lost.pid, &lost.backend_start],
                    )
                    .await?;
                if there.is_none() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5 * (attempt + 1))).await;
            }
            Err(DbError::new(
                DbErrorKind::Outage,
                format!("backend {} of {} does not end", lost.pid, self.name()),
            ))
        };
        match tokio::time::timeout(GRACE, ended).await {
            Ok(result) => {
                session.done();
                result
            }
            Err(_) => Err(DbError::new(
                DbErrorKind::Outage,
                format!("{} does not answer", self.name()),
            )),
        }
    }
}

async fn write_all(
    session: &mut Session,
    stored: &StoredShare,
    batch: &Batch<'_>,
    statements: &[Statement],
    target: WriteTarget,
) -> Vec<Result<(), DbError>> {
    if let ([statement], WriteTarget::Table(_)) = (statements, target)
        && statement.operation == Operation::Upsert
        && stored.update_first(batch.schema(), &statement.mask, statement.rows.len())
    {
        return vec![update_first(session, stored, batch, statement, target).await];
    }
    let mut prepared = Vec::with_capacity(statements.len());
    for statement in statements {
        let form = match statement.operation {
            Operation::Upsert => StatementForm::Upsert,
            Operation::Delete => StatementForm::Delete,
        };
        prepared.push(prepare(session, batch, statement, target, form).await);
    }
    let client = &session.client;
    // All are sent when first polled, in this order; the answers come back in this order too.
    join_all(
        prepared
            .into_iter()
            .zip(statements)
            .map(|(prepared, statement)| async move {
                execute(client, &prepared?, batch, statement).await?;
                Ok(())
            }),
    )
    .await
}

/// Updates what is stored and inserts the rest, in one transaction: a row that PostgreSQL refuses
/// takes all of it back, as with one statement.
async fn update_first(
    session: &mut Session,
    stored: &StoredShare,
    batch: &Batch<'_>,
    statement: &Statement,
    target: WriteTarget,
) -> Result<(), DbError> {
    let rows = statement.rows.len() as u64;
    let written = update_and_insert(session, stored, batch, statement, target).await;
    if let Ok(written) = written
        && written == rows
    {
        return Ok(session.client.batch_execute("commit").await?);
    }
    // The first error says what was wrong; a connection that is gone shows by itself.
    let ended = session.client.batch_execute("rollback").await;
    let ended = ended.map_err(DbError::from);
    match (written, ended) {
        (_, Err(lost)) if lost.kind == DbErrorKind::Lost => Err(lost),
        (Err(error), _) => Err(error),
        (Ok(_), ended) => {
            ended?;
            // A key was inserted by somebody else after the update had looked for it and before
            // the insert did: neither wrote it. One statement for all can't miss it.
            let form = StatementForm::Upsert;
            let upsert = prepare(session, batch, statement, target, form).await?;
            execute(&session.client, &upsert, batch, statement).await?;
            Ok(())
        }
    }
}

/// Begins a transaction, updates, and inserts. Returns how many rows were written.
async fn update_and_insert(
    session: &mut Session,
    stored: &StoredShare,
    batch: &Batch<'_>,
    statement: &Statement,
    target: WriteTarget,
) -> Result<u64, DbError> {
    let update = prepare(session, batch, statement, target, StatementForm::Update).await?;
    let client = &session.client;
    let (begun, updated) = join(
        client.batch_execute("begin"),
        execute(client, &update, batch, statement),
    )
    .await;
    begun?;
    let updated = updated?;
    let rows = statement.rows.len();
    stored.found(batch.schema(), &statement.mask, rows, updated as usize);
    if updated >= rows as u64 {
        return Ok(updated);
    }
    let form = StatementForm::InsertMissing;
    let insert = prepare(session, batch, statement, target, form).await?;
    let inserted = execute(&session.client, &insert, batch, statement).await?;
    Ok(updated + inserted)
}

/// Sends the statement's rows; returns how many PostgreSQL says it wrote.
async fn execute(
    client: &Client,
    prepared: &tokio_postgres::Statement,
    batch: &Batch<'_>,
    statement: &Statement,
) -> Result<u64, tokio_postgres::Error> {
    let params = ArrayParam::of(batch, statement);
    let params: Vec<&(dyn ToSql + Sync)> = params
        .iter()
        .map(|param| param as &(dyn ToSql + Sync))
        .collect();
    client.execute(prepared, &params).await
}

async fn prepare(
    session: &mut Session,
    batch: &Batch<'_>,
    statement: &Statement,
    target: WriteTarget,
    form: StatementForm,
) -> Result<tokio_postgres::Statement, DbError> {
    let schema = batch.schema();
    let key = StatementKey {
        schema: std::sync::Arc::as_ptr(schema) as usize,
        target,
        form,
        mask: statement.mask.clone(),
    };
    if let Some(prepared) = session.statements.get(&key) {
        return Ok(prepared);
    }
    let table = match target {
        WriteTarget::Table(table) => leaf(&schema.table, table.index()),
        WriteTarget::Parent => schema.table.clone(),
    };
    let mask = &statement.mask;
    let sql = match form {
        StatementForm::Upsert => statement_text::upsert(schema, &table, mask),
        StatementForm::Update => statement_text::update(schema, &table, mask),
        StatementForm::InsertMissing => statement_text::insert_missing(schema, &table, mask),
        StatementForm::Delete => statement_text::delete(schema, &table),
    };
    let prepared = session.client.prepare(&sql).await?;
    session
        .statements
        .put(key, prepared.clone(), schema.clone());
    Ok(prepared)
}
