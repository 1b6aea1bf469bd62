//! One alert for this member, and what it says of it.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use pgbraid_proto::v1;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::books::How;
use super::shared::Shared;
use crate::error::ClientError;

/// What routers take, at most.
const MAX_REASON: usize = 1000;
const MAX_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);
const MAX_EXTENSION: Duration = Duration::from_secs(24 * 3600);
/// A settlement is tried at least this long, whatever the clocks say of its deadline.
const AT_LEAST: Duration = Duration::from_secs(5);

/// An alert, and which delivery of it this is.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The alert; (instance, seq) names it.
    pub alert: v1::Alert,
    /// Names this delivery of it.
    pub id: String,
    /// How many times it has been delivered, with this one.
    pub delivery: u32,
    /// Settle or extend it before, by the instance's clock.
    pub deadline: Option<SystemTime>,
}

/// A [`Message`] to settle: call one of [`ack`](Self::ack), [`nack`](Self::nack) and
/// [`terminate`](Self::terminate). One that is dropped comes again when its deadline is over.
#[derive(Debug)]
pub struct Delivery {
    message: Arc<Message>,
    /// The deadline, as far as the clocks here and there agree.
    until: Instant,
    shared: Arc<Shared>,
}

/// What became of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It holds.
    Settled,
    /// Too late: its deadline was over, it was settled before, or the group was replayed. It may
    /// have gone to another member.
    Stale,
    /// There was no answer until its deadline was over: it may hold, or not.
    Unavailable(String),
    /// The router does not know such a delivery.
    Invalid(String),
}

/// A settlement on its way. It goes out whether or not this is awaited; it resolves when the
/// instance has answered.
#[derive(Debug)]
#[must_use = "it says whether the settlement holds; drop it if you need not know"]
pub struct Settling(oneshot::Receiver<Result<Outcome, ClientError>>);

impl Future for Settling {
    /// Err: the consumer has ended and the settlement was not sent, or nobody knows.
    type Output = Result<Outcome, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(answer.unwrap_or(Err(ClientError::Closed)))
    }
}

/// A delivery that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Arrived {
    message: Arc<Message>,
    until: Instant,
}

impl Arrived {
    /// `None`: there is no alert in it, which no router does.
    pub(super) fn new(delivery: v1::Delivery) -> Option<Self> {
        let deadline = delivery
            .deadline
            .and_then(|at| SystemTime::try_from(at).ok());
        let left = deadline.and_then(|at| at.duration_since(SystemTime::now()).ok());
        let message = Message {
            alert: delivery.alert?,
            id: delivery.id,
            delivery: delivery.delivery,
            deadline,
        };
        Some(Self {
            message: Arc::new(message),
            until: Instant::now() + left.unwrap_or_default(),
        })
    }

    pub(super) fn taken(self, shared: &Arc<Shared>) -> Delivery {
        Delivery {
            message: self.message,
            until: self.until,
            shared: Arc::clone(shared),
        }
    }

    /// Who settles it, and until when.
    pub(super) fn given_back(self) -> (Arc<Message>, Instant) {
        (self.message, self.until)
    }
}

impl Delivery {
    /// The message, to be kept beyond the settlement.
    pub fn message(&self) -> Arc<Message> {
        Arc::clone(&self.message)
    }

    /// Time left until the deadline, as far as the clocks here and there agree.
    pub fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// It is done.
    pub fn ack(self) -> Settling {
        self.settle(How::Ack)
    }

    /// Deliver it again, after the delay (at most 7 days). The reason is kept in its history.
    pub fn nack(self, delay: Duration, reason: impl Into<String>) -> Settling {
        let (delay, reason) = (delay.min(MAX_DELAY), fit(reason.into()));
        self.settle(How::Nack { delay, reason })
    }

    /// Make it a dead letter now.
    pub fn terminate(self, reason: impl Into<String>) -> Settling {
        let reason = fit(reason.into());
        self.settle(How::Terminate { reason })
    }

    /// Move its deadline to this far from now, at most a day; `None`: the group's visibility
    /// timeout.
    pub fn extend(&mut self, by: Option<Duration>) -> Settling {
        let by = by.map(|by| by.clamp(Duration::from_millis(1), MAX_EXTENSION));
        if let Some(by) = by {
            self.until = Instant::now() + by;
        }
        self.settle(How::Extend { by })
    }

    fn settle(&self, how: How) -> Settling {
        let give_up_at = self.until.max(Instant::now() + AT_LEAST);
        Settling(self.shared.settle(&self.message.id, how, give_up_at))
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// A longer one would be refused, and the stream with it.
fn fit(reason: String) -> String {
    let mut reason = reason.replace('\0', " ");
    if reason.len() > MAX_REASON {
        let end = (0..=MAX_REASON)
            .rev()
            .find(|&at| reason.is_char_boundary(at));
        reason.truncate(end.unwrap_or(0));
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_to_what_routers_take() {
        assert_eq!(fit("a\0b".into()), "a b");
        let long = fit("ü".repeat(600));
        assert_eq!(long, "ü".repeat(500));
        assert_eq!(fit(format!("a{}", "ü".repeat(600))).len(), 999);
    }
}
