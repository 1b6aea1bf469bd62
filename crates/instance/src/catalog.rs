//! What PostgreSQL's catalog says of a feed's parent table.

use pgbraid_feed::{Column, ColumnMask, FeedSchema, KeyColumn, MergePolicy, types::ColumnType};
use pgbraid_shardmap::{FeedName, KeyType};

use crate::{DbError, DbErrorKind, Instance, sql::qualified};

/// A partition as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Its bound as PostgreSQL prints it.
    pub bound: String,
}

const NAME_LIMIT: usize = 63;

impl Instance {
    /// Reads a feed's parent table. Policies and special columns are left at their defaults.
    ///
    /// # Errors
    /// If there is no such table, or it can't be a feed's parent: the message says what to change.
    pub async fn feed_schema(
        &self,
        feed: &FeedName,
        schema: &str,
        table: &str,
        tables: u32,
    ) -> Result<FeedSchema, DbError> {
        let mut session = self.reader().await?;
        let name = qualified(schema, table);
        let wrong = |message: String| {
            DbError::new(
                DbErrorKind::Contradiction,
                format!("feed {feed} on {}: {message}", self.name()),
            )
        };
        if table.len() + 1 + (tables.max(1) - 1).to_string().len() > NAME_LIMIT {
            return Err(wrong(format!(
                "the name {name} leaves no room for `_` and the number of a partition in \
                 PostgreSQL's {NAME_LIMIT} bytes: use a shorter name"
            )));
        }
        let parent = session
            .client
            .query_opt(
                "select c.oid, c.relkind::text, p.partstrat::text, p.partattrs::int2[], \
                 (select array_agg(a.attnum order by k.n) from pg_index i \
                  cross join unnest(i.indkey::int2[]) with ordinality as k(attnum, n) \
                  join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum \
                  where i.indrelid = c.oid and i.indisprimary) as pk, \
                 p.partcollation::oid[] as collations, \
                 exists (select from pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal \
                  and g.tgname not like 'pgbraid\\_changes\\_%' and g.tgtype & 4 <> 0 and (g.tgtype & 1 = 0 or g.tgtype & 2 <> 0)) \
                 from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 left join pg_partitioned_table p on p.partrelid = c.oid \
                 where n.nspname = $1 and c.relname = $2",
                &[&schema, &table],
            )
            .await?
            .ok_or_else(|| {
                wrong(format!(
                    "there is no table {name}: put its `create table` into a file named in \
                     `schema` of pgbraid.toml and run `pgbraid migrate`"
                ))
            })?;
        let oid: u32 = parent.get(0);
        let (kind, strategy): (String, Option<String>) = (parent.get(1), parent.get(2));
        if kind != "p" || strategy.as_deref() != Some("h") {
            return Err(wrong(format!(
                "{name} is not partitioned by hash: create it with `partition by hash (<key>)`"
            )));
        }
        let by: Vec<i16> = parent.get(3);
        let [key_number] = by.as_slice() else {
            return Err(wrong(format!(
                "{name} is partitioned by {} columns: a feed has one key",
                by.len()
            )));
        };
        if *key_number == 0 {
            return Err(wrong(format!(
                "{name} is partitioned by an expression: partition it by its key column"
            )));
        }
        let primary: Option<Vec<i16>> = parent.get(4);
        let rows = session
            .client
            .query(
                "select a.attnum, a.attname, a.atttypid, a.atttypmod, \
                 format_type(a.atttypid, -1), a.attnotnull, a.attgenerated <> '', \
                 a.attidentity = 'a', a.atthasdef or a.attidentity <> '', \
                 coalesce(co.collisdeterministic, true), a.attidentity <> '' and \
                 current_setting('server_version_num')::int < 170000 \
                 from pg_attribute a left join pg_collation co on co.oid = a.attcollation \
                 where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum",
                &[&oid],
            )
            .await?;
        session.done();
        let mut key = None;
        let mut columns = Vec::with_capacity(rows.len());
        let mut required = ColumnMask::new();
        for row in rows {
            let number: i16 = row.get(0);
            let column: String = row.get(1);
            let oid: u32 = row.get(2);
            let sql_name: String = row.get(4);
            let ty = ColumnType::from_catalog(oid, row.get(3), &sql_name);
            // Rows would be taken through the parent, and refused by the partition.
            if row.get(10) {
                return Err(wrong(format!(
                    "its column {column:?} is an identity, which partitions do not have before \
                     PostgreSQL 17: give it a default of nextval('a sequence') instead"
                )));
            }
            if number == *key_number {
                let ty = match ty {
                    ColumnType::Int8 => KeyType::Int8,
                    ColumnType::Uuid => KeyType::Uuid,
                    ColumnType::Text => KeyType::Text,
                    _ => {
                        return Err(wrong(format!(
                            "its key {column:?} is of type {sql_name}: a key is int8, uuid or text"
                        )));
                    }
                };
                if !row.get::<_, bool>(9) {
                    return Err(wrong(format!(
                        "its key {column:?} has a nondeterministic collation: equal keys could \
                         have different hashes; use a deterministic one"
                    )));
                }
                key = Some(KeyColumn { name: column, ty });
                continue;
            }
            if row.get(5) && !row.get::<_, bool>(8) {
                required.insert(columns.len());
            }
            columns.push(Column {
                name: column,
                ty,
                policy: MergePolicy::Set,
                not_null: row.get(5),
                generated: row.get::<_, bool>(6) || row.get::<_, bool>(7),
            });
        }
        let key = key.ok_or_else(|| wrong(format!("the key column of {name} is not there")))?;
        if primary.as_deref() != Some(&[*key_number][..]) {
            return Err(wrong(format!(
                "{name} has no primary key on exactly its key {:?}: upserts need one; add \
                 `primary key ({})`",
                key.name,
                crate::quote_ident(&key.name)
            )));
        }
        let mut feed = FeedSchema::new(feed.clone(), schema, table, key, columns, tables);
        feed.required = required;
        feed.insert_triggers = parent.get(6);
        Ok(feed)
    }

    /// The partitions of a feed's parent.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn partitions(&self, schema: &FeedSchema) -> Result<Vec<Partition>, DbError> {
        let mut session = self.reader().await?;
        let rows = session
            .client
            .query(
                "select c.relname, pg_get_expr(c.relpartbound, c.oid) from pg_inherits i \
                 join pg_class c on c.oid = i.inhrelid \
                 join pg_class p on p.oid = i.inhparent \
                 join pg_namespace n on n.oid = p.relnamespace \
                 where n.nspname = $1 and p.relname = $2 order by 1",
                &[&schema.schema, &schema.table],
            )
            .await?;
        session.done();
        Ok(rows
            .into_iter()
            .map(|row| Partition {
                name: row.get(0),
                bound: row.get(1),
            })
            .collect())
    }
}
