//! The books of one producer: what it sends next, and what is not answered yet.
//!
//! The stream asks it for requests, and tells it the answers. It knows no clock and no stream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pgbraid_client::EncodedRequest;

use super::generate::Generator;
use super::pace::{Behind, Pace};

pub struct Lane {
    generator: Generator,
    pace: Pace,
    /// Requests in flight stand in slots, of which there are as many as may be in flight. A
    /// sequence is a count, and in its low bits the slot: an answer finds its request at once.
    slots: Vec<Option<Sent>>,
    free: Vec<usize>,
    slot_bits: u32,
    count: u64,
    /// What was on a stream that broke, in order.
    again: VecDeque<EncodedRequest>,
}

struct Sent {
    request: EncodedRequest,
    since: Instant,
    late: Duration,
}

/// What to do now.
#[derive(Debug)]
pub enum Next {
    Send(EncodedRequest),
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing before an answer.
    Full,
    /// Nothing any more.
    Over,
}

/// How long an answered request took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// From the (intended) time of sending.
    pub latency: Duration,
    /// From the intended time of sending to the real one.
    pub late: Duration,
}

impl Lane {
    pub fn new(generator: Generator, pace: Pace, in_flight: usize) -> Self {
        let in_flight = in_flight.max(1);
        Self {
            generator,
            pace,
            slots: std::iter::repeat_with(|| None).take(in_flight).collect(),
            free: (0..in_flight).rev().collect(),
            slot_bits: in_flight.next_power_of_two().trailing_zeros(),
            count: 0,
            again: VecDeque::new(),
        }
    }

    /// Rows of each request.
    pub fn rows(&self) -> u64 {
        self.generator.rows()
    }

    /// Whether latencies count from a schedule.
    pub fn is_open(&self) -> bool {
        self.pace.is_open()
    }

    pub fn next(&mut self, now: Instant) -> Next {
        if let Some(request) = self.again.pop_front() {
            return Next::Send(request);
        }
        let Some(due) = self.pace.due(now) else {
            let later = self.pace.is_open() && now < self.pace.end();
            // A connection that has nothing to send waits with the others for the end.
            return if later {
                Next::Wait(self.pace.end())
            } else {
                Next::Over
            };
        };
        if due > now {
            return Next::Wait(due);
        }
        let Some(slot) = self.free.pop() else {
            return Next::Full;
        };
        self.pace.take();
        self.count += 1;
        let request = EncodedRequest {
            sequence: (self.count << self.slot_bits) | slot as u64,
            body: self.generator.encoded(),
        };
        let late = now.duration_since(due);
        self.slots[slot] = Some(Sent {
            request: request.clone(),
            since: due,
            late,
        });
        Next::Send(request)
    }

    /// `None`: there is no such request, or it has been answered already.
    pub fn answered(&mut self, sequence: u64, now: Instant) -> Option<Took> {
        let slot = (sequence & ((1 << self.slot_bits) - 1)) as usize;
        let place = self.slots.get_mut(slot)?;
        let sent = place.take_if(|sent| sent.request.sequence == sequence)?;
        self.free.push(slot);
        Some(Took {
            latency: now.duration_since(sent.since),
            late: sent.late,
        })
    }

    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The stream broke: what is not answered goes again on the next.
    pub fn lost(&mut self) {
        let sent = self.slots.iter().flatten();
        let mut again: Vec<_> = sent.map(|sent| sent.request.clone()).collect();
        again.sort_unstable_by_key(|request| request.sequence);
        self.again = again.into();
    }

    /// Whether nothing is to be sent and nothing to be answered any more.
    pub fn is_done(&self, now: Instant) -> bool {
        now >= self.pace.end() && self.in_flight() == 0
    }

    /// How far it stayed behind its schedule.
    pub fn behind(&self) -> Behind {
        self.pace.behind()
    }
}

#[cfg(test)]
mod tests;
