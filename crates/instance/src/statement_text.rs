//! The text of the statements that write a batch.

use std::fmt::Write as _;

use pgbraid_feed::{ColumnMask, FeedSchema, MergePolicy, types::ColumnType};
use pgbraid_shardmap::KeyType;

use crate::sql::{qualified, quote_ident, quote_literal};

/// The rows of a batch as a relation `u(k, c0, c1, ...)` of its arrays.
///
/// A list of `unnest` calls hands its rows on one by one; `from unnest(..., ...)` puts all of them
/// into a tuple store first, which costs twice as much.
struct Input {
    /// `select unnest($1::int8[]) as k, ...`
    select: String,
    /// What the table's columns take: `u.c0`, or with a cast.
    values: Vec<String>,
}

impl Input {
    fn new(schema: &FeedSchema, mask: &ColumnMask) -> Self {
        let mut select = format!("select unnest($1::{}) as k", key_array(schema));
        let mut values = Vec::new();
        for (at, column) in mask.iter().enumerate() {
            let ty = &schema.columns[column].ty;
            let _ = write!(
                select,
                ", unnest(${}::{}[]) as c{at}",
                at + 2,
                ty.wire_type().name()
            );
            values.push(match ty.needs_cast() {
                true => format!("u.c{at}::{}", ty.sql_name()),
                false => format!("u.c{at}"),
            });
        }
        Self { select, values }
    }
}

fn names(schema: &FeedSchema, mask: &ColumnMask) -> Vec<String> {
    mask.iter()
        .map(|column| quote_ident(&schema.columns[column].name))
        .collect()
}

fn key_array(schema: &FeedSchema) -> &'static str {
    match schema.key.ty {
        KeyType::Int8 => "int8[]",
        KeyType::Uuid => "uuid[]",
        KeyType::Text => "text[]",
    }
}

/// `insert .. select .. on conflict do update`, each column by its policy.
pub(crate) fn upsert(schema: &FeedSchema, table: &str, mask: &ColumnMask) -> String {
    insert(schema, table, mask, "")
}

/// The same for rows whose key is not stored. One that is stored while the statement runs is
/// updated; one that was stored just before is left out: count what was written.
pub(crate) fn insert_missing(schema: &FeedSchema, table: &str, mask: &ColumnMask) -> String {
    let there = format!(
        " where not exists (select from {} as there where there.{} = u.k)",
        qualified(&schema.schema, table),
        quote_ident(&schema.key.name)
    );
    insert(schema, table, mask, &there)
}

fn insert(schema: &FeedSchema, table: &str, mask: &ColumnMask, filter: &str) -> String {
    let key = quote_ident(&schema.key.name);
    let input = Input::new(schema, mask);
    let mut sql = format!(
        "insert into {} as t ({key}",
        qualified(&schema.schema, table)
    );
    let mut values = String::from("u.k");
    let names = names(schema, mask);
    for (name, value) in names.iter().zip(&input.values) {
        let _ = write!(sql, ", {name}");
        let _ = write!(values, ", {value}");
    }
    let _ = write!(
        sql,
        ") select {values} from ({}) as u{filter} on conflict ({key}) ",
        input.select
    );
    if mask.is_empty() {
        sql.push_str("do nothing");
        return sql;
    }
    let new: Vec<String> = names
        .iter()
        .map(|name| format!("excluded.{name}"))
        .collect();
    let _ = write!(sql, "do update set {}", set(schema, mask, &new));
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

/// Updates the rows whose key is stored and leaves the others out.
pub(crate) fn update(schema: &FeedSchema, table: &str, mask: &ColumnMask) -> String {
    let input = Input::new(schema, mask);
    format!(
        "update {} as t set {} from ({}) as u where t.{} = u.k",
        qualified(&schema.schema, table),
        set(schema, mask, &input.values),
        input.select,
        quote_ident(&schema.key.name)
    )
}

/// `a = <new a>, b = greatest(t.b, <new b>)`
fn set(schema: &FeedSchema, mask: &ColumnMask, new: &[String]) -> String {
    let columns = mask.iter().zip(new).map(|(column, new)| {
        let column = &schema.columns[column];
        let name = quote_ident(&column.name);
        format!("{name} = {}", merged(column.policy, &column.ty, &name, new))
    });
    columns.collect::<Vec<_>>().join(", ")
}

fn merged(policy: MergePolicy, ty: &ColumnType, name: &str, new: &str) -> String {
    match policy {
        MergePolicy::Set => new.to_owned(),
        MergePolicy::KeepFirst => format!("coalesce(t.{name}, {new})"),
        MergePolicy::Max => format!("greatest(t.{name}, {new})"),
        MergePolicy::Min => format!("least(t.{name}, {new})"),
        MergePolicy::JsonMerge if *ty == ColumnType::Json => {
            format!("coalesce((t.{name}::jsonb || ({new})::jsonb)::json, {new}, t.{name})")
        }
        MergePolicy::JsonMerge => format!("coalesce(t.{name} || {new}, {new}, t.{name})"),
    }
}

/// Rows are locked in the order of the batch first: deletes would take them in any order, and two
/// of them could deadlock.
///
/// Through the parent, the fence of a table that has moved away sees only rows that are found. A row
/// that was written at the new owner is not found here, and deleting it must not seem to have
/// worked: so the tables of the keys are looked up first.
pub(crate) fn delete(schema: &FeedSchema, table: &str) -> String {
    let keys = format!("unnest($1::{})", key_array(schema));
    let (mut first, mut last) = (String::new(), "");
    if table == schema.table {
        let _ = write!(
            first,
            "away as materialized (select pgbraid.refuse(o.feed, o.tbl) from pgbraid.ownership o \
             where o.feed = {} and o.state <> 'owned' and exists (select from {keys} as u(k) \
             where satisfies_hash_partition({}::regclass, {}, o.tbl, u.k))), ",
            quote_literal(schema.feed.as_str()),
            quote_literal(&qualified(&schema.schema, table)),
            schema.tables
        );
        last = " and not exists (select from away)";
    }
    let table = qualified(&schema.schema, table);
    let key = quote_ident(&schema.key.name);
    format!(
        "with {first}locked as materialized (select t.{key} as k from {keys} with ordinality \
         as u(k, n) join {table} t on t.{key} = u.k order by u.n for update of t) \
         delete from {table} t using locked where t.{key} = locked.k{last}"
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
             from (select unnest($1::uuid[]) as k, unnest($2::int4[]) as c0, \
             unnest($3::text[]) as c1, unnest($4::int8[]) as c2) as u \
             on conflict (\"Order\") do update set \"a\" = excluded.\"a\", \
             \"took\" = greatest(t.\"took\", excluded.\"took\"), \"v\" = excluded.\"v\" \
             where t.\"v\" is null or excluded.\"v\" is null or excluded.\"v\" >= t.\"v\""
        );
        assert!(upsert(&schema, "x", &ColumnMask::new()).ends_with("do nothing"));
        assert!(upsert(&schema, "x", &[3].into_iter().collect()).ends_with(
            "coalesce(t.\"attrs\" || excluded.\"attrs\", excluded.\"attrs\", t.\"attrs\")"
        ));
    }

    #[test]
    fn updates_and_inserts_of_what_is_missing_merge_alike() {
        let schema = schema();
        let mask = [0, 1].into_iter().collect();
        assert_eq!(
            update(&schema, "x", &mask),
            "update \"Sales\".\"x\" as t set \"a\" = u.c0, \
             \"took\" = greatest(t.\"took\", u.c1::interval) \
             from (select unnest($1::uuid[]) as k, unnest($2::int4[]) as c0, \
             unnest($3::text[]) as c1) as u where t.\"Order\" = u.k"
        );
        assert!(insert_missing(&schema, "x", &mask).contains(
            "as c1) as u where not exists (select from \"Sales\".\"x\" as there \
             where there.\"Order\" = u.k) on conflict (\"Order\") do update set \"a\" = "
        ));
    }
}
