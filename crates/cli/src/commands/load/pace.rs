//! When requests are sent: as soon as there is room, or by a schedule that is fixed beforehand.
//!
//! By the schedule a request has a time at which it is due whether or not those before it were
//! answered, and its latency counts from there. A router that falls behind therefore shows it in
//! the latencies of all that had to wait, not only in those that were on their way.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// When somebody has asked for an end before the time.
pub type Early = Arc<OnceLock<Instant>>;

#[derive(Clone, Debug)]
pub struct Pace {
    start: Instant,
    end: Instant,
    early: Early,
    schedule: Option<Schedule>,
}

#[derive(Clone, Debug)]
struct Schedule {
    /// Seconds between two requests.
    interval: f64,
    /// Seconds from the start to the first.
    offset: f64,
    taken: u64,
}

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Requests that were due before the end and never sent.
    pub requests: u64,
    /// How long the first of them has been due at the end.
    pub time: Duration,
}

impl Pace {
    /// As fast as the answers allow.
    pub fn closed(start: Instant, end: Instant) -> Self {
        Self {
            start,
            end,
            early: Early::default(),
            schedule: None,
        }
    }

    /// Ends early if that is asked for.
    pub fn ended_by(self, early: Early) -> Self {
        Self { early, ..self }
    }

    /// One of `producers`, which send `rate` requests a second together, evenly spread.
    pub fn open(start: Instant, end: Instant, rate: f64, number: u32, producers: u32) -> Self {
        let schedule = Schedule {
            interval: f64::from(producers) / rate,
            offset: f64::from(number) / rate,
            taken: 0,
        };
        Self {
            start,
            end,
            early: Early::default(),
            schedule: Some(schedule),
        }
    }

    /// Whether latencies count from a schedule.
    pub fn is_open(&self) -> bool {
        self.schedule.is_some()
    }

    pub fn end(&self) -> Instant {
        let early = self.early.get().copied();
        early.map_or(self.end, |early| early.min(self.end))
    }

    /// When the next request is due: `now` where there is no schedule; `None` once it is over.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let due = match &self.schedule {
            Some(schedule) => schedule.due(self.start)?,
            None => now,
        };
        (now < self.end() && due < self.end()).then_some(due)
    }

    /// That one is sent.
    pub fn take(&mut self) {
        if let Some(schedule) = &mut self.schedule {
            schedule.taken += 1;
        }
    }

    /// How far it stayed behind its schedule.
    pub fn behind(&self) -> Behind {
        let unsent = |schedule: &Schedule| {
            let time = self
                .end()
                .checked_duration_since(schedule.due(self.start)?)?;
            let requests = (time.as_secs_f64() / schedule.interval).ceil() as u64;
            Some(Behind { requests, time })
        };
        self.schedule.as_ref().and_then(unsent).unwrap_or_default()
    }
}

impl Schedule {
    /// `None`: beyond all time.
    fn due(&self, start: Instant) -> Option<Instant> {
        let seconds = self.offset + self.interval * self.taken as f64;
        start.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_does_not_wait_for_answers() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::open(start, at(100), 1000.0, 1, 2);
        assert_eq!(pace.due(start), Some(at(1)));
        pace.take();
        // Nothing could be sent for 50 ms: what is due then is as old.
        assert_eq!(pace.due(at(50)), Some(at(3)));
        assert_eq!(pace.due(at(100)), None);
        let behind = pace.behind();
        assert_eq!(behind.time, Duration::from_millis(97));
        assert_eq!(behind.requests, 49);
        for _ in 0..49 {
            pace.take();
        }
        assert_eq!(pace.due(at(99)), None);
        assert_eq!(pace.behind(), Behind::default());
    }

    #[test]
    fn an_early_end_is_the_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let early = Early::default();
        let open = Pace::open(start, at(1000), 100.0, 0, 1).ended_by(early.clone());
        let closed = Pace::closed(start, at(1000)).ended_by(early.clone());
        assert_eq!((open.end(), closed.due(at(50))), (at(1000), Some(at(50))));
        early.set(at(40)).unwrap();
        assert_eq!((open.due(at(50)), closed.due(at(50))), (None, None));
        assert_eq!((open.end(), open.behind().requests), (at(40), 4));
    }

    #[test]
    fn without_one_the_time_is_now() {
        let start = Instant::now();
        let end = start + Duration::from_secs(1);
        let mut pace = Pace::closed(start, end);
        assert_eq!(pace.due(start), Some(start));
        pace.take();
        assert_eq!(pace.due(end), None);
        assert_eq!(pace.behind(), Behind::default());
    }

    #[test]
    fn a_rate_of_next_to_nothing() {
        let start = Instant::now();
        let end = start + Duration::from_secs(10);
        let mut pace = Pace::open(start, end, 1e-300, 0, 1);
        assert_eq!(pace.due(start), Some(start));
        pace.take();
        assert_eq!(pace.due(start), None);
    }
}
