//! Whether an instance takes rows: the circuit breaker and the bound in bytes.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// What to do with a row for an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HealthState {
    /// Queue it.
    Open,
    /// Its queue is full: wait, or refuse with RESOURCE_EXHAUSTED.
    Full,
    /// It has made no progress for too long: refuse with UNAVAILABLE, so that a request's other
    /// rows are not held up.
    Down(String),
}

/// How an instance has been doing.
#[derive(Debug)]
pub(crate) struct Health {
    /// Since when it has failed, and why.
    down: Option<(Instant, String)>,
    failures: u32,
    not_before: Option<Instant>,
    /// When the oldest unanswered write was started.
    waiting_since: Option<Instant>,
}

impl Health {
    pub fn new() -> Self {
        Self {
            down: None,
            failures: 0,
            not_before: None,
            waiting_since: None,
        }
    }

    pub fn state(
        &self,
        now: Instant,
        stall_after: Duration,
        queued: u64,
        limit: u64,
    ) -> HealthState {
        let stalled = |since: &Instant| now.saturating_duration_since(*since) >= stall_after;
        // An empty queue takes rows whatever the state: they are what finds out that it is back.
        if queued > 0 {
            if let Some((since, reason)) = &self.down
                && stalled(since)
            {
                return HealthState::Down(reason.clone());
            }
            if self.waiting_since.as_ref().is_some_and(stalled) {
                return HealthState::Down(format!("it has not answered for {stall_after:?}"));
            }
        }
        if queued >= limit {
            return HealthState::Full;
        }
        HealthState::Open
    }

    /// When writers may try again.
    pub fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|until| *until > now)
    }

    pub fn started(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Any answer shows that it is not stalled.
    pub fn answered(&mut self) {
        self.waiting_since = None;
    }

    /// True if it was down.
    pub fn succeeded(&mut self) -> bool {
        self.waiting_since = None;
        self.failures = 0;
        self.not_before = None;
        self.down.take().is_some()
    }

    /// Exponential backoff with full jitter. True if it was up.
    pub fn failed(&mut self, reason: &str, now: Instant, min: Duration, max: Duration) -> bool {
        self.waiting_since = None;
        let ceiling = min.saturating_mul(1 << self.failures.min(16)).min(max);
        self.failures += 1;
        let wait = ceiling.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.not_before = Some(now + wait);
        match &mut self.down {
            Some((_, known)) => {
                reason.clone_into(known);
                false
            }
            None => {
                self.down = Some((now, reason.to_owned()));
                true
            }
        }
    }

    pub fn reason(&self) -> Option<String> {
        self.down.as_ref().map(|(_, reason)| reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_after_a_stall_and_probes_when_empty() {
        let mut health = Health::new();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let at = |seconds: u32| start + second * seconds;
        let state = |health: &Health, now, queued| health.state(now, second * 5, queued, 100);
        assert_eq!(state(&health, at(0), 50), HealthState::Open);
        assert_eq!(state(&health, at(0), 100), HealthState::Full);
        assert!(health.failed("gone", at(0), second, second));
        assert!(!health.failed("gone away", at(1), second, second));
        assert_eq!(state(&health, at(4), 50), HealthState::Open);
        assert_eq!(
            state(&health, at(5), 50),
            HealthState::Down("gone away".into())
        );
        assert_eq!(state(&health, at(5), 0), HealthState::Open);
        assert!(health.succeeded());
        assert_eq!(state(&health, at(6), 50), HealthState::Open);
        health.started(at(6));
        health.started(at(10));
        assert!(matches!(state(&health, at(11), 50), HealthState::Down(_)));
        health.answered();
        assert_eq!(state(&health, at(11), 50), HealthState::Open);
    }

    #[test]
    fn waits_grow_to_the_limit() {
        let mut health = Health::new();
        let now = Instant::now();
        let (min, max) = (Duration::from_millis(20), Duration::from_secs(2));
        for failure in 0..30u32 {
            health.failed("", now, min, max);
            let wait = health.not_before(now).unwrap() - now;
            let ceiling = min.saturating_mul(1 << failure.min(16)).min(max);
            assert!(wait <= ceiling && wait >= ceiling / 2 - Duration::from_micros(1));
        }
    }
}
