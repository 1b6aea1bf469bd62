//! The service `Rows`: reads by key from the owners.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use pgbraid_feed::{
    Batch, FeedSchema, Operation, RowRef, input::ColumnarRequest, types::ColumnType,
};
use pgbraid_proto::v1::{self, rows_server::Rows, value::Kind};
use pgbraid_shardmap::{InstanceName, KeyType, TableId};
use tonic::{Request, Response, Status};

use super::{decode, status};
use crate::{node::within, state::Shared};

pub(crate) struct Service(pub Arc<Shared>);

#[tonic::async_trait]
impl Rows for Service {
    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let request = request.into_inner();
        let schema = self.0.schema(&request.feed)?;
        let as_json = match v1::Format::try_from(request.format) {
            Ok(v1::Format::Json) => true,
            Ok(v1::Format::Row) => false,
            Err(_) => {
                return Err(status::bad_field(
                    "UNKNOWN_FORMAT",
                    "format",
                    format!("{} is no format: 0 is JSON, 1 is ROW", request.format),
                ));
            }
        };
        let columns = wanted(&schema, &request.columns, as_json)?;
        let keys = request.keys.ok_or_else(|| {
            status::bad_field("NO_KEY", "keys", "no keys are given: name at least one")
        })?;
        let key = decode::named(&keys, "keys").map_err(|error| status::bad_request(&error))?;
        let block = ColumnarRequest {
            operation: Operation::Upsert,
            key,
            columns: Vec::new(),
        }
        .build(schema.clone())
        .map_err(|error| status::bad_request(&error))?;
        if block.rows() as usize > self.0.config.ingest.max_request_rows {
            return Err(status::bad_field(
                "TOO_MANY_ROWS",
                "keys",
                format!(
                    "at most {} keys are taken at once",
                    self.0.config.ingest.max_request_rows
                ),
            ));
        }
        if let Some(bad) = block.refused().first() {
            return Err(status::bad_field(
                bad.reason.clone(),
                format!("keys[{}]", bad.row),
                &bad.message,
            ));
        }
        let rows = self.read_owned(&schema, &block, &columns, as_json).await?;
        Ok(Response::new(v1::GetResponse {
            columns: if as_json { Vec::new() } else { columns },
            rows,
        }))
    }
}

/// The columns to read: checked, and all of them for rows if none is named.
pub(super) fn wanted(
    schema: &FeedSchema,
    named: &[String],
    as_json: bool,
) -> Result<Vec<String>, Status> {
    for (at, name) in named.iter().enumerate() {
        if schema.column_index(name).is_none() && *name != schema.key.name {
            let hint = match schema.nearest_column(name) {
                Some(nearest) => format!(": did you mean {nearest:?}?"),
                None => String::new(),
            };
            return Err(status::bad_field(
                "UNKNOWN_COLUMN",
                format!("columns[{at}]"),
                format!("feed {} has no column {name:?}{hint}", schema.feed),
            ));
        }
    }
    if named.is_empty() && !as_json {
        let others = schema.columns.iter().map(|column| column.name.clone());
        return Ok(std::iter::once(schema.key.name.clone())
            .chain(others)
            .collect());
    }
    Ok(named.to_vec())
}

/// Longest wait for a table that is on its way to another instance.
const MOVING_LIMIT: Duration = Duration::from_secs(5);
const MOVING_RETRY: Duration = Duration::from_millis(20);

impl Service {
    /// The rows of these keys, which are good ones, as JSON.
    pub(super) async fn read_keys(
        &self,
        schema: &Arc<FeedSchema>,
        keys: &v1::Column,
        columns: &[String],
    ) -> Result<Vec<v1::StoredRow>, Status> {
        let key = decode::named(keys, "keys").map_err(|error| status::bad_request(&error))?;
        let request = ColumnarRequest {
            operation: Operation::Upsert,
            key,
            columns: Vec::new(),
        };
        let block = request.build(schema.clone());
        let block = block.map_err(|error| status::bad_request(&error))?;
        self.read_owned(schema, &block, columns, true).await
    }

    /// Reads from instances that own the tables while they are read: what a table held that has
    /// moved away may be older than what its new owner has told of.
    async fn read_owned(
        &self,
        schema: &Arc<FeedSchema>,
        block: &pgbraid_feed::Block,
        columns: &[String],
        as_json: bool,
    ) -> Result<Vec<v1::StoredRow>, Status> {
        let deadline = Instant::now() + MOVING_LIMIT;
        loop {
            let read = self.read(schema, block.clone(), columns, as_json).await?;
            match read {
                Ok(rows) => return Ok(rows),
                Err(instance) if Instant::now() >= deadline => {
                    return Err(status::later(
                        tonic::Code::Unavailable,
                        "TABLE_MOVED",
                        format!(
                            "{instance} does not own the table of a key any more, and its new \
                             owner is not known yet"
                        ),
                        Duration::from_millis(500),
                    ));
                }
                Err(_) => {
                    self.0.refresh.notify_one();
                    tokio::time::sleep(MOVING_RETRY).await;
                }
            }
        }
    }

    /// The rows; or the instance that did not own one of the tables.
    async fn read(
        &self,
        schema: &Arc<FeedSchema>,
        block: pgbraid_feed::Block,
        columns: &[String],
        as_json: bool,
    ) -> Result<Result<Vec<v1::StoredRow>, InstanceName>, Status> {
        let topology = self.0.topology.load_full();
        let owners = topology.owners.get(&schema.feed);
        let mut answer = vec![v1::StoredRow::default(); block.rows() as usize];
        let routed = block.arrange(&[]);
        let block = &routed.block;
        let mut by_instance: BTreeMap<InstanceName, Vec<(TableId, RowRef)>> = BTreeMap::new();
        for (table, start, end) in routed.segments {
            let owner = owners
                .and_then(|owners| owners.get(table.index() as usize))
                .and_then(|owner| owner.instance());
            let Some(instance) = owner else {
                return Err(status::later(
                    tonic::Code::Unavailable,
                    "TABLE_UNOWNED",
                    format!("no reachable instance owns {table} of feed {}", schema.feed),
                    Duration::from_secs(1),
                ));
            };
            for row in start..end {
                let answer = &mut answer[routed.origin[row as usize] as usize];
                answer.instance = instance.to_string();
                answer.table = table.to_string();
                by_instance
                    .entry(instance)
                    .or_default()
                    .push((table, RowRef { block: 0, row }));
            }
        }
        let reads = by_instance.into_iter().filter_map(|(name, rows)| {
            let node = topology.nodes.get(&name)?.clone();
            let batch = Batch::build(schema.clone(), vec![block], &rows);
            let mut tables: Vec<TableId> = rows.iter().map(|(table, _)| *table).collect();
            tables.dedup();
            Some(async move {
                let instance = node.instance.load_full();
                let asked = instance.get_rows(&batch, &tables, columns, as_json);
                let rows = within(self.0.config.postgres.statement_timeout, name, asked).await;
                (name, batch, rows)
            })
        });
        for (name, batch, rows) in join_all(reads).await {
            let Some(rows) = rows.map_err(|error| status::database(&error))? else {
                return Ok(Err(name));
            };
            for found in rows {
                let values: Vec<v1::Value> = columns
                    .iter()
                    .zip(&found.texts)
                    .map(|(column, text)| value(schema, column, text.as_deref()))
                    .collect();
                for source in batch.sources(found.row) {
                    let row = &mut answer[routed.origin[source.row as usize] as usize];
                    row.found = true;
                    row.json.clone_from(&found.json);
                    row.values.clone_from(&values);
                }
            }
        }
        Ok(Ok(answer))
    }
}

/// A value in the form that suits its type; whatever has no closer form is text.
fn value(schema: &FeedSchema, column: &str, text: Option<&str>) -> v1::Value {
    let kind = match (text, schema.column_index(column)) {
        (None, _) => Kind::Null(v1::Null {}),
        (Some(text), Some(index)) => typed(&schema.columns[index].ty, text),
        (Some(text), None) if schema.key.ty == KeyType::Int8 => typed(&ColumnType::Int8, text),
        (Some(text), None) => Kind::Text(text.to_owned()),
    };
    v1::Value { kind: Some(kind) }
}

fn typed(ty: &ColumnType, text: &str) -> Kind {
    let parsed = match ty {
        ColumnType::Bool => Some(Kind::Bool(text == "true" || text == "t")),
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => text.parse().ok().map(Kind::Int),
        ColumnType::Float4 | ColumnType::Float8 => text.parse().ok().map(Kind::Double),
        _ => None,
    };
    parsed.unwrap_or_else(|| Kind::Text(text.to_owned()))
}
