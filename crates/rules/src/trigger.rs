//! A feed's rules as triggers on its parent table.
//!
//! The conditions stand twice: in the triggers' WHEN, where PostgreSQL evaluates them without
//! calling anything, so that a row that matches no rule costs little; and in the function,
//! which runs only for a row that matches one, and finds out which.

use std::collections::BTreeSet;

use crate::error::RuleError;
use crate::expression::{Expression, check};
use crate::query::{SEARCH_PATH_SQL, table};
use crate::quote;
use crate::rule::{Mode, Rule, StoredRule, Target};

/// Name of the trigger for inserts.
pub const INSERT_TRIGGER: &str = "pgbraid_rules_insert";
/// Name of the trigger for updates.
pub const UPDATE_TRIGGER: &str = "pgbraid_rules_update";
/// PostgreSQL cuts longer names, and two feeds would share a function.
const MAX_FEED_BYTES: usize = 63 - "rules_".len();

/// One rule with its conditions, each a boolean that is never null.
struct Conditions<'a> {
    stored: &'a StoredRule,
    insert: Option<String>,
    update: String,
}

/// The qualified, quoted name of a feed's trigger function: `pgbraid."rules_orders"`.
pub fn function_name(feed: &str) -> String {
    format!("pgbraid.{}", quote::ident(&format!("rules_{feed}")))
}

/// The statements that make the triggers of `target` equal to `rules`, whatever was there
/// before; with no rules, those that remove them. Run them in order, in one transaction, with
/// a `lock_timeout`: they take a short exclusive lock on the table and its partitions.
/// The first sets the `search_path` until the transaction ends. The text depends only on the
/// arguments' values, not on the order of `rules`.
///
/// The function writes `pgbraid.alert (feed, rule, rule_version, channel, reason, key, "row")`
/// with its owner's rights, then notifies the channel `pgbraid_alert` with an empty payload.
///
/// # Errors
/// [`RuleError::Rule`] for a rule that is invalid, belongs to another feed, or stands there
/// twice; [`RuleError::Field`] for a target that cannot be.
pub fn trigger_ddl(
    target: &Target,
    rules: &[StoredRule],
    columns: &[String],
) -> Result<Vec<String>, RuleError> {
    validate(target)?;
    let on = table(target);
    let mut ddl = vec![
        SEARCH_PATH_SQL.to_owned(),
        format!("drop trigger if exists {INSERT_TRIGGER} on {on}"),
        format!("drop trigger if exists {UPDATE_TRIGGER} on {on}"),
    ];
    let function = function_name(&target.feed);
    if rules.is_empty() {
        ddl.push(format!("drop function if exists {function}()"));
        return Ok(ddl);
    }
    if !columns.contains(&target.key_column) {
        let problem = format!("{:?} is not a column of the table", target.key_column);
        return Err(RuleError::field("key_column", problem));
    }
    let conditions = conditions(target, rules, columns)?;
    ddl.push(function_ddl(target, &conditions));
    // Whoever could attach the function to a table of his own could forge alerts.
    ddl.push(format!("revoke all on function {function}() from public"));
    let inserts: Vec<&str> = conditions
        .iter()
        .filter_map(|c| c.insert.as_deref())
        .collect();
    let updates: Vec<&str> = conditions.iter().map(|c| c.update.as_str()).collect();
    for (name, event, when) in [
        (INSERT_TRIGGER, "insert", inserts),
        (UPDATE_TRIGGER, "update", updates),
    ] {
        if !when.is_empty() {
            ddl.push(format!(
                "create trigger {name} after {event} on {on} for each row\nwhen ({})\n\
                 execute function {function}()",
                when.join("\n   or ")
            ));
        }
    }
    Ok(ddl)
}

fn validate(target: &Target) -> Result<(), RuleError> {
    for (field, text) in [
        ("feed", &target.feed),
        ("schema", &target.schema),
        ("table", &target.table),
        ("key_column", &target.key_column),
    ] {
        if text.is_empty() || text.contains('\0') {
            let problem = "is empty or contains a NUL character; give the name in the catalog";
            return Err(RuleError::field(field, problem));
        }
    }
    if target.feed.len() > MAX_FEED_BYTES {
        let problem = format!(
            "is {} bytes long; with rules at most {MAX_FEED_BYTES} are allowed",
            target.feed.len()
        );
        return Err(RuleError::field("feed", problem));
    }
    Ok(())
}

/// The rules' conditions, in the order of their names.
fn conditions<'a>(
    target: &Target,
    rules: &'a [StoredRule],
    columns: &[String],
) -> Result<Vec<Conditions<'a>>, RuleError> {
    let mut names = BTreeSet::new();
    let mut all = Vec::with_capacity(rules.len());
    for stored in rules {
        let rule = &stored.rule;
        let checked = checked(target, rule, columns).and_then(|expression| {
            match names.insert(rule.name.as_str()) {
                true => Ok(expression),
                false => Err(RuleError::field("name", "is used by two rules; rename one")),
            }
        });
        let expression = checked.map_err(|e| e.of_rule(&rule.name))?;
        all.push(Conditions {
            stored,
            insert: (!expression.mentions_old())
                .then(|| format!("(({}) is true)", expression.new_sql())),
            update: on_update(&expression, rule.mode),
        });
    }
    all.sort_by(|a, b| a.stored.rule.name.cmp(&b.stored.rule.name));
    Ok(all)
}

fn checked(target: &Target, rule: &Rule, columns: &[String]) -> Result<Expression, RuleError> {
    rule.validate()?;
    if rule.feed != target.feed {
        let problem = format!("is {:?}, but these are the rules of another", rule.feed);
        return Err(RuleError::field("feed", problem));
    }
    check(&rule.expression, columns)
}

fn on_update(expression: &Expression, mode: Mode) -> String {
    let new = expression.new_sql();
    match (mode, expression.old_sql()) {
        (Mode::Edge, Some(old)) => format!("(({new}) is true and ({old}) is not true)"),
        // A transition rule compares the two rows itself.
        (Mode::Edge, None) | (Mode::Level, _) => format!("(({new}) is true)"),
    }
}

fn function_ddl(target: &Target, conditions: &[Conditions]) -> String {
    let inserts = conditions
        .iter()
        .filter_map(|c| c.insert.as_deref().map(|when| (c.stored, when)));
    let updates = conditions.iter().map(|c| (c.stored, c.update.as_str()));
    let on_insert = record_matches(target, inserts);
    let on_update = record_matches(target, updates);
    // `old` must not even be named while the trigger runs for an insert.
    let body = format!(
        "\nbegin\n  if tg_op = 'INSERT' then{}\n  else{}\n  end if;\n  \
         perform pg_catalog.pg_notify('pgbraid_alert', '');\n  return null;\nend\n",
        on_insert.unwrap_or_else(|| "\n    return null;".to_owned()),
        on_update.unwrap_or_else(|| "\n    return null;".to_owned()),
    );
    format!(
        "create or replace function {}() returns trigger\nlanguage plpgsql security definer\n\
         set search_path = pg_catalog, pg_temp\nas {}",
        function_name(&target.feed),
        quote::dollar(&body)
    )
}

/// One statement for all rules: PostgreSQL plans it once, where a statement for each rule
/// would be planned and kept a hundred times in each connection for each partition.
fn record_matches<'a>(
    target: &Target,
    rules: impl Iterator<Item = (&'a StoredRule, &'a str)>,
) -> Option<String> {
    let rows: Vec<String> = rules
        .map(|(StoredRule { rule, version }, when)| {
            format!(
                "      ({}, {version}::int8, {}, {}, {when})",
                quote::literal(&rule.name),
                quote::literal(&rule.channel),
                quote::literal(&rule.reason),
            )
        })
        .collect();
    (!rows.is_empty()).then(|| {
        format!(
            "\n    insert into pgbraid.alert \
             (feed, rule, rule_version, channel, reason, key, \"row\")\n    \
             select {}, m.rule, m.version, m.channel, m.reason, new.{}::text, \
             pg_catalog.row_to_json(new)\n    from (values\n{}\n    ) \
             m (rule, version, channel, reason, hit)\n    where m.hit;",
            quote::literal(&target.feed),
            quote::ident(&target.key_column),
            rows.join(",\n"),
        )
    })
}
