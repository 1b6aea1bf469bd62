//! Waiting until a request is due.
//!
//! Timers of the runtime come up to two milliseconds late, which at a low rate is more than a router
//! takes. There, a thread keeps the time. At a high rate it would wake the processors for every
//! request; the runtime's timers then send what has become due meanwhile in one go.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// The most requests a second, of all producers, whose time a thread keeps.
const PRECISE: f64 = 10_000.0;

/// Wakes at exact times. Its thread ends with its last clone.
#[derive(Clone)]
pub struct Clock(Arc<Owner>);

struct Owner(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By time, and a number for those of the same time.
    waiting: BTreeMap<(Instant, u64), Waker>,
    number: u64,
    over: bool,
}

impl Clock {
    /// For so many requests a second; `None` where the runtime's timers do.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(rate: f64) -> std::io::Result<Option<Self>> {
        if rate > PRECISE {
            return Ok(None);
        }
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        thread::Builder::new()
            .name("clock".into())
            .spawn(move || keep_time(&kept))?;
        Ok(Some(Self(Arc::new(Owner(shared)))))
    }

    fn wake_at(&self, time: Instant, waker: Waker) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        let first = state.waiting.first_key_value().map(|(key, _)| key.0);
        state.number += 1;
        let key = (time, state.number);
        state.waiting.insert(key, waker);
        drop(state);
        if first.is_none_or(|first| time < first) {
            shared.changed.notify_one();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep_time(shared: &Shared) {
    let mut state = shared.lock();
    while !state.over {
        let now = Instant::now();
        let Some(first) = state.waiting.first_entry() else {
            let waited = shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let time = first.key().0;
        if time <= now {
            let waker = first.remove();
            drop(state);
            waker.wake();
            state = shared.lock();
            continue;
        }
        let waited = shared.changed.wait_timeout(state, time - now);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// One waiter's timer.
pub enum Timer {
    Precise {
        clock: Clock,
        asked: Option<(Instant, Waker)>,
    },
    Coarse(Pin<Box<Sleep>>),
}

impl Timer {
    /// Must be called in the runtime.
    pub fn new(clock: Option<Clock>) -> Self {
        match clock {
            Some(clock) => Self::Precise { clock, asked: None },
            None => Self::Coarse(Box::pin(tokio::time::sleep(Duration::ZERO))),
        }
    }

    /// Ready from this time on.
    pub fn poll_until(&mut self, time: Instant, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Precise { clock, asked } => {
                if Instant::now() >= time {
                    return Poll::Ready(());
                }
                let waker = context.waker();
                let same = |(at, who): &(Instant, Waker)| *at == time && who.will_wake(waker);
                if !asked.as_ref().is_some_and(same) {
                    *asked = Some((time, waker.clone()));
                    clock.wake_at(time, waker.clone());
                }
                Poll::Pending
            }
            Self::Coarse(sleep) => {
                if sleep.deadline().into_std() != time {
                    sleep.as_mut().reset(time.into());
                }
                sleep.as_mut().poll(context)
            }
        }
    }

    /// Waits until then.
    pub async fn until(&mut self, time: Instant) {
        poll_fn(|context| self.poll_until(time, context)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_is_woken_at_their_time_and_not_before() {
        let start = Instant::now();
        for clock in [Clock::start(100.0).unwrap(), Clock::start(1e9).unwrap()] {
            // Not in the order of their times, and two at the same.
            let waits = [30u64, 10, 20, 10, 0].map(|ms| {
                let mut timer = Timer::new(clock.clone());
                tokio::spawn(async move {
                    let time = start + Duration::from_millis(ms);
                    timer.until(time).await;
                    assert!(Instant::now() >= time);
                    timer.until(time + Duration::from_millis(5)).await;
                    assert!(Instant::now() >= time + Duration::from_millis(5));
                })
            });
            for wait in waits {
                wait.await.unwrap();
            }
        }
    }

    #[test]
    fn high_rates_are_left_to_the_runtime() {
        assert!(Clock::start(PRECISE).unwrap().is_some());
        assert!(Clock::start(PRECISE * 2.0).unwrap().is_none());
    }
}
