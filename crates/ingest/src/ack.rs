//! The answers to a request on its way.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{Ingest, Outcome, RowRefusal, ticket::Ticket};

/// A request on its way.
pub struct Ack {
    ticket: Arc<Ticket>,
    ingest: Arc<Ingest>,
    started: Instant,
    /// Rows that [`Self::news`] has told of.
    told: Vec<u64>,
    /// Rows that had no answer when it was last asked.
    left: Option<u32>,
}

impl Ack {
    pub(crate) fn new(ticket: Arc<Ticket>, ingest: Arc<Ingest>, started: Instant) -> Self {
        Self {
            ticket,
            ingest,
            started,
            told: Vec::new(),
            left: None,
        }
    }

    /// When the request's time is over.
    pub fn deadline(&self) -> Instant {
        self.ticket.deadline
    }

    /// Whether every row is committed or refused.
    pub fn is_done(&self) -> bool {
        self.ticket.is_done()
    }

    /// Waits until every row is committed or refused. Past the request's deadline the rows without
    /// an answer are refused as UNAVAILABLE; one that was just being written may still be committed.
    pub async fn wait(self) -> Outcome {
        let waited = tokio::time::timeout_at(self.ticket.deadline, self.ticket.wait()).await;
        if waited.is_err() {
            self.expire();
        }
        self.outcome()
    }

    /// Refuses what has no answer: the request's time is over.
    pub fn expire(&self) {
        if self.is_done() {
            return;
        }
        let message = format!(
            "not known to be committed within the request's time{}",
            self.ingest.reasons()
        );
        let after = self.ingest.config.retry_max;
        let expired = self.ticket.expire("DEADLINE", &message, after);
        self.ingest.expired.increment(expired);
    }

    /// What became of the rows, once [`Self::is_done`].
    pub fn outcome(self) -> Outcome {
        let took = self.started.elapsed().as_secs_f64();
        self.ingest.ack_seconds.record(took);
        self.ticket.outcome()
    }

    /// Calls `answer` for each row that has had its answer since the last call, by its number in
    /// the request, with the refusal if it is one. For requests whose rows are answered one by one.
    pub fn news(&mut self, mut answer: impl FnMut(u32, Option<&RowRefusal>)) {
        // Whoever gives answers counts them afterwards, and says so after that.
        let left = Some(self.ticket.left());
        if std::mem::replace(&mut self.left, left) == left {
            return;
        }
        let mut any = false;
        self.ticket.news(&mut self.told, |row, refusal| {
            any = true;
            answer(row, refusal);
        });
        if any {
            // Requests that arrived together and are answered together count once: to count each
            // would cost as much as to merge and sort its row.
            let took = self.started.elapsed().as_secs_f64();
            self.ingest.ack_seconds.record(took);
        }
    }
}
