//! State of rules with a cool-down: when each key was last told.
//!
//! The rules' triggers write it in the transaction of the row. Here is what others do with it:
//! remove what is past, fit it to edited rules, and carry it with a table that moves.

use std::sync::LazyLock;

use tokio_postgres::Transaction;

use crate::{DbError, Instance, RuleSet};

/// When a rule with a cool-down last told of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// The rule's name.
    pub rule: String,
    /// The key, in text form.
    pub key: String,
    /// µs since 1970-01-01 UTC, by the clock of the instance that told.
    pub told_at_us: i64,
    /// How long none is told after that.
    pub cooldown_ms: i64,
    /// Whether the row matches, untold because of the cool-down.
    pub muted: bool,
}

/// What decides nothing any more: the next alert would be told in any case. A start that was kept
/// back is told by the row's next write, but not for ever: rows may be gone unnoticed (`truncate`).
const PAST: &str = "told_at + cooldown_ms * interval '1 millisecond' \
    + case when muted then interval '7 days' else interval '0' end < now()";

/// Those of a table that still decide something.
static DECIDING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "select rule, key, (extract(epoch from told_at) * 1000000)::int8, cooldown_ms, muted \
         from pgbraid.cooldown where tbl = $1 and not ({PAST}) \
         and rule in (select name from pgbraid.rule where feed = $2)"
    )
});

const DROP: &str = "delete from pgbraid.cooldown where tbl = $1 \
     and rule in (select name from pgbraid.rule where feed = $2)";

/// So many at once: writers wait for none of them, as they are locked for a moment each.
const CHUNK: i64 = 10_000;

/// Fits the state to the new set, after its triggers were made: no writer holds any of it now.
/// What was told stays told, so that mending a rule's text repeats no alerts; what was kept back
/// is forgotten, as it was kept back by another text.
pub(crate) async fn settle(
    transaction: &Transaction<'_>,
    before: &RuleSet,
    after: &RuleSet,
) -> Result<(), DbError> {
    transaction
        .execute(
            "delete from pgbraid.cooldown c where not exists \
             (select from pgbraid.rule r where r.name = c.rule and r.cooldown_ms > 0)",
            &[],
        )
        .await?;
    let edited = |old: &&crate::StoredRuleRow| {
        let mut rules = after.rules.iter();
        let new = rules.find(|new| new.rule.name == old.rule.name);
        new.is_some_and(|new| new.version != old.version)
    };
    let edited = before.rules.iter().filter(edited);
    let names: Vec<&str> = edited.map(|row| row.rule.name.as_str()).collect();
    transaction
        .execute(
            "update pgbraid.cooldown set muted = false where muted and rule = any ($1)",
            &[&names],
        )
        .await?;
    Ok(())
}

impl Instance {
    /// Removes cool-downs that are past. Returns how many.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn remove_past_cooldowns(&self) -> Result<u64, DbError> {
        let mut session = self.reader().await?;
        let sql = format!(
            "delete from pgbraid.cooldown where ctid = any (array( \
             select ctid from pgbraid.cooldown where {PAST} limit $1 for update skip locked))"
        );
        let mut removed = 0;
        loop {
            let now = session.client.execute(&sql, &[&CHUNK]).await?;
            removed += now;
            if now < CHUNK as u64 {
                break;
            }
        }
        session.done();
        Ok(removed)
    }

    /// The cool-downs of a feed's table (by the partition's name, `orders_17`) that still decide
    /// something. When a table moves, read them after the source has been fenced, and give them to
    /// the target before it owns the table.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn cooldowns(&self, feed: &str, leaf: &str) -> Result<Vec<Cooldown>, DbError> {
        let mut session = self.reader().await?;
        let ask = session.prepared(&DECIDING).await?;
        let rows = session.client.query(&ask, &[&leaf, &feed]).await?;
        session.done();
        Ok(rows
            .into_iter()
            .map(|row| Cooldown {
                rule: row.get(0),
                key: row.get(1),
                told_at_us: row.get(2),
                cooldown_ms: row.get(3),
                muted: row.get(4),
            })
            .collect())
    }

    /// Takes the cool-downs of a table from its last owner, and drops what was left of an earlier
    /// stay of the table here. It may be done again until the table is owned here, not later.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn take_cooldowns(
        &self,
        feed: &str,
        leaf: &str,
        cooldowns: &[Cooldown],
    ) -> Result<(), DbError> {
        let rules: Vec<&str> = cooldowns.iter().map(|one| one.rule.as_str()).collect();
        let keys: Vec<&str> = cooldowns.iter().map(|one| one.key.as_str()).collect();
        let told: Vec<i64> = cooldowns.iter().map(|one| one.told_at_us).collect();
        let lasts: Vec<i64> = cooldowns.iter().map(|one| one.cooldown_ms).collect();
        let muted: Vec<bool> = cooldowns.iter().map(|one| one.muted).collect();
        let mut session = self.reader().await?;
        let drop = session.prepared(DROP).await?;
        if cooldowns.is_empty() {
            // Writers of the table wait: mostly this is all.
            session.client.execute(&drop, &[&leaf, &feed]).await?;
            session.done();
            return Ok(());
        }
        let transaction = session.client.transaction().await?;
        transaction.execute(&drop, &[&leaf, &feed]).await?;
        transaction
            .execute(
                "insert into pgbraid.cooldown (rule, key, tbl, told_at, cooldown_ms, muted) \
                 select u.rule, u.key, $1, timestamptz 'epoch' + u.told * interval '1 microsecond', \
                 u.lasts, u.muted \
                 from unnest($2::text[], $3::text[], $4::int8[], $5::int8[], $6::bool[]) \
                 as u (rule, key, told, lasts, muted)",
                &[&leaf, &rules, &keys, &told, &lasts, &muted],
            )
            .await?;
        transaction.commit().await?;
        session.done();
        Ok(())
    }
}
