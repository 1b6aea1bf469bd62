//! Which feeds tell of their changes, and what they tell.
//!
//! The triggers are made by functions in the instance (migrations/0004_changes.sql), so that every
//! new leaf gets them by one call.

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
        /// The keys, as text.
        keys: Vec<&'a str>,
    },
    /// More was changed than is told.
    Reset(&'a str),
}

impl<'a> ChangeNote<'a> {
    /// Reads a payload. `None` if it is not one of ours.
    pub fn parse(payload: &'a str) -> Option<Self> {
        let mut parts = payload.splitn(5, ' ');
        let (op, form) = (parts.next()?, parts.next()?);
        let (feed, _number, rest) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = match (op, form) {
            ("R", "reset") => ChangeNoteKind::Reset(rest),
            ("I" | "U" | "D", "list") => ChangeNoteKind::Keys {
                op: op.chars().next()?,
                keys: rest.split(',').collect(),
            },
            ("I" | "U" | "D", "text") => ChangeNoteKind::Keys {
                op: op.chars().next()?,
                keys: texts(rest)?,
            },
            _ => return None,
        };
        Some(Self { feed, kind })
    }
}

/// `3:abc5:de,fg`: each key after its number of characters.
fn texts(mut rest: &str) -> Option<Vec<&str>> {
    let mut keys = Vec::new();
    while !rest.is_empty() {
        let (count, after) = rest.split_once(':')?;
        let count: usize = count.parse().ok()?;
        let end = match after.char_indices().nth(count) {
            Some((end, _)) => end,
            None if after.chars().count() == count => after.len(),
            None => return None,
        };
        let (key, others) = after.split_at(end);
        keys.push(key);
        rest = others;
    }
    Some(keys)
}

/// The feeds that tell anything, by name.
pub(crate) async fn read(transaction: &Transaction<'_>) -> Result<Vec<ChangeFeed>, DbError> {
    let rows = transaction
        .query(
            "select feed, stream, table_channel from pgbraid.change_feed \
             where stream or table_channel order by feed collate \"C\"",
            &[],
        )
        .await?;
    let feeds = rows.into_iter().map(|row| ChangeFeed {
        feed: row.get(0),
        stream: row.get(1),
        table_channel: row.get(2),
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
                 (feed, table_schema, table_name, key_column, stream, table_channel) \
                 values ($1, $2, $3, $4, $5, $6) on conflict (feed) do update set \
                 table_schema = excluded.table_schema, table_name = excluded.table_name, \
                 key_column = excluded.key_column, stream = excluded.stream, \
                 table_channel = excluded.table_channel",
                &[
                    &feed.feed,
                    &schema.schema,
                    &schema.table,
                    &schema.key.name,
                    &feed.stream,
                    &feed.table_channel,
                ],
            )
            .await?;
    }
    let names: Vec<&str> = wanted.iter().map(|feed| feed.feed.as_str()).collect();
    let others = transaction
        .query(
            "update pgbraid.change_feed set stream = false, table_channel = false \
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
                   unnest(array['insert', 'update', 'delete', 'truncate']) event \
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

    fn keys(payload: &str) -> Option<(char, Vec<&str>)> {
        match ChangeNote::parse(payload)?.kind {
            ChangeNoteKind::Keys { op, keys } => Some((op, keys)),
            ChangeNoteKind::Reset(_) => None,
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
    fn what_is_not_ours_is_not_guessed() {
        for payload in [
            "",
            "U",
            "X list orders 0 1",
            "U other orders 0 1",
            "U text orders 0 5:abc",
            "U text orders 0 abc",
        ] {
            assert_eq!(ChangeNote::parse(payload), None, "{payload:?}");
        }
    }
}
