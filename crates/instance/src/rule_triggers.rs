//! The rules' triggers: what they may conclude from the feed's types, and who makes them anew.

use std::sync::Arc;

use pgbraid_feed::{FeedSchema, types::ColumnType};
use pgbraid_rules::{Column, ColumnKind, StoredRule, TRIGGER_TEXT, trigger_ddl};
use pgbraid_shardmap::KeyType;
use tokio_postgres::Transaction;

use crate::{
    DbError, Instance,
    rules::{LOCK_WAIT, RuleSet, Schemas, read_set, refused, retried, target},
};

impl Instance {
    /// Makes the triggers of this instance's own rules anew if they are [`RuleSet::outdated`].
    /// Returns whether they were.
    ///
    /// # Errors
    /// If the instance can't be asked, or a trigger can't be made.
    pub async fn renew_triggers(&self, schemas: &Schemas) -> Result<bool, DbError> {
        retried(|| self.try_renew_triggers(schemas)).await
    }

    /// The same, tried once: while somebody holds the table, each try keeps writers waiting, and
    /// the old triggers are as good but for their speed.
    ///
    /// # Errors
    /// As above, and if the locks can't be had at once.
    pub async fn try_renew_triggers(&self, schemas: &Schemas) -> Result<bool, DbError> {
        let mut client = self.connect("").await?;
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK_WAIT).await?;
        let set = read_set(&transaction, true).await?;
        if !set.outdated {
            return Ok(false);
        }
        set_version(&transaction, &set.version.to_string()).await?;
        install_triggers(&transaction, schemas.values(), &set).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// The triggers of all feeds are made of this version, a number in SQL, in this program's way.
pub(crate) async fn set_version(
    transaction: &Transaction<'_>,
    version: &str,
) -> Result<(), DbError> {
    let sql = format!(
        "update pgbraid.rule_set \
         set version = {version}, text_version = {version}, trigger_text = $1"
    );
    transaction.execute(&sql, &[&TRIGGER_TEXT]).await?;
    Ok(())
}

/// Makes the triggers of these feeds those of the rules.
pub(crate) async fn install_triggers(
    transaction: &Transaction<'_>,
    schemas: impl Iterator<Item = &Arc<FeedSchema>>,
    set: &RuleSet,
) -> Result<(), DbError> {
    for schema in schemas {
        let rules: Vec<StoredRule> = set
            .rules
            .iter()
            .filter(|row| row.rule.feed == schema.feed.to_string())
            .map(|row| StoredRule {
                rule: row.rule.clone(),
                version: row.version,
            })
            .collect();
        let ddl = trigger_ddl(&target(schema), &rules, &kinds(schema)).map_err(refused)?;
        for statement in ddl {
            transaction.batch_execute(&statement).await?;
        }
    }
    Ok(())
}

/// The columns with what the triggers may conclude from their types.
fn kinds(schema: &FeedSchema) -> Vec<Column> {
    let key = Column {
        name: schema.key.name.clone(),
        kind: match schema.key.ty {
            KeyType::Int8 => ColumnKind::Int8,
            KeyType::Uuid => ColumnKind::Plain,
            KeyType::Text => ColumnKind::Text,
        },
    };
    let others = schema.columns.iter().map(|column| Column {
        name: column.name.clone(),
        kind: kind(&column.ty),
    });
    std::iter::once(key).chain(others).collect()
}

fn kind(ty: &ColumnType) -> ColumnKind {
    match ty {
        ColumnType::Int2 => ColumnKind::Int2,
        ColumnType::Int4 => ColumnKind::Int4,
        ColumnType::Int8 => ColumnKind::Int8,
        ColumnType::Numeric { precision, .. } => ColumnKind::Numeric {
            fixed: precision.is_some(),
        },
        ColumnType::Float4 | ColumnType::Float8 => ColumnKind::Float,
        ColumnType::Text | ColumnType::Varchar { .. } => ColumnKind::Text,
        ColumnType::Bool
        | ColumnType::Bytea
        | ColumnType::Uuid
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Timestamp
        | ColumnType::Timestamptz => ColumnKind::Plain,
        ColumnType::Char { .. }
        | ColumnType::Interval
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Array(_)
        | ColumnType::Other { .. } => ColumnKind::Other,
    }
}
