//! A feed's rules as triggers on its parent table.
//!
//! The conditions stand twice: in the triggers' WHEN, where PostgreSQL evaluates them without
//! calling anything, so that a row that matches no rule costs little; and in the function,
//! which runs only for a row that concerns one, and finds out which. PostgreSQL prepares WHEN anew
//! for each statement, which for a statement of one row costs more than all else: a hundred rules
//! must not have a word too many in it. So what is rare is left to the function.
//!
//! A write that changes the key is the end of one row and the start of another, as it is when
//! PostgreSQL has to carry the row to another partition and makes a delete and an insert of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::change::is_seen_in_columns;
use crate::column::{Column, ColumnKind};
use crate::error::RuleError;
use crate::expression::Expression;
use crate::needs::Needs;
use crate::query::{SEARCH_PATH_SQL, table};
use crate::quote;
use crate::rule::{Mode, Rule, StoredRule, Target};

mod body;
mod when;

use when::{Of, Term};

/// Name of the trigger for inserts.
pub const INSERT_TRIGGER: &str = "pgbraid_rules_insert";
/// Name of the trigger for updates.
pub const UPDATE_TRIGGER: &str = "pgbraid_rules_update";
/// Name of the trigger for deletes: there is one only for rules that resolve.
pub const DELETE_TRIGGER: &str = "pgbraid_rules_delete";
/// Counts the ways in which [`trigger_ddl`] has made triggers of the same rules. Count it on with each
/// change of their text: stored ones of a lower number are made anew, those of a higher one are not.
pub const TRIGGER_TEXT: i32 = 1;
/// PostgreSQL cuts longer names, and two feeds would share a function.
const MAX_FEED_BYTES: usize = 63 - "rules_".len();

/// One rule with its conditions, each a boolean that is never null.
struct Conditions<'a> {
    stored: &'a StoredRule,
    /// The row starts to match by an insert. None for a transition rule.
    insert: Option<Term>,
    update: OnUpdate,
    stops: Option<Stops>,
}

/// What an update has to do with a rule.
struct OnUpdate {
    /// Whether the function has to look at it, in the trigger's WHEN; unless the key changes.
    when: Term,
    /// Whether it has to look at each change of a key, too.
    keys: bool,
    /// It fires, without a cool-down.
    fires: String,
    /// The new row matches: with a cool-down it may be told late.
    matches: String,
    /// The old row matched under the same key. None if each match is one of its own: then none is
    /// told late.
    matched: Option<String>,
}

/// The row that matched does not any more.
struct Stops {
    update: String,
    delete: Term,
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
/// The function writes `pgbraid.alert (feed, rule, rule_version, channel, reason, key, "row",
/// resolved)` with its owner's rights, then notifies the channel `pgbraid_alert` with an empty
/// payload. For rules with a cool-down it keeps `pgbraid.cooldown`.
///
/// # Errors
/// [`RuleError::Rule`] for a rule that is invalid, belongs to another feed, or stands there
/// twice; [`RuleError::Field`] for a target that cannot be.
pub fn trigger_ddl(
    target: &Target,
    rules: &[StoredRule],
    columns: &[Column],
) -> Result<Vec<String>, RuleError> {
    validate(target)?;
    let on = table(target);
    let mut ddl = vec![SEARCH_PATH_SQL.to_owned()];
    for trigger in [INSERT_TRIGGER, UPDATE_TRIGGER, DELETE_TRIGGER] {
        ddl.push(format!("drop trigger if exists {trigger} on {on}"));
    }
    let function = function_name(&target.feed);
    if rules.is_empty() {
        ddl.push(format!("drop function if exists {function}()"));
        return Ok(ddl);
    }
    if columns.iter().all(|one| one.name != target.key_column) {
        let problem = format!("{:?} is not a column of the table", target.key_column);
        return Err(RuleError::field("key_column", problem));
    }
    let conditions = conditions(target, rules, columns)?;
    ddl.push(body::function_ddl(target, &conditions));
    // Whoever could attach the function to a table of his own could forge alerts.
    ddl.push(format!("revoke all on function {function}() from public"));
    let key = quote::ident(&target.key_column);
    let rekeyed = format!("old.{key} is distinct from new.{key}");
    let keys = conditions.iter().any(|c| c.update.keys);
    let deletes = conditions.iter().filter_map(|c| c.stops.as_ref());
    let deletes = deletes.map(|stops| stops.delete.clone()).collect();
    let inserts = conditions.iter().filter_map(|c| c.insert.clone()).collect();
    let updates = conditions.iter().map(|c| c.update.when.clone()).collect();
    let kind = kinds(columns);
    let mut updates = when::disjunction(updates, &kind);
    updates.extend(keys.then_some(rekeyed));
    for (name, event, when) in [
        (INSERT_TRIGGER, "insert", when::disjunction(inserts, &kind)),
        (UPDATE_TRIGGER, "update", updates),
        (DELETE_TRIGGER, "delete", when::disjunction(deletes, &kind)),
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
    columns: &[Column],
) -> Result<Vec<Conditions<'a>>, RuleError> {
    let kind = kinds(columns);
    let columns: Vec<String> = columns.iter().map(|one| one.name.clone()).collect();
    let mut names = BTreeSet::new();
    let mut all = Vec::with_capacity(rules.len());
    for stored in rules {
        let rule = &stored.rule;
        let checked = checked(target, rule, &columns).and_then(|expression| {
            match names.insert(rule.name.as_str()) {
                true => Ok(expression),
                false => Err(RuleError::field("name", "is used by two rules; rename one")),
            }
        });
        let expression = checked.map_err(|e| e.of_rule(&rule.name))?;
        all.push(of_rule(target, stored, &expression, &kind));
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
    rule.check(columns)
}

/// What is known of columns by name.
fn kinds(columns: &[Column]) -> impl Fn(&str) -> ColumnKind {
    let kinds: BTreeMap<String, ColumnKind> = columns
        .iter()
        .map(|one| (one.name.clone(), one.kind))
        .collect();
    move |name| kinds.get(name).copied().unwrap_or(ColumnKind::Other)
}

fn of_rule<'a>(
    target: &Target,
    stored: &'a StoredRule,
    expression: &Expression,
    kind: &impl Fn(&str) -> ColumnKind,
) -> Conditions<'a> {
    let rule = &stored.rule;
    let key = quote::ident(&target.key_column);
    let same = format!("old.{key} is not distinct from new.{key}");
    let other = format!("old.{key} is distinct from new.{key}");
    let new = expression.new_sql();
    let matches = format!("(({new}) is true)");
    let node = expression.node();
    let changed = Some(expression.columns().clone())
        .filter(|columns| !columns.is_empty() && is_seen_in_columns(node, kind));
    let needs = Needs::of(node, kind);
    let term = |sql: String, of, changed| Term {
        sql,
        needs: needs.clone(),
        of,
        changed,
    };
    let lasts = term(matches.clone(), Of::New, None);
    let plain = |condition: String| OnUpdate {
        when: lasts.clone(),
        keys: false,
        fires: condition.clone(),
        matches: condition,
        matched: None,
    };
    let mut stops = None;
    let update = match (expression.old_sql(), rule.mode) {
        // A transition rule compares two rows of one key.
        (None, _) => plain(format!("(({new}) is true and {same})")),
        (Some(_), Mode::Level) => plain(matches.clone()),
        (Some(old), Mode::Edge) => {
            let fires = format!("(({new}) is true and (({old}) is not true or {other}))");
            stops = rule.resolve.then(|| Stops {
                update: format!("(({old}) is true and (({new}) is not true or {other}))"),
                delete: term(format!("(({old}) is true)"), Of::Old, None),
            });
            let when = match (rule.cooldown.is_zero(), rule.resolve) {
                (true, false) => {
                    let starts = format!("(({new}) is true and ({old}) is not true)");
                    term(starts, Of::Start, changed)
                }
                (true, true) => {
                    let turns = format!("((({new}) is true) <> (({old}) is true))");
                    term(turns, Of::Turn, changed)
                }
                (false, false) => lasts.clone(),
                (false, true) => {
                    let either = format!("(({new}) is true or ({old}) is true)");
                    term(either, Of::Either, None)
                }
            };
            OnUpdate {
                when,
                keys: rule.cooldown.is_zero(),
                fires,
                matches: matches.clone(),
                matched: Some(format!("(({old}) is true and {same})")),
            }
        }
    };
    Conditions {
        stored,
        insert: (!expression.mentions_old()).then_some(lasts),
        update,
        stops,
    }
}
