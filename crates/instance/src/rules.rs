//! Rules as an instance keeps them, and their triggers.
//!
//! The home's rules are the truth: an edit is a transaction there, which orders editors and
//! refuses one who has not seen the latest version. The other instances get the whole set by its
//! version, at once or when they are back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pgbraid_feed::FeedSchema;
use pgbraid_rules::{
    Rule, SEARCH_PATH_SQL, TRIGGER_TEXT, Target, check, dry_run_sample_sql, dry_run_sql, probe_sql,
};
use tokio_postgres::Transaction;

use crate::{
    ChangeFeed, DbError, DbErrorKind, Instance, changes,
    cooldowns::settle,
    identity::next_version,
    rule_triggers::{install_triggers, set_version},
    sql::leaf,
};

/// A rule with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRuleRow {
    /// The rule.
    pub rule: Rule,
    /// Counts its edits, from 1.
    pub version: i64,
    /// µs since 1970-01-01 UTC.
    pub updated_at_us: i64,
}

/// All rules of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// Counts edits of the set.
    pub version: i64,
    /// By name.
    pub rules: Vec<StoredRuleRow>,
    /// Which feeds tell of their changes: triggers as well, and copied with the rules.
    pub changes: Vec<ChangeFeed>,
    /// The instance's triggers were made of these rules by an older program, which made them in
    /// another way.
    pub outdated: bool,
}

/// An edit of the set: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct RuleChange {
    /// Rules to store. The version is the one the editor has seen: 0 for a new rule, `None` to
    /// replace whatever is there.
    pub put: Vec<(Rule, Option<i64>)>,
    /// Rules to remove, likewise.
    pub remove: Vec<(String, Option<i64>)>,
    /// Remove the rules of these feeds that are not put.
    pub prune_feeds: Vec<String>,
    /// Which feeds are to tell of their changes from now on; `None` leaves it as it is.
    pub changes: Option<Vec<ChangeFeed>>,
    /// Check everything, change nothing.
    pub dry_run: bool,
}

/// What an edit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleEdit {
    /// The set afterwards.
    pub set: RuleSet,
    /// Rules that were added or changed.
    pub changed: Vec<String>,
    /// Rules that were removed.
    pub removed: Vec<String>,
}

/// Feeds by name.
pub type Schemas = BTreeMap<String, Arc<FeedSchema>>;

/// Each try waits this long for the locks; writers go on in between.
pub(crate) const LOCK_WAIT: &str =
    "set local lock_timeout = '500ms'; set local statement_timeout = '60s'";
const TRIES: u32 = 20;

pub(crate) fn target(schema: &FeedSchema) -> Target {
    Target {
        feed: schema.feed.to_string(),
        schema: schema.schema.clone(),
        table: schema.table.clone(),
        key_column: schema.key.name.clone(),
    }
}

fn columns(schema: &FeedSchema) -> Vec<String> {
    std::iter::once(schema.key.name.clone())
        .chain(schema.columns.iter().map(|column| column.name.clone()))
        .collect()
}

pub(crate) fn refused(error: impl std::fmt::Display) -> DbError {
    DbError::new(DbErrorKind::Refused, error.to_string())
}

pub(crate) async fn read_set(
    transaction: &Transaction<'_>,
    lock: bool,
) -> Result<RuleSet, DbError> {
    let set = transaction
        .query_one(
            if lock {
                "select version, trigger_text, text_version from pgbraid.rule_set for update"
            } else {
                "select version, trigger_text, text_version from pgbraid.rule_set"
            },
            &[],
        )
        .await?;
    let (version, text, text_version): (i64, i32, i64) = (set.get(0), set.get(1), set.get(2));
    let rows = transaction
        .query(
            "select name, feed, expression, channel, reason, mode, version, \
             (extract(epoch from updated_at) * 1000000)::int8, resolve, cooldown_ms \
             from pgbraid.rule order by name",
            &[],
        )
        .await?;
    let rules = rows
        .into_iter()
        .map(|row| {
            let mode: String = row.get(5);
            Ok(StoredRuleRow {
                rule: Rule {
                    name: row.get(0),
                    feed: row.get(1),
                    expression: row.get(2),
                    channel: row.get(3),
                    reason: row.get(4),
                    mode: mode.parse().map_err(refused)?,
                    resolve: row.get(8),
                    cooldown: Duration::from_millis(row.get::<_, i64>(9).max(0) as u64),
                },
                version: row.get(6),
                updated_at_us: row.get(7),
            })
        })
        .collect::<Result<_, DbError>>()?;
    Ok(RuleSet {
        version,
        rules,
        changes: changes::read(transaction).await?,
        outdated: text < TRIGGER_TEXT || text_version != version,
    })
}

impl Instance {
    /// The rules as this instance has them.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn rules(&self) -> Result<RuleSet, DbError> {
        let mut session = self.reader().await?;
        let transaction = session.client.transaction().await?;
        let set = read_set(&transaction, false).await?;
        transaction.commit().await?;
        session.done();
        Ok(set)
    }

    /// In the home: edits the rules.
    ///
    /// # Errors
    /// `Refused` if a rule is not valid, `Contradiction` if a version is not the stored one.
    pub async fn edit_rules(
        &self,
        change: &RuleChange,
        schemas: &Schemas,
    ) -> Result<RuleEdit, DbError> {
        retried(|| self.edit_rules_once(change, schemas)).await
    }

    async fn edit_rules_once(
        &self,
        change: &RuleChange,
        schemas: &Schemas,
    ) -> Result<RuleEdit, DbError> {
        let mut client = self.connect("").await?;
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK_WAIT).await?;
        let mut edit = RuleEdit::default();
        let before = read_set(&transaction, true).await?;
        let stored: BTreeMap<&str, &StoredRuleRow> = before
            .rules
            .iter()
            .map(|row| (row.rule.name.as_str(), row))
            .collect();
        let seen = |name: &str, expected: Option<i64>| {
            let there = stored.get(name).map_or(0, |row| row.version);
            match expected {
                Some(expected) if expected != there => Err(DbError::new(
                    DbErrorKind::Contradiction,
                    match there {
                        0 => format!("rule {name:?} is not there any more: look again and decide"),
                        _ => format!(
                            "rule {name:?} has version {there}, not {expected}: somebody else \
                             changed it; look again and decide"
                        ),
                    },
                )),
                _ => Ok(there),
            }
        };
        let mut remove: Vec<String> = Vec::new();
        for (name, expected) in &change.remove {
            if seen(name, *expected)? == 0 {
                return Err(DbError::new(
                    DbErrorKind::Contradiction,
                    format!("there is no rule {name:?}"),
                ));
            }
            remove.push(name.clone());
        }
        let kept: Vec<&str> = change
            .put
            .iter()
            .map(|(rule, _)| rule.name.as_str())
            .collect();
        remove.extend(before.rules.iter().filter_map(|row| {
            let pruned = change.prune_feeds.contains(&row.rule.feed);
            (pruned && !kept.contains(&row.rule.name.as_str())).then(|| row.rule.name.clone())
        }));
        let mut feeds: Vec<&str> = Vec::new();
        for name in &remove {
            if let Some(row) = stored.get(name.as_str()) {
                feeds.push(&row.rule.feed);
            }
            transaction
                .execute("delete from pgbraid.rule where name = $1", &[name])
                .await?;
        }
        for (rule, expected) in &change.put {
            rule.validate().map_err(refused)?;
            let version = seen(&rule.name, *expected)?;
            let schema = schemas.get(&rule.feed).ok_or_else(|| {
                refused(format!(
                    "rule {:?}: there is no feed {:?}",
                    rule.name, rule.feed
                ))
            })?;
            probe(&transaction, schema, rule).await?;
            if let Some(row) = stored.get(rule.name.as_str()) {
                if row.rule == *rule {
                    continue;
                }
                feeds.push(&row.rule.feed);
            }
            feeds.push(&rule.feed);
            store(&transaction, rule, version + 1).await?;
            edit.changed.push(rule.name.clone());
        }
        edit.removed = remove;
        let other = |wanted: &&Vec<ChangeFeed>| **wanted != before.changes;
        let changes = change.changes.as_ref().filter(other);
        if let Some(changes) = changes {
            changes::install(&transaction, changes, schemas).await?;
        }
        let anything = !edit.changed.is_empty() || !edit.removed.is_empty() || changes.is_some();
        if anything {
            set_version(&transaction, &next_version("version")).await?;
        }
        edit.set = read_set(&transaction, false).await?;
        feeds.sort_unstable();
        feeds.dedup();
        if anything && before.outdated {
            feeds = schemas.keys().map(String::as_str).collect();
        }
        let feeds = feeds.into_iter().filter_map(|feed| schemas.get(feed));
        install_triggers(&transaction, feeds, &edit.set).await?;
        settle(&transaction, &before, &edit.set).await?;
        if anything && !change.dry_run {
            transaction
                .batch_execute("notify pgbraid_ownership")
                .await?;
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        Ok(edit)
    }

    /// Makes this instance's rules equal to the home's set, unless it has that version already.
    /// Returns whether anything was done.
    ///
    /// # Errors
    /// If the instance can't be asked, or a trigger can't be made.
    pub async fn install_rules(&self, set: &RuleSet, schemas: &Schemas) -> Result<bool, DbError> {
        retried(|| self.install_rules_once(set, schemas)).await
    }

    async fn install_rules_once(&self, set: &RuleSet, schemas: &Schemas) -> Result<bool, DbError> {
        let mut client = self.connect("").await?;
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK_WAIT).await?;
        let before = read_set(&transaction, true).await?;
        if before.version >= set.version {
            return Ok(false);
        }
        transaction.execute("delete from pgbraid.rule", &[]).await?;
        for row in &set.rules {
            store(&transaction, &row.rule, row.version).await?;
        }
        set_version(&transaction, &set.version.to_string()).await?;
        install_triggers(&transaction, schemas.values(), set).await?;
        settle(&transaction, &before, set).await?;
        changes::install(&transaction, &set.changes, schemas).await?;
        // Routers say of an instance that it tells all changes only once it does.
        transaction
            .batch_execute("notify pgbraid_ownership")
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Counts the stored rows of tables on which a rule would fire: rows, matches, sample keys.
    ///
    /// # Errors
    /// If the rule is not valid or can't be tried on stored rows.
    pub async fn test_rule(
        &self,
        schema: &FeedSchema,
        rule: &Rule,
        tables: &[u32],
        sample: i64,
    ) -> Result<(i64, i64, Vec<String>), DbError> {
        let expression = check(&rule.expression, &columns(schema)).map_err(refused)?;
        let mut client = self.connect("-c statement_timeout=0").await?;
        let (mut rows, mut matched, mut keys) = (0, 0, Vec::new());
        for number in tables {
            let one = Target {
                table: leaf(&schema.table, *number),
                ..target(schema)
            };
            let (Some(count), Some(sample_sql)) = (
                dry_run_sql(&one, &expression),
                dry_run_sample_sql(&one, &expression),
            ) else {
                return Err(refused(
                    "a rule that mentions old. depends on a change and can't be tried on stored \
                     rows",
                ));
            };
            let transaction = client.build_transaction().read_only(true).start().await?;
            transaction.batch_execute(SEARCH_PATH_SQL).await?;
            let all = format!(
                "select count(*) from {}",
                crate::sql::qualified(&one.schema, &one.table)
            );
            rows += transaction.query_one(&all, &[]).await?.get::<_, i64>(0);
            let here: i64 = transaction.query_one(&count, &[]).await?.get(0);
            matched += here;
            let wanted = sample - keys.len() as i64;
            if here > 0 && wanted > 0 {
                let found = transaction.query(&sample_sql, &[&wanted]).await?;
                keys.extend(found.into_iter().map(|row| row.get::<_, String>(0)));
            }
        }
        Ok((rows, matched, keys))
    }
}

async fn probe(
    transaction: &Transaction<'_>,
    schema: &FeedSchema,
    rule: &Rule,
) -> Result<(), DbError> {
    let named = |error: DbError| {
        DbError {
            kind: match error.kind {
                DbErrorKind::Statement => DbErrorKind::Refused,
                other => other,
            },
            ..error
        }
        .context(format!("rule {:?}", rule.name))
    };
    let expression = rule
        .check(&columns(schema))
        .map_err(|error| named(refused(error)))?;
    transaction.batch_execute(SEARCH_PATH_SQL).await?;
    transaction
        .query(&probe_sql(&target(schema), &expression), &[])
        .await
        .map_err(|error| named(DbError::from(error)))?;
    Ok(())
}

async fn store(transaction: &Transaction<'_>, rule: &Rule, version: i64) -> Result<(), DbError> {
    transaction
        .execute(
            "insert into pgbraid.rule \
             (name, feed, expression, channel, reason, mode, version, resolve, cooldown_ms) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (name) do update set \
             feed = excluded.feed, expression = excluded.expression, channel = excluded.channel, \
             reason = excluded.reason, mode = excluded.mode, version = excluded.version, \
             resolve = excluded.resolve, cooldown_ms = excluded.cooldown_ms, updated_at = now()",
            &[
                &rule.name,
                &rule.feed,
                &rule.expression,
                &rule.channel,
                &rule.reason,
                &rule.mode.to_string(),
                &version,
                &rule.resolve,
                &rule.cooldown_ms(),
            ],
        )
        .await?;
    Ok(())
}

/// The triggers' locks are short, but have to be got between writers' transactions.
pub(crate) async fn retried<T, F: Future<Output = Result<T, DbError>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, DbError> {
    let mut tries = 0;
    loop {
        match attempt().await {
            Err(error) if error.kind == DbErrorKind::Conflict && tries < TRIES => {
                tries += 1;
                let wait = Duration::from_millis(20 * u64::from(tries));
                tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
            }
            other => return other,
        }
    }
}
