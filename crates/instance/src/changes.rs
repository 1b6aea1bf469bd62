//! Which feeds tell of their changes, and what they tell.
//!
//! The triggers are made by functions in the instance (migrations/0004_changes.sql and
//! 0007_change_columns.sql), so that every new leaf gets them by one call.

use std::collections::BTreeSet;

use pgbraid_feed::FeedSchema;
use pgbraid_shardmap::TableId;
use tokio_postgres::Transaction;

use crate::{
    DbError, DbErrorKind, Instance,
    rules::Schemas,
    sql::{leaf, qualified},
};

/// The channel on which instances tell of changed rows.
pub const CHANGE_CHANNEL: &str = "pgbraid_change";

/// What a feed tells of its changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeFeed {
    /// The feed.
    pub feed: String,
    /// It tells the change stream.
    pub stream: bool,
    /// With that, which columns its updates change.
    pub columns: bool,
    /// It notifies `<table>_chan` of every row.
    pub table_channel: bool,
}

/// What a notification on [`CHANGE_CHANNEL`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeNote<'a> {
    /// The feed.
    pub feed: &'a str,
    /// Of it.
    pub kind: ChangeNoteKind<'a>,
}

/// See [`ChangeNote`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeNoteKind<'a> {
    /// Rows were inserted (`I`), updated (`U`) or deleted (`D`).
    Keys {
        /// The letter.
        op: char,
        /// Which.
        rows: Vec<ChangedRows<'a>>,
    },
    /// More was changed than is told.
    Reset(&'a str),
}

/// Rows of which the same is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedRows<'a> {
    /// The columns that have another value now; `None` if that is not told.
    pub columns: Option<Vec<&'a str>>,
    /// The keys, as text.
    pub keys: Vec<&'a str>,
}

impl<'a> ChangeNote<'a> {
    /// Reads a payload. `None` if it is not one of ours.
    pub fn parse(payload: &'a str) -> Option<Self> {
        let mut parts = payload.splitn(5, ' ');
        let (op, form) = (parts.next()?, parts.next()?);
        let (feed, _number, rest) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = match (op, form) {
            ("R", "reset") => ChangeNoteKind::Reset(rest),
            ("I" | "U" | "D", _) => ChangeNoteKind::Keys {
                op: op.chars().next()?,
                rows: match form {
                    "list" => vec![ChangedRows {
                        columns: None,
                        keys: rest.split(',').collect(),
                    }],
                    "text" => vec![ChangedRows {
                        columns: None,
                        keys: all_texts(rest)?,
                    }],
                    "sets" => sets(rest, |rest| {
                        let (keys, rest) = rest.split_once(';')?;
                        Some((keys.split(',').collect(), rest))
                    })?,
                    "textsets" => sets(rest, |rest| {
                        let (keys, rest) = texts(rest)?;
                        Some((keys, rest.strip_prefix(';')?))
                    })?,
                    _ => return None,
                },
            },
            _ => return None,
        };
        Some(Self { feed, kind })
    }
}

/// `2:c12:c2=1,2;=3;`: the columns, then the keys.
fn sets<'a>(
    mut rest: &'a str,
    keys: impl Fn(&'a str) -> Option<(Vec<&'a str>, &'a str)>,
) -> Option<Vec<ChangedRows<'a>>> {
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let (columns, after) = texts(rest)?;
        let (keys, after) = keys(after.strip_prefix('=')?)?;
        rows.push(ChangedRows {
            columns: Some(columns),
            keys,
        });
        rest = after;
    }
    Some(rows)
}

fn all_texts(rest: &str) -> Option<Vec<&str>> {
    texts(rest).and_then(|(keys, rest)| rest.is_empty().then_some(keys))
}

/// `3:abc5:de,fg`: each after its number of characters. And what comes behind them.
fn texts(mut rest: &str) -> Option<(Vec<&str>, &str)> {
    let mut texts = Vec::new();
    while rest.starts_with(|first: char| first.is_ascii_digit()) {
        let (count, after) = rest.split_once(':')?;
        let count: usize = count.parse().ok()?;
        let end = match after.char_indices().nth(count) {
            Some((end, _)) => end,
            None if after.chars().count() == count => after.len(),
            None => return None,
        };
        let (text, others) = after.split_at(end);
        texts.push(text);
        rest = others;
    }
    Some((texts, rest))
}

/// The feeds that tell anything, by name.
pub(crate) async fn read(transaction: &Transaction<'_>) -> Result<Vec<ChangeFeed>, DbError> {
    let rows = transaction
        .query(
            "select feed, stream, table_channel, columns from pgbraid.change_feed \
             where stream or table_channel order by feed collate \"C\"",
            &[],
        )
        .await?;
    let feeds = rows.into_iter().map(|row| ChangeFeed {
        feed: row.get(0),
        stream: row.get(1),
        table_channel: row.get(2),
        columns: row.get(3),
    });
    Ok(feeds.collect())
}

/// Makes the triggers of all feeds what these settings say. A feed that they leave out tells
/// nothing.
pub(crate) async fn install(
    transaction: &Transaction<'_>,
    wanted: &[ChangeFeed],
    schemas: &Schemas,
) -> Result<(), DbError> {
    for feed in wanted {
        let schema = schemas.get(&feed.feed).ok_or_else(|| {
            let message = format!(
                "there is no feed {:?} whose changes could be told",
                feed.feed
            );
            DbError::new(DbErrorKind::Refused, message)
        })?;
        transaction
            .execute(
                "insert into pgbraid.change_feed \
                 (feed, table_schema, table_name, key_column, stream, table_channel, columns) \
                 values ($1, $2, $3, $4, $5, $6, $7) on conflict (feed) do update set \
                 table_schema = excluded.table_schema, table_name = excluded.table_name, \
                 key_column = excluded.key_column, stream = excluded.stream, \
                 table_channel = excluded.table_channel, columns = excluded.columns",
                &[
                    &feed.feed,
                    &schema.schema,
                    &schema.table,
                    &schema.key.name,
                    &feed.stream,
                    &feed.table_channel,
                    &feed.columns,
                ],
            )
            .await?;
    }
    let names: Vec<&str> = wanted.iter().map(|feed| feed.feed.as_str()).collect();
    let others = transaction
        .query(
            "update pgbraid.change_feed \
             set stream = false, table_channel = false, columns = false \
             where feed <> all ($1) and (stream or table_channel) returning feed",
            &[&names],
        )
        .await?;
    let others: BTreeSet<String> = others.iter().map(|row| row.get(0)).collect();
    for feed in names.into_iter().chain(others.iter().map(String::as_str)) {
        transaction
            .execute("select pgbraid.track_feed($1)", &[&feed])
            .await
            .map_err(|error| {
                DbError::from(error).context(format!("making the triggers of feed {feed}"))
            })?;
    }
    Ok(())
}

/// Gives a new leaf the triggers of its feed.
pub(crate) async fn track_leaf(
    transaction: &Transaction<'_>,
    schema: &FeedSchema,
    table: TableId,
) -> Result<(), DbError> {
    let name = qualified(&schema.schema, &leaf(&schema.table, table.index()));
    transaction
        .execute(
            "select pgbraid.track_table($1, $2::text::regclass, false)",
            &[&schema.feed.as_ref(), &name],
        )
        .await?;
    Ok(())
}

impl Instance {
    /// The feeds of which every change is told here: those that are to tell them, and whose parent
    /// and leaves all have the triggers.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn tracked_feeds(&self) -> Result<Vec<String>, DbError> {
        let mut session = self.reader().await?;
        let rows = session
            .client
            .query(
                "select f.feed from pgbraid.change_feed f, \
                 lateral (select to_regclass(format('%I.%I', f.table_schema, f.table_name)) as oid) p \
                 where f.stream and p.oid is not null and not exists ( \
                   select from (select p.oid union all \
                     select inhrelid from pg_inherits where inhparent = p.oid) t (oid), \
                   unnest(array['insert', case when f.columns then 'columns' else 'update' end, \
                     'delete', 'truncate']) event \
                   where not exists (select from pg_trigger g where g.tgrelid = t.oid \
                     and g.tgname = 'pgbraid_changes_' || event and g.tgenabled in ('O', 'A')))",
                &[],
            )
            .await?;
        session.done();
        Ok(rows.into_iter().map(|row| row.get(0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rows<'a> = Vec<(Option<Vec<&'a str>>, Vec<&'a str>)>;

    fn rows(payload: &str) -> Option<(char, Rows<'_>)> {
        match ChangeNote::parse(payload)?.kind {
            ChangeNoteKind::Keys { op, rows } => {
                let rows = rows.into_iter().map(|rows| (rows.columns, rows.keys));
                Some((op, rows.collect()))
            }
            ChangeNoteKind::Reset(_) => None,
        }
    }

    fn keys(payload: &str) -> Option<(char, Vec<&str>)> {
        match rows(payload)? {
            (op, mut rows) if rows.len() == 1 && rows[0].0.is_none() => {
                Some((op, rows.remove(0).1))
            }
            _ => None,
        }
    }

    #[test]
    fn keys_come_back_as_they_were() {
        assert_eq!(
            keys("U list orders 0 1,-22,333"),
            Some(('U', vec!["1", "-22", "333"]))
        );
        let texts = "I text orders 7 3:a b0:2:é:4:1:2,";
        assert_eq!(keys(texts), Some(('I', vec!["a b", "", "é:", "1:2,"])));
        let reset = ChangeNote::parse("R reset orders 0 it was truncated").unwrap();
        assert_eq!(reset.feed, "orders");
        assert_eq!(reset.kind, ChangeNoteKind::Reset("it was truncated"));
    }

    #[test]
    fn columns_come_with_the_keys_that_they_changed_of() {
        let expected = vec![
            (Some(vec!["c1", "a=;b"]), vec!["1", "-2"]),
            (Some(vec![]), vec!["3"]),
        ];
        assert_eq!(
            rows("U sets orders 7 2:c14:a=;b=1,-2;=3;"),
            Some(('U', expected))
        );
        let expected = vec![
            (Some(vec!["é"]), vec!["a;", ""]),
            (Some(vec!["c"]), vec!["3:b"]),
        ];
        assert_eq!(
            rows("U textsets orders 7 1:é=2:a;0:;1:c=3:3:b;"),
            Some(('U', expected))
        );
    }

    #[test]
    fn what_is_not_ours_is_not_guessed() {
        for payload in [
            "",
            "U",
            "X list orders 0 1",
            "U other orders 0 1",
            "U text orders 0 5:abc",
            "U text orders 0 abc",
            "U text orders 0 1:a;",
            "U sets orders 0 1:a",
            "U sets orders 0 1:a=1",
            "U textsets orders 0 1:a=1:b",
            "U textsets orders 0 1:a=b;",
        ] {
            assert_eq!(ChangeNote::parse(payload), None, "{payload:?}");
        }
    }
}
