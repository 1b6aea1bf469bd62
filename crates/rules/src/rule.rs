//! What a rule is made of, and the limits of each part.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::RuleError;
use crate::expression::{Expression, check};

/// Longest name of a rule or channel, in bytes; a channel must fit PostgreSQL's own names.
const MAX_NAME_BYTES: usize = 63;
/// Longest reason, in bytes.
const MAX_REASON_BYTES: usize = 200;
/// Longest expression, in bytes.
pub(crate) const MAX_EXPRESSION_BYTES: usize = 4000;
/// Longest cool-down: its state is kept as long, for each key.
const MAX_COOLDOWN: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Channels under this prefix carry pgbraid's own wake-ups.
const RESERVED_CHANNEL_PREFIX: &str = "pgbraid_";

/// When a rule fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// On the write with which the row starts to match.
    #[default]
    Edge,
    /// On each write that leaves the row matching.
    Level,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Edge => "edge",
            Mode::Level => "level",
        })
    }
}

impl FromStr for Mode {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "edge" => Ok(Mode::Edge),
            "level" => Ok(Mode::Level),
            other => Err(RuleError::field(
                "mode",
                format!(
                    "is {other:?}; write \"edge\" (fires when the row starts to match) or \
                     \"level\" (fires on each write that matches)"
                ),
            )),
        }
    }
}

/// A rule as its author wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique within the feed: 1 to 63 characters of `A-Za-z0-9_.-`.
    pub name: String,
    /// The feed whose rows it watches.
    pub feed: String,
    /// The SQL condition, 1 to 4000 bytes.
    pub expression: String,
    /// Where its alerts go: 1 to 63 bytes, not starting with `pgbraid_`.
    pub channel: String,
    /// What a reader of the alert is told, at most 200 bytes.
    pub reason: String,
    /// When it fires.
    pub mode: Mode,
    /// Whether it also tells when a row stops to match, by a write or because it is deleted.
    /// Edge rules over one row only: the others have no state that could end.
    pub resolve: bool,
    /// After an alert of a key none is raised for that key so long; zero for no cool-down.
    /// Whole milliseconds, at most 366 days.
    pub cooldown: Duration,
}

impl Rule {
    /// Checks the sizes and alphabets above; the expression's meaning is [`crate::check`]'s.
    ///
    /// # Errors
    /// [`RuleError::Field`] naming the first field that is wrong.
    pub fn validate(&self) -> Result<(), RuleError> {
        length("name", &self.name, 1, MAX_NAME_BYTES)?;
        let odd = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if let Some(c) = self.name.chars().find(odd) {
            let problem = format!("contains {c:?}; use only A-Z a-z 0-9 _ . and -");
            return Err(RuleError::field("name", problem));
        }
        length("channel", &self.channel, 1, MAX_NAME_BYTES)?;
        no_nul("channel", &self.channel)?;
        if self.channel.starts_with(RESERVED_CHANNEL_PREFIX) {
            let problem = format!(
                "starts with {RESERVED_CHANNEL_PREFIX:?}, which is kept for pgbraid's own \
                 notifications; choose another name"
            );
            return Err(RuleError::field("channel", problem));
        }
        length("reason", &self.reason, 0, MAX_REASON_BYTES)?;
        no_nul("reason", &self.reason)?;
        length("expression", &self.expression, 1, MAX_EXPRESSION_BYTES)?;
        no_nul("expression", &self.expression)?;
        if self.resolve && self.mode == Mode::Level {
            let problem = "needs mode \"edge\": a level rule tells of each write that matches, so \
                           nothing is open that could be resolved; change mode or leave it out";
            return Err(RuleError::field("resolve", problem));
        }
        if !self.cooldown.subsec_nanos().is_multiple_of(1_000_000) {
            let problem = format!("is {:?}; give whole milliseconds", self.cooldown);
            return Err(RuleError::field("cooldown", problem));
        }
        if self.cooldown > MAX_COOLDOWN {
            let problem = format!("is {:?}; at most 366 days are allowed", self.cooldown);
            return Err(RuleError::field("cooldown", problem));
        }
        Ok(())
    }

    /// [`Rule::validate`], [`check`] of the expression against the feed's columns, and that the
    /// two fit each other.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(&self, columns: &[String]) -> Result<Expression, RuleError> {
        self.validate()?;
        let expression = check(&self.expression, columns)?;
        if self.resolve && expression.mentions_old() {
            let problem = "cannot be asked of an expression that mentions old.: it is true of a \
                           change, and a change does not end; compare the row alone or leave it out";
            return Err(RuleError::field("resolve", problem));
        }
        Ok(expression)
    }

    /// The cool-down in milliseconds, 0 for none. [`Rule::validate`] bounds it.
    pub fn cooldown_ms(&self) -> i64 {
        i64::try_from(self.cooldown.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A rule as an instance keeps it: with the version that its last edit got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRule {
    /// The rule.
    pub rule: Rule,
    /// Written into each alert, so that a reader knows which text of the rule fired.
    pub version: i64,
}

/// The table that a feed's rules are attached to: the partitioned parent. For the queries of
/// a dry run it may also be one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The feed's name, at most 57 bytes: it becomes part of the trigger function's name.
    pub feed: String,
    /// Schema of the table, as in the catalog.
    pub schema: String,
    /// Name of the table, as in the catalog.
    pub table: String,
    /// The feed's key column, as in the catalog.
    pub key_column: String,
}

fn length(field: &'static str, text: &str, min: usize, max: usize) -> Result<(), RuleError> {
    let bytes = text.len();
    if bytes < min {
        return Err(RuleError::field(field, "is empty; give it a value"));
    }
    if bytes > max {
        let problem = format!("is {bytes} bytes long; at most {max} are allowed");
        return Err(RuleError::field(field, problem));
    }
    Ok(())
}

fn no_nul(field: &'static str, text: &str) -> Result<(), RuleError> {
    match text.contains('\0') {
        true => Err(RuleError::field(
            field,
            "contains a NUL character, which PostgreSQL cannot store; remove it",
        )),
        false => Ok(()),
    }
}
