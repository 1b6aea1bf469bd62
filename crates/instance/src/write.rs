//! Upserts and deletes of batches.

use std::{fmt::Write as _, time::Duration};

use futures::future::join_all;
use pgbraid_feed::{
    Batch, ColumnMask, FeedSchema, MergePolicy, Operation, Statement, encode::ArrayParam,
    types::ColumnType,
};
use pgbraid_shardmap::{KeyType, TableId};
use postgres_types::ToSql;

use crate::{
    DbError, DbErrorKind, Instance,
    pool::Session,
    sql::{leaf, qualified, quote_ident},
    statements::StatementKey,
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
        batch: &Batch,
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
        let written = write_all(&mut session, batch, statements, target);
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
    batch: &Batch,
    statements: &[Statement],
    target: WriteTarget,
) -> Vec<Result<(), DbError>> {
    let mut prepared = Vec::with_capacity(statements.len());
    for statement in statements {
        prepared.push(prepare(session, batch, statement, target).await);
    }
    let client = &session.client;
    // All are sent when first polled, in this order; the answers come back in this order too.
    join_all(
        prepared
            .into_iter()
            .zip(statements)
            .map(|(prepared, statement)| async move {
                let prepared = prepared?;
                let keys = ArrayParam::keys(batch, &statement.rows);
                let columns: Vec<ArrayParam<'_>> = statement
                    .mask
                    .iter()
                    .map(|column| ArrayParam::column(batch, &statement.rows, column))
                    .collect();
                let mut params: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(columns.len() + 1);
                params.push(&keys);
                params.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
                client.execute(&prepared, &params).await?;
                Ok(())
            }),
    )
    .await
}

async fn prepare(
    session: &mut Session,
    batch: &Batch,
    statement: &Statement,
    target: WriteTarget,
) -> Result<tokio_postgres::Statement, DbError> {
    let schema = batch.schema();
    let key = StatementKey {
        schema: std::sync::Arc::as_ptr(schema) as usize,
        target,
        operation: statement.operation,
        mask: statement.mask.clone(),
    };
    if let Some(prepared) = session.statements.get(&key) {
        return Ok(prepared);
    }
    let table = match target {
        WriteTarget::Table(table) => leaf(&schema.table, table.index()),
        WriteTarget::Parent => schema.table.clone(),
    };
    let sql = match statement.operation {
        Operation::Upsert => upsert(schema, &table, &statement.mask),
        Operation::Delete => delete(schema, &table),
    };
    let prepared = session.client.prepare(&sql).await?;
    session
        .statements
        .put(key, prepared.clone(), schema.clone());
    Ok(prepared)
}

fn key_array(schema: &FeedSchema) -> &'static str {
    match schema.key.ty {
        KeyType::Int8 => "int8[]",
        KeyType::Uuid => "uuid[]",
        KeyType::Text => "text[]",
    }
}

/// `insert .. select from unnest .. on conflict do update`, each column by its policy.
fn upsert(schema: &FeedSchema, table: &str, mask: &ColumnMask) -> String {
    let table = qualified(&schema.schema, table);
    let key = quote_ident(&schema.key.name);
    let mut sql = format!("insert into {table} as t ({key}");
    let mut select = String::from("u.k");
    let mut arrays = format!("$1::{}", key_array(schema));
    let mut names = String::from("k");
    let mut set = String::new();
    for (at, column) in mask.iter().enumerate() {
        let definition = &schema.columns[column];
        let name = quote_ident(&definition.name);
        let _ = write!(sql, ", {name}");
        let _ = write!(select, ", u.c{at}");
        if definition.ty.needs_cast() {
            let _ = write!(select, "::{}", definition.ty.sql_name());
        }
        let _ = write!(
            arrays,
            ", ${}::{}[]",
            at + 2,
            definition.ty.wire_type().name()
        );
        let _ = write!(names, ", c{at}");
        let separator = if set.is_empty() { "" } else { ", " };
        let _ = write!(
            set,
            "{separator}{name} = {}",
            merged(definition.policy, &definition.ty, &name)
        );
    }
    let _ = write!(
        sql,
        ") select {select} from unnest({arrays}) as u({names}) on conflict ({key}) "
    );
    if set.is_empty() {
        sql.push_str("do nothing");
        return sql;
    }
    let _ = write!(sql, "do update set {set}");
    if let Some(version) = schema
        .version_column
        .filter(|version| mask.contains(*version))
    {
        let version = quote_ident(&schema.columns[version].name);
        // A write without a version (NULL) can't be told to be older.
        let _ = write!(
            sql,
            " where t.{version} is null or excluded.{version} is null or excluded.{version} >= t.{version}"
        );
    }
    sql
}

fn merged(policy: MergePolicy, ty: &ColumnType, name: &str) -> String {
    match policy {
        MergePolicy::Set => format!("excluded.{name}"),
        MergePolicy::KeepFirst => format!("coalesce(t.{name}, excluded.{name})"),
        MergePolicy::Max => format!("greatest(t.{name}, excluded.{name})"),
        MergePolicy::Min => format!("least(t.{name}, excluded.{name})"),
        MergePolicy::JsonMerge if *ty == ColumnType::Json => format!(
            "coalesce((t.{name}::jsonb || excluded.{name}::jsonb)::json, excluded.{name}, t.{name})"
        ),
        MergePolicy::JsonMerge => {
            format!("coalesce(t.{name} || excluded.{name}, excluded.{name}, t.{name})")
        }
    }
}

/// Rows are locked in the order of the batch first: deletes would take them in any order, and two
/// of them could deadlock.
fn delete(schema: &FeedSchema, table: &str) -> String {
    let table = qualified(&schema.schema, table);
    let key = quote_ident(&schema.key.name);
    format!(
        "with locked as materialized (select t.{key} as k from unnest($1::{}) with ordinality as u(k, n) \
         join {table} t on t.{key} = u.k order by u.n for update of t) \
         delete from {table} t using locked where t.{key} = locked.k",
        key_array(schema)
    )
}

#[cfg(test)]
mod tests {
    use pgbraid_feed::{Column, KeyColumn};
    use pgbraid_shardmap::FeedName;

    use super::*;

    fn schema() -> FeedSchema {
        let column = |name: &str, ty, policy| Column {
            name: name.into(),
            ty,
            policy,
            not_null: false,
            generated: false,
        };
        let mut schema = FeedSchema::new(
            FeedName::parse("orders").unwrap(),
            "Sales",
            "Orders Wide",
            KeyColumn {
                name: "Order".into(),
                ty: KeyType::Uuid,
            },
            vec![
                column("a", ColumnType::Int4, MergePolicy::Set),
                column("took", ColumnType::Interval, MergePolicy::Max),
                column("v", ColumnType::Int8, MergePolicy::Set),
                column("attrs", ColumnType::Jsonb, MergePolicy::JsonMerge),
            ],
            64,
        );
        schema.version_column = Some(2);
        schema
    }

    #[test]
    fn statements_quote_cast_and_merge() {
        let schema = schema();
        assert_eq!(
            upsert(&schema, "Orders Wide_7", &[0, 1, 2].into_iter().collect()),
            "insert into \"Sales\".\"Orders Wide_7\" as t (\"Order\", \"a\", \"took\", \"v\") \
             select u.k, u.c0, u.c1::interval, u.c2 \
             from unnest($1::uuid[], $2::int4[], $3::text[], $4::int8[]) as u(k, c0, c1, c2) \
             on conflict (\"Order\") do update set \"a\" = excluded.\"a\", \
             \"took\" = greatest(t.\"took\", excluded.\"took\"), \"v\" = excluded.\"v\" \
             where t.\"v\" is null or excluded.\"v\" is null or excluded.\"v\" >= t.\"v\""
        );
        assert!(upsert(&schema, "x", &ColumnMask::new()).ends_with("do nothing"));
        assert!(upsert(&schema, "x", &[3].into_iter().collect()).ends_with(
            "coalesce(t.\"attrs\" || excluded.\"attrs\", excluded.\"attrs\", t.\"attrs\")"
        ));
    }
}
