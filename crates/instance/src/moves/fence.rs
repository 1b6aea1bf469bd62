//! The fence: triggers on a table that raise our own SQLSTATE.

use super::Move;
use crate::{DbError, sql::quote_literal};

/// Fires for each row, however it is reached.
const ROW: &str = "pgbraid_fence_row";
/// Fires for statements that name the table, also if they find no row, and for truncate.
const STATEMENT: &str = "pgbraid_fence_statement";

/// When rows are turned away.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// Before anything is done with them.
    Before,
    /// At the end of their statement, which takes everything back. A table with a trigger before each
    /// row is copied into row by row, whether it fires or not, at two thirds of the rate.
    After,
}

/// Makes the fence. Locks out the writers of this one table for a moment, and no reader.
pub(super) fn make(of: &Move, when: When) -> String {
    let when = match when {
        When::Before => "before",
        When::After => "after",
    };
    let (leaf, feed) = (of.leaf(), quote_literal(of.feed()));
    let call = format!("execute function pgbraid.fence({feed}, '{}')", of.number());
    format!(
        "create or replace trigger {ROW} {when} insert or update or delete on {leaf} \
         for each row {call}; \
         create or replace trigger {STATEMENT} before insert or update or delete or truncate \
         on {leaf} for each statement {call}"
    )
}

/// Lets no writer pass.
pub(super) fn raise(leaf: &str) -> String {
    format!("alter table {leaf} enable trigger {ROW}, enable trigger {STATEMENT}")
}

/// Whether it was made.
pub(super) async fn is_made(client: &tokio_postgres::Client, leaf: &str) -> Result<bool, DbError> {
    let row = client
        .query_one(
            "select count(*) = 2 from pg_trigger \
             where tgrelid = to_regclass($1) and tgname = any ($2)",
            &[&leaf, &[ROW, STATEMENT].as_slice()],
        )
        .await?;
    Ok(row.get(0))
}

/// Lets writers pass; the triggers stay. Dropping them would lock out readers too.
pub(super) fn lower(leaf: &str) -> String {
    format!("alter table {leaf} disable trigger {ROW}, disable trigger {STATEMENT}")
}

/// Takes a lowered fence away.
fn remove(leaf: &str) -> String {
    format!("drop trigger if exists {ROW} on {leaf}; drop trigger if exists {STATEMENT} on {leaf}")
}

/// Takes a lowered fence away, if no reader is in the way: lowered it costs next to nothing, and a
/// lock that waits for a long report would hold up writers behind it.
pub(super) async fn remove_if_idle(client: &tokio_postgres::Client, leaf: &str) {
    let removed = client
        .batch_execute(&format!(
            "begin; set local lock_timeout = 100; {}; commit",
            remove(leaf)
        ))
        .await;
    if removed.is_err() {
        let _ = client.batch_execute("rollback").await;
    }
}

/// Takes a partition out of its parent without locking anybody out. Begun before, it is finished.
pub(super) async fn detach(
    client: &tokio_postgres::Client,
    parent: &str,
    child: &str,
) -> Result<(), DbError> {
    let attached = client
        .query_opt(
            "select inhdetachpending from pg_inherits \
             where inhrelid = to_regclass($1) and inhparent = to_regclass($2)",
            &[&child, &parent],
        )
        .await?
        .map(|row| row.get::<_, bool>(0));
    if let Some(pending) = attached {
        let how = if pending { "finalize" } else { "concurrently" };
        client
            .batch_execute(&format!(
                "alter table {parent} detach partition {child} {how}"
            ))
            .await?;
    }
    Ok(())
}
