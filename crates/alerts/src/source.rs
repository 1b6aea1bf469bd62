//! What this crate asks of an instance. Implemented over PostgreSQL elsewhere, and in memory by the
//! tests.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pgbraid_shardmap::InstanceName;

use crate::{Change, Cursor, GroupStore, Identity, TimelineStart};

/// A row that matched a rule, as kept in the instance's outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The instance that raised it.
    pub instance: InstanceName,
    /// Its number in the instance's outbox: with the instance, its id. Given before commit.
    pub seq: i64,
    /// The transaction that raised it.
    pub xid: u64,
    /// The feed whose row matched.
    pub feed: Arc<str>,
    /// The rule that matched.
    pub rule: Arc<str>,
    /// The rule's version at that time.
    pub rule_version: i64,
    /// The rule's channel.
    pub channel: Arc<str>,
    /// The rule's reason, for people.
    pub reason: Arc<str>,
    /// The row's key as text.
    pub key: String,
    /// The merged row, as a JSON object.
    pub row: String,
    /// When it was raised: µs since the Unix epoch, by the instance's clock.
    pub raised_at_us: i64,
    /// Whether it says that the row has stopped to match.
    pub resolved: bool,
}

/// What one read returned.
#[derive(Debug, Clone)]
pub struct Page {
    /// What is new since the cursor, ascending by seq.
    pub alerts: Vec<Arc<Alert>>,
    /// The cursor after these alerts.
    pub next: Cursor,
    /// Whether a further read would return more at once.
    pub more: bool,
    /// What was new since the cursor and is not kept any more.
    pub dropped: Option<Dropped>,
}

/// Alerts that were dropped from the outbox before a cursor had reached them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The last part of the outbox that was dropped; they are numbered upwards.
    pub through_part: i32,
    /// How many alerts were in the parts that were dropped; the cursor may have had some of them.
    pub alerts: u64,
    /// All were raised before: µs since the Unix epoch, by the instance's clock.
    pub raised_until_us: i64,
    /// Why they were dropped.
    pub reason: Arc<str>,
}

/// Why an instance did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What went wrong, where.
    pub message: String,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl SourceError {
    /// An error without a cause.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// An error with its cause.
    pub fn caused(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// The message and all its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let part = error.to_string();
            // Some libraries repeat the cause in their own message.
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        text
    }
}

/// One instance's outbox and notifications.
///
/// Calls may come at the same time. Any of them may be dropped before it has answered.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The instance.
    fn instance(&self) -> InstanceName;

    /// Its part of the consumer groups, if it keeps any.
    fn groups(&self) -> Option<&dyn GroupStore> {
        None
    }

    /// Which PostgreSQL answers now.
    ///
    /// From then on, [`Source::now`] and [`Source::read`] must fail if another one would answer (a
    /// standby was promoted, say), until this has been asked again: a cursor of one history is not
    /// to be used on another.
    async fn identity(&self) -> Result<Identity, SourceError>;

    /// Where timelines of this instance began, the current one's among them if anybody knows.
    async fn timelines(&self) -> Result<Vec<TimelineStart>, SourceError> {
        Ok(Vec::new())
    }

    /// The position after everything committed so far (`pg_current_snapshot()`), as far as a crash
    /// can't take it back: see [`Snapshot::capped`](crate::Snapshot::capped).
    async fn now(&self) -> Result<Cursor, SourceError>;

    /// The position before the first alert, of those that are kept, raised at or after this time (µs
    /// since the Unix epoch, by the instance's clock); after everything, if there is none. Alerts
    /// raised shortly before may follow it too.
    async fn cursor_at_time(&self, raised_at_us: i64) -> Result<Cursor, SourceError>;

    /// Reads at most `limit` alerts that are new since `cursor`, in one statement.
    ///
    /// - No page in `cursor`: the window is from `cursor.base` to the statement's own snapshot,
    ///   capped likewise, but not below `cursor.base`.
    ///   With a page: from `cursor.base` to the page's `upper`, seq above its `after_seq`.
    /// - If the window has more than `limit`: `next` keeps the base, and has a page with the
    ///   window's upper end and the last seq returned; `more` is true.
    /// - Otherwise `next` is the window's upper end without a page; `more` may be either.
    async fn read(&self, cursor: &Cursor, limit: u32) -> Result<Page, SourceError>;

    /// The feeds of which every change from now on is notified.
    async fn tracked_feeds(&self) -> Result<Vec<Arc<str>>, SourceError> {
        Ok(Vec::new())
    }

    /// Opens a connection of its own, and listens on it for wake-ups and on these plain channels.
    /// Everything committed after this returns is notified.
    async fn listen(&self, channels: &[String]) -> Result<Box<dyn Listener>, SourceError>;
}

/// A connection that listens.
#[async_trait]
pub trait Listener: Send {
    /// The next notification, or [`Wake::Idle`] after `idle` without one. After an error the
    /// connection is given up.
    async fn next(&mut self, idle: Duration) -> Result<Wake, SourceError>;
}

/// What a listener heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// There may be new alerts.
    Alerts,
    /// Ownership of tables may have changed.
    Ownership,
    /// The settings of consumer groups have changed.
    Groups,
    /// A message on a plain channel.
    Notification {
        /// The channel.
        channel: String,
        /// The message.
        payload: String,
        /// The process id of the sending backend.
        pid: i32,
    },
    /// Rows changed.
    Changed(Vec<Change>),
    /// More rows of a feed changed than is told.
    ChangesLost {
        /// The feed; none means any.
        feed: Option<Arc<str>>,
        /// Why.
        reason: Arc<str>,
    },
    /// The connection was checked and still listens: all that was committed before this moment was
    /// heard.
    Checked(Instant),
    /// Nothing came; the connection was checked and still listens.
    Idle,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once() {
        let io = std::io::Error::other("connection refused");
        let inner = SourceError::caused("connecting to 10.0.0.1:5432", io);
        let outer = SourceError::caused("db3 cannot be read", inner);
        assert_eq!(
            outer.chain(),
            "db3 cannot be read: connecting to 10.0.0.1:5432: connection refused"
        );
        assert_eq!(SourceError::new("gone").chain(), "gone");
    }
}
