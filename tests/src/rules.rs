//! Rules with all their fields, and what they told.

use std::time::Duration;

use pgbraid_proto::v1;
use tokio_postgres::Client;
use tonic::Status;

use crate::{Router, rows};

/// An edge rule of the feed `feed`, on channel `a`.
pub fn edge(name: &str, expression: &str) -> v1::Rule {
    v1::Rule {
        name: name.into(),
        feed: "feed".into(),
        expression: expression.into(),
        channel: "a".into(),
        reason: format!("because of {name}"),
        ..Default::default()
    }
}

/// The same, telling when a row stops to match.
pub fn resolving(name: &str, expression: &str) -> v1::Rule {
    v1::Rule {
        resolve: true,
        ..edge(name, expression)
    }
}

/// The rule with a cool-down of an hour: tests do not wait for it, they let it pass ([`hour`]).
///
/// # Panics
/// Never.
pub fn cooling(rule: v1::Rule) -> v1::Rule {
    let hour = Duration::from_secs(3600).try_into().expect("an hour");
    v1::Rule {
        cooldown: Some(hour),
        ..rule
    }
}

/// Puts rules, whatever is stored.
///
/// # Errors
/// If they are refused.
pub async fn put(
    router: &Router,
    rules: impl IntoIterator<Item = v1::Rule>,
) -> Result<v1::PutRulesResponse, Status> {
    let put = |rule| v1::RulePut {
        rule: Some(rule),
        expected_version: None,
    };
    let request = v1::PutRulesRequest {
        rules: rules.into_iter().map(put).collect(),
        ..Default::default()
    };
    let answer = rows::admin(router).await.put_rules(request).await;
    answer.map(tonic::Response::into_inner)
}

/// An alert of one instance's outbox: what a test of rules looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// The rule.
    pub rule: String,
    /// The key.
    pub key: String,
    /// Whether the row has stopped to match.
    pub resolved: bool,
    /// Column c1 of the row that was told.
    pub c1: Option<i32>,
    /// The rule's version.
    pub version: i64,
}

/// Reads an outbox on and on.
pub struct Outbox {
    seq: i64,
}

impl Outbox {
    /// From the start.
    #[expect(clippy::new_without_default, reason = "there is nothing default in it")]
    pub fn new() -> Self {
        Self { seq: 0 }
    }

    /// What was told since the last look, in order. Nobody else must be writing.
    ///
    /// # Panics
    /// If the instance can't be asked.
    pub async fn next(&mut self, sql: &Client) -> Vec<Told> {
        let rows = sql
            .query(
                "select seq, rule, key, resolved, (\"row\"->>'c1')::int4, rule_version \
                 from pgbraid.alert where seq > $1 order by seq",
                &[&self.seq],
            )
            .await
            .expect("the outbox can be read");
        if let Some(last) = rows.last() {
            self.seq = last.get(0);
        }
        let told = |row: &tokio_postgres::Row| Told {
            rule: row.get(1),
            key: row.get(2),
            resolved: row.get(3),
            c1: row.get(4),
            version: row.get(5),
        };
        rows.iter().map(told).collect()
    }

    /// The same, as `rule key value` with `-` in front of what is resolved.
    ///
    /// # Panics
    /// If the instance can't be asked.
    pub async fn lines(&mut self, sql: &Client) -> Vec<String> {
        let line = |one: Told| {
            let sign = if one.resolved { "-" } else { "" };
            let value = one.c1.map_or("null".to_owned(), |c1| c1.to_string());
            format!("{sign}{} {} {value}", one.rule, one.key)
        };
        self.next(sql).await.into_iter().map(line).collect()
    }
}

/// Lets an hour pass for all cool-downs of an instance.
///
/// # Panics
/// If the instance can't be asked.
pub async fn hour(sql: &Client) {
    let age = "update pgbraid.cooldown set told_at = told_at - interval '1 hour'";
    sql.batch_execute(age).await.expect("time passes");
}
