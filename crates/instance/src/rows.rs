//! Reads rows by key.

use std::fmt::Write as _;

use pgbraid_feed::{Batch, encode::ArrayParam};
use pgbraid_shardmap::TableId;

use crate::{
    DbError, DbErrorKind, Instance,
    sql::{qualified, quote_ident},
};

/// A row, or its absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Index of the key in the batch.
    pub row: u32,
    /// The row as a JSON object.
    pub json: String,
    /// Columns in text form, as asked for; `None` is NULL.
    pub texts: Vec<Option<String>>,
}

impl Instance {
    /// Reads the rows whose keys a batch holds. `columns` are exact names; empty means all, as
    /// JSON. Rows that are not stored are left out.
    ///
    /// `None` if the instance did not own one of these tables when it read them, by the same
    /// snapshot: a table that has moved away is still there for a while, and is not what it was.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn get_rows(
        &self,
        batch: &Batch<'_>,
        tables: &[TableId],
        columns: &[String],
        as_json: bool,
    ) -> Result<Option<Vec<StoredRow>>, DbError> {
        let schema = batch.schema();
        let rows: Vec<u32> = (0..batch.rows().len() as u32).collect();
        let key = quote_ident(&schema.key.name);
        let mut selected = String::new();
        for (at, column) in columns.iter().enumerate() {
            let _ = write!(selected, ", t.{} as c{at}", quote_ident(column));
        }
        let output = match (as_json, columns.is_empty()) {
            (true, true) => ", row_to_json(t)::text".to_owned(),
            (true, false) => {
                let names = columns
                    .iter()
                    .map(|column| format!("t.{}", quote_ident(column)))
                    .collect::<Vec<_>>()
                    .join(", ");
                format!(", (select row_to_json(x)::text from (select {names}) x)")
            }
            (false, _) => columns
                .iter()
                .map(|column| format!(", t.{}::text", quote_ident(column)))
                .collect(),
        };
        let sql = format!(
            "select u.n, t.{key} is not null, \
             not exists (select from unnest($2) as w(tbl) where not exists (select \
             from pgbraid.ownership o where o.feed = $3 and o.tbl = w.tbl and o.state = 'owned')) \
             {output} from unnest($1) with ordinality as u(k, n) left join {} t on t.{key} = u.k",
            qualified(&schema.schema, &schema.table)
        );
        let keys = ArrayParam::keys(batch, &rows);
        let mut session = self.reader().await?;
        let ty = match schema.key.ty {
            pgbraid_shardmap::KeyType::Int8 => postgres_types::Type::INT8_ARRAY,
            pgbraid_shardmap::KeyType::Uuid => postgres_types::Type::UUID_ARRAY,
            pgbraid_shardmap::KeyType::Text => postgres_types::Type::TEXT_ARRAY,
        };
        let tables: Vec<i32> = tables.iter().map(|table| table.index() as i32).collect();
        let feed = schema.feed.as_ref();
        let params: [(&(dyn postgres_types::ToSql + Sync), postgres_types::Type); 3] = [
            (&keys, ty),
            (&tables, postgres_types::Type::INT4_ARRAY),
            (&feed, postgres_types::Type::TEXT),
        ];
        let found = session.client.query_typed(&sql, &params).await?;
        session.done();
        if found.iter().any(|row| !row.get::<_, bool>(2)) {
            return Ok(None);
        }
        let stored = found
            .into_iter()
            .filter(|row| row.get(1))
            .map(|row| {
                let number: i64 = row.get(0);
                let index = u32::try_from(number - 1).map_err(|_| {
                    DbError::new(
                        DbErrorKind::Contradiction,
                        "a row without its key came back",
                    )
                })?;
                let (json, texts) = if as_json {
                    (row.get(3), Vec::new())
                } else {
                    let texts = (3..row.len()).map(|at| row.get(at)).collect();
                    (String::new(), texts)
                };
                Ok(StoredRow {
                    row: index,
                    json,
                    texts,
                })
            })
            .collect::<Result<_, DbError>>()?;
        Ok(Some(stored))
    }
}
