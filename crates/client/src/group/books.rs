//! Settlements that are not confirmed yet.
//!
//! One settlement of a delivery is under way at a time, because answers name only the delivery: an
//! ack that comes while an extension is under way waits for its answer, one that comes before it was
//! sent takes its place.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pgbraid_proto::v1::{self, settle_result::Outcome as Wire, settlement::How as WireHow};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::delivery::Outcome;
use crate::backoff::Backoff;
use crate::error::ClientError;

/// Ids of one message, at most.
pub(super) const BATCH: usize = 1000;
/// While others are under way, a settlement waits this long for company.
const LINGER: Duration = Duration::from_millis(5);

/// What is said of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    Ack,
    Nack { delay: Duration, reason: String },
    Extend { by: Option<Duration> },
    Terminate { reason: String },
}

type Answer = Result<Outcome, ClientError>;
type Waiters = Vec<oneshot::Sender<Answer>>;

enum State {
    Queued,
    Sent,
    /// The instance did not answer: again from then on.
    Resting(Instant),
}

struct Entry {
    how: How,
    waiters: Waiters,
    /// What was said of it meanwhile.
    then: Option<(How, Waiters)>,
    state: State,
    give_up_at: Instant,
    failures: u32,
}

/// See the module.
#[derive(Default)]
pub(super) struct Books {
    entries: HashMap<String, Entry>,
    /// Ids in the state Queued, and some that have left it.
    queue: VecDeque<String>,
    queued_at: Option<Instant>,
    sent: usize,
}

impl Books {
    /// Deliveries with a settlement that is not confirmed.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a settlement; what becomes of it comes from the receiver.
    pub(super) fn add(
        &mut self,
        id: &str,
        how: How,
        give_up_at: Instant,
        now: Instant,
    ) -> oneshot::Receiver<Answer> {
        let (waiter, answer) = oneshot::channel();
        match self.entries.get_mut(id) {
            None => {
                let entry = Entry {
                    how,
                    waiters: vec![waiter],
                    then: None,
                    state: State::Queued,
                    give_up_at,
                    failures: 0,
                };
                self.entries.insert(id.to_owned(), entry);
                self.queue(id.to_owned(), now);
            }
            Some(entry) => {
                entry.give_up_at = entry.give_up_at.max(give_up_at);
                if matches!(entry.state, State::Sent) {
                    let (next, waiters) = entry.then.get_or_insert((how.clone(), Vec::new()));
                    *next = how;
                    waiters.push(waiter);
                } else {
                    entry.how = how;
                    entry.waiters.push(waiter);
                }
            }
        }
        answer
    }

    fn queue(&mut self, id: String, now: Instant) {
        self.queued_at.get_or_insert(now);
        self.queue.push_back(id);
    }

    /// When the next message is due; `None` when there is nothing to send.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.queued_at?;
        let at_once = self.sent == 0 || self.queue.len() >= BATCH;
        Some(if at_once { since } else { since + LINGER })
    }

    /// What is to be sent now, at most [`BATCH`] ids of one kind.
    pub(super) fn take(&mut self, now: Instant) -> Option<v1::Settlement> {
        let (mut how, mut ids) = (None, Vec::new());
        while let Some(id) = self.queue.pop_front() {
            let queued = |entry: &&mut Entry| matches!(entry.state, State::Queued);
            let Some(entry) = self.entries.get_mut(&id).filter(queued) else {
                continue;
            };
            if *how.get_or_insert_with(|| entry.how.clone()) != entry.how || ids.len() == BATCH {
                self.queue.push_front(id);
                break;
            }
            entry.state = State::Sent;
            self.sent += 1;
            ids.push(id);
        }
        self.queued_at = (!self.queue.is_empty()).then(|| self.queued_at.unwrap_or(now));
        let how = Some(wire(how?));
        Some(v1::Settlement { ids, how })
    }

    /// Takes what the router says.
    pub(super) fn answered(
        &mut self,
        results: Vec<v1::SettleResult>,
        backoff: &Backoff,
        now: Instant,
    ) {
        for result in results {
            let outcome = result.outcome();
            let Some(entry) = self.entries.get_mut(&result.id) else {
                continue; // given up meanwhile
            };
            if matches!(entry.state, State::Sent) {
                self.sent -= 1;
            }
            if outcome == Wire::Unavailable && now < entry.give_up_at {
                entry.failures += 1;
                entry.state = State::Resting(now + backoff.wait(entry.failures));
                // Nothing is under way: the last word holds.
                if let Some((how, waiters)) = entry.then.take() {
                    entry.how = how;
                    entry.waiters.extend(waiters);
                }
                continue;
            }
            let outcome = match outcome {
                Wire::Settled => Outcome::Settled,
                Wire::Stale => Outcome::Stale,
                Wire::Unavailable => Outcome::Unavailable(result.reason),
                Wire::Invalid => Outcome::Invalid(result.reason),
            };
            tell(std::mem::take(&mut entry.waiters), &Ok(outcome));
            match entry.then.take() {
                None => drop(self.entries.remove(&result.id)),
                Some((how, waiters)) => {
                    (entry.how, entry.waiters) = (how, waiters);
                    entry.state = State::Queued;
                    self.queue(result.id, now);
                }
            }
        }
    }

    /// The connection is lost: what was sent on it is sent again on the next.
    pub(super) fn lost(&mut self, now: Instant) {
        self.sent = 0;
        let mut again = Vec::new();
        for (id, entry) in &mut self.entries {
            if matches!(entry.state, State::Sent) {
                entry.state = State::Queued;
                again.push(id.clone());
            }
        }
        for id in again {
            self.queue(id, now);
        }
    }

    /// Queues what has rested, and gives up what has taken too long.
    pub(super) fn tick(&mut self, now: Instant) {
        let (mut rested, mut over) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.entries {
            if entry.give_up_at <= now {
                over.push(id.clone());
            } else if matches!(entry.state, State::Resting(until) if until <= now) {
                entry.state = State::Queued;
                rested.push(id.clone());
            }
        }
        for id in rested {
            self.queue(id, now);
        }
        for id in over {
            let Some(entry) = self.entries.remove(&id) else {
                continue;
            };
            if matches!(entry.state, State::Sent) {
                self.sent -= 1;
            }
            let why = "no answer until its deadline was over: it may hold, or go to another member";
            let answer = Ok(Outcome::Unavailable(why.into()));
            tell(entry.waiters, &answer);
            tell(
                entry.then.map(|(_, waiters)| waiters).unwrap_or_default(),
                &answer,
            );
        }
    }

    /// Nothing more can be settled.
    pub(super) fn fail(&mut self, error: &ClientError) {
        for (_, entry) in self.entries.drain() {
            let answer = Err(error.clone());
            tell(entry.waiters, &answer);
            tell(
                entry.then.map(|(_, waiters)| waiters).unwrap_or_default(),
                &answer,
            );
        }
        *self = Self::default();
    }
}

fn tell(waiters: Waiters, answer: &Answer) {
    for waiter in waiters {
        // Whoever does not wait does not need to know.
        let _ = waiter.send(answer.clone());
    }
}

fn wire(how: How) -> WireHow {
    let duration = |duration: Duration| duration.try_into().ok();
    match how {
        How::Ack => WireHow::Ack(v1::Ack {}),
        How::Nack { delay, reason } => WireHow::Nack(v1::Nack {
            delay: duration(delay),
            reason,
        }),
        How::Extend { by } => WireHow::Extend(v1::Extend {
            by: by.and_then(duration),
        }),
        How::Terminate { reason } => WireHow::Terminate(v1::Terminate { reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(id: &str, outcome: Wire) -> v1::SettleResult {
        v1::SettleResult {
            id: id.into(),
            outcome: outcome.into(),
            reason: String::new(),
        }
    }

    fn ids(settlement: Option<v1::Settlement>) -> Vec<String> {
        settlement.map(|some| some.ids).unwrap_or_default()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn acks_go_together_and_each_is_answered() {
        let (mut books, now) = (Books::default(), Instant::now());
        assert_eq!(books.due(), None);
        let mut first = books.add("a", How::Ack, now + LONG, now);
        assert_eq!(books.due(), Some(now), "nothing is under way: at once");
        assert_eq!(ids(books.take(now)), ["a"]);
        let mut second = books.add("b", How::Ack, now + LONG, now);
        let mut third = books.add("c", How::Ack, now + LONG, now);
        let reason = String::from("no");
        let delay = LONG;
        books.add("d", How::Nack { delay, reason }, now + LONG, now);
        assert_eq!(books.due(), Some(now + LINGER), "they wait for company");
        assert_eq!(ids(books.take(now)), ["b", "c"]);
        assert_eq!(ids(books.take(now)), ["d"]);
        assert_eq!((books.due(), books.len()), (None, 4));
        let results = vec![result("c", Wire::Stale), result("a", Wire::Settled)];
        books.answered(results, &Backoff::default(), now);
        assert!(matches!(first.try_recv(), Ok(Ok(Outcome::Settled))));
        assert!(matches!(third.try_recv(), Ok(Ok(Outcome::Stale))));
        assert!(second.try_recv().is_err());
        // Once more over the next connection, and only what was not answered.
        books.lost(now);
        let mut again = ids(books.take(now));
        again.extend(ids(books.take(now)));
        again.sort();
        assert_eq!(again, ["b", "d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ack_waits_for_the_extension_that_is_under_way() {
        let (mut books, now) = (Books::default(), Instant::now());
        let extend = How::Extend { by: None };
        let mut extended = books.add("a", extend.clone(), now + LONG, now);
        books.take(now);
        let mut acked = books.add("a", How::Ack, now + LONG, now);
        assert!(books.take(now).is_none());
        let results = vec![result("a", Wire::Settled)];
        books.answered(results.clone(), &Backoff::default(), now);
        assert!(matches!(extended.try_recv(), Ok(Ok(Outcome::Settled))));
        assert!(acked.try_recv().is_err(), "that was the extension's answer");
        let sent = books.take(now).expect("the ack");
        assert!(matches!(sent.how, Some(WireHow::Ack(_))));
        books.answered(results, &Backoff::default(), now);
        assert!(matches!(acked.try_recv(), Ok(Ok(Outcome::Settled))));
        assert_eq!(books.len(), 0);
        // Not under way yet: the ack says it all.
        books.add("b", extend, now + LONG, now);
        books.add("b", How::Ack, now + LONG, now);
        let sent = books.take(now).expect("the ack");
        assert!(matches!(sent.how, Some(WireHow::Ack(_))));
        assert!(books.take(now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_unavailable_is_said_again_until_its_deadline() {
        let (mut books, now) = (Books::default(), Instant::now());
        let backoff = Backoff::default();
        let mut acked = books.add("a", How::Ack, now + LONG, now);
        books.take(now);
        books.answered(vec![result("a", Wire::Unavailable)], &backoff, now);
        books.tick(now);
        assert!(books.take(now).is_none(), "it rests first");
        books.tick(now + backoff.min);
        assert_eq!(ids(books.take(now)), ["a"]);
        books.answered(vec![result("a", Wire::Unavailable)], &backoff, now);
        assert!(acked.try_recv().is_err());
        books.tick(now + LONG);
        assert!(matches!(acked.try_recv(), Ok(Ok(Outcome::Unavailable(_)))));
        assert_eq!(books.len(), 0);
    }
}
