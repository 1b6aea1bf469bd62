//! A handler for each delivery, several at a time.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::delivery::{Delivery, Message, Outcome};
use super::{GroupConsumer, GroupEvent};
use crate::backoff::Backoff;
use crate::error::ClientError;

/// How [`GroupConsumer::run`] works.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Handlers at the same time, at least 1.
    pub concurrency: usize,
    /// The delay of a nack, by the number of the delivery.
    pub retry: Backoff,
    /// How often to extend what is not handled yet, also while it waits for a handler. Unset: after
    /// a third of the time that it has, at most 10 s. Set it when the clocks of client and instances
    /// differ by more than the visibility timeout.
    pub extend_every: Option<Duration>,
    /// End after this many deliveries; unset: never.
    pub limit: Option<u64>,
    /// How long running handlers have to end when the run is stopped; what they work on then goes
    /// to other members.
    pub drain_timeout: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            concurrency: 16,
            retry: Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(300),
            },
            extend_every: None,
            limit: None,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// What a handler returns when it could not do its work. Made from any error by `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    reason: String,
    delay: Option<Duration>,
    terminate: bool,
}

impl Nack {
    /// Again later, after the delay of [`RunOptions::retry`].
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            delay: None,
            terminate: false,
        }
    }

    /// Again after this delay.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Never again: it becomes a dead letter.
    pub fn terminate(reason: impl Into<String>) -> Self {
        Self {
            terminate: true,
            ..Self::new(reason)
        }
    }
}

// Like that of anyhow: it takes any error, and is none itself.
impl<E: std::error::Error> From<E> for Nack {
    fn from(error: E) -> Self {
        Self::new(crate::error::chain(&error))
    }
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handled {
    /// Acked, confirmed.
    pub acked: u64,
    /// Nacked.
    pub nacked: u64,
    /// Made dead letters.
    pub terminated: u64,
    /// Handled, but too late, or nobody answered: they may be handled again, here or elsewhere.
    pub unconfirmed: u64,
}

impl GroupConsumer {
    /// Runs a handler for each delivery: `Ok` acks, `Err` and a panic nack. What is not handled yet
    /// is extended meanwhile. An alert that is delivered again while its handler still runs here is
    /// not handled a second time.
    ///
    /// # Errors
    /// When the router refuses to go on, after the running handlers have ended.
    pub async fn run<F, W>(self, options: RunOptions, handler: F) -> Result<Handled, ClientError>
    where
        F: Fn(Arc<Message>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Nack>> + Send + 'static,
    {
        let never = std::future::pending();
        self.run_until(options, never, handler).await
    }

    /// As [`Self::run`], until `stop` is done: then it takes nothing new, waits for the running
    /// handlers, and leaves.
    ///
    /// # Errors
    /// As [`Self::run`], or the group could not be left properly.
    pub async fn run_until<F, W>(
        mut self,
        options: RunOptions,
        stop: impl Future<Output = ()>,
        handler: F,
    ) -> Result<Handled, ClientError>
    where
        F: Fn(Arc<Message>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Nack>> + Send + 'static,
    {
        let drain = options.drain_timeout;
        let limit = options.limit.unwrap_or(u64::MAX);
        let mut run = Run {
            places: Arc::new(Semaphore::new(options.concurrency.max(1))),
            options: Arc::new(options),
            handler: Arc::new(handler),
            tasks: JoinSet::new(),
            boxes: HashMap::new(),
            handled: Handled::default(),
            started: 0,
        };
        let mut stop = std::pin::pin!(stop);
        let end = loop {
            if run.started >= limit && run.tasks.is_empty() {
                break None;
            }
            let room = run.tasks.len() < self.max_in_flight && run.started < limit;
            tokio::select! {
                () = &mut stop => break None,
                Some(done) = run.tasks.join_next() => run.ended(done.ok()),
                event = self.next(), if room => match event {
                    Ok(GroupEvent::Delivery(delivery)) => run.start(delivery),
                    Ok(GroupEvent::Disconnected { reason, retry_in }) => {
                        tracing::warn!(?retry_in, "lost the router, joining again: {reason}");
                    }
                    Ok(GroupEvent::InstanceStatus(status)) if !status.readable => {
                        tracing::warn!(instance = status.instance, "no alerts: {}", status.reason);
                    }
                    Ok(GroupEvent::InstanceStatus(_)) => {}
                    Err(error) => break Some(error),
                },
            }
        };
        // Nobody waits for a place any more.
        run.places.close();
        let drained = timeout(drain, async {
            while let Some(done) = run.tasks.join_next().await {
                run.ended(done.ok());
            }
        });
        if drained.await.is_err() {
            run.tasks.abort_all();
        }
        match end {
            Some(error) => Err(error),
            None => self.leave().await.map(|()| run.handled),
        }
    }
}

type AlertId = (String, i64);

struct Run<F> {
    options: Arc<RunOptions>,
    handler: Arc<F>,
    places: Arc<Semaphore>,
    tasks: JoinSet<(AlertId, Option<Done>)>,
    /// Of the alerts that are being handled.
    boxes: HashMap<AlertId, Arc<Mailbox>>,
    handled: Handled,
    started: u64,
}

/// What became of a delivery, and whether that is confirmed.
type Done = (Verdict, bool);

#[derive(Clone)]
enum Verdict {
    Ack,
    Nack(Nack),
}

/// Where a handler that still runs finds its alert delivered again.
#[derive(Default)]
struct Mailbox(Mutex<Mail>);

#[derive(Default)]
struct Mail {
    newer: Option<Delivery>,
    closed: bool,
}

impl Mailbox {
    /// Gives it back when nobody looks any more.
    fn put(&self, delivery: Delivery) -> Result<(), Delivery> {
        let mut mail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if mail.closed {
            return Err(delivery);
        }
        mail.newer = Some(delivery);
        Ok(())
    }

    fn take(&self, last: bool) -> Option<Delivery> {
        let mut mail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = mail.newer.take();
        mail.closed = last && newer.is_none();
        newer
    }
}

impl<F, W> Run<F>
where
    F: Fn(Arc<Message>) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), Nack>> + Send + 'static,
{
    fn start(&mut self, delivery: Delivery) {
        let id = (delivery.alert.instance.clone(), delivery.alert.seq);
        let mut delivery = delivery;
        if let Some(handling) = self.boxes.get(&id) {
            match handling.put(delivery) {
                Ok(()) => return,
                Err(back) => delivery = back,
            }
        }
        let mailbox = Arc::new(Mailbox::default());
        self.started += 1;
        self.boxes.insert(id.clone(), Arc::clone(&mailbox));
        let (handler, places) = (Arc::clone(&self.handler), Arc::clone(&self.places));
        let options = Arc::clone(&self.options);
        self.tasks.spawn(async move {
            let message = delivery.message();
            let work = async move {
                // Closed: the run was stopped, and others shall have it.
                let _place = places.acquire().await.ok()?;
                let work = AssertUnwindSafe(async move { handler(message).await });
                let panicked = |_| Err(Nack::new("the handler panicked"));
                Some(work.catch_unwind().await.unwrap_or_else(panicked))
            };
            let done = one(delivery, work, &mailbox, &options).await;
            (id, done)
        });
    }

    fn ended(&mut self, done: Option<(AlertId, Option<Done>)>) {
        // Handlers that panic are caught; a task that was aborted has no say.
        let Some((id, done)) = done else { return };
        let closed = |mailbox: &Arc<Mailbox>| {
            let mail = mailbox.0.lock().unwrap_or_else(PoisonError::into_inner);
            mail.closed
        };
        // A later task of the same alert has a mailbox of its own.
        if self.boxes.get(&id).is_some_and(closed) {
            self.boxes.remove(&id);
        }
        let handled = &mut self.handled;
        match done {
            None => {}
            Some((_, false)) => handled.unconfirmed += 1,
            Some((Verdict::Ack, true)) => handled.acked += 1,
            Some((Verdict::Nack(nack), true)) if nack.terminate => handled.terminated += 1,
            Some((Verdict::Nack(_), true)) => handled.nacked += 1,
        }
    }
}

/// `None`: nothing was done with it.
async fn one(
    mut delivery: Delivery,
    work: impl Future<Output = Option<Result<(), Nack>>>,
    mailbox: &Mailbox,
    options: &RunOptions,
) -> Option<Done> {
    const OFTEN: Duration = Duration::from_millis(100);
    const RARELY: Duration = Duration::from_secs(10);
    let every = options.extend_every;
    let every = every.unwrap_or_else(|| (delivery.time_left() / 3).min(RARELY));
    let every = every.max(OFTEN);
    let mut work = std::pin::pin!(work);
    let mut extend_at = Instant::now() + every;
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            () = sleep_until(extend_at) => {
                delivery = mailbox.take(false).unwrap_or(delivery);
                drop(delivery.extend(None));
                extend_at = Instant::now() + every;
            }
        }
    };
    let verdict = match done {
        None => {
            // Not looked at.
            mailbox.take(true);
            return None;
        }
        Some(Ok(())) => Verdict::Ack,
        Some(Err(nack)) => Verdict::Nack(nack),
    };
    delivery = mailbox.take(false).unwrap_or(delivery);
    loop {
        let settled = settle(delivery, verdict.clone(), options).await;
        // What was delivered again meanwhile is as done as this one.
        match mailbox.take(true) {
            Some(newer) => delivery = newer,
            None => return Some((verdict, matches!(settled, Ok(Outcome::Settled)))),
        }
    }
}

async fn settle(
    delivery: Delivery,
    verdict: Verdict,
    options: &RunOptions,
) -> Result<Outcome, ClientError> {
    let (instance, seq) = (delivery.alert.instance.clone(), delivery.alert.seq);
    let settling = match verdict {
        Verdict::Ack => delivery.ack(),
        Verdict::Nack(nack) if nack.terminate => delivery.terminate(nack.reason),
        Verdict::Nack(nack) => {
            let delay = nack.delay;
            let delay = delay.unwrap_or_else(|| options.retry.wait(delivery.delivery));
            delivery.nack(delay, nack.reason)
        }
    };
    let outcome = settling.await;
    if !matches!(outcome, Ok(Outcome::Settled)) {
        tracing::debug!(instance, seq, "handled, but may come again: {outcome:?}");
    }
    outcome
}
