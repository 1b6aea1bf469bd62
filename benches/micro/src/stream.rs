//! A stream of writes: reads requests, queues them, answers them.
//!
//! It is what the server's stream does, without HTTP/2. Left out are the check of a request's size,
//! the look-up of its feed, and the timer for its deadline.

use std::{
    future::poll_fn,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use pgbraid_ingest::{Ack, Signal, WhenFull};
use pgbraid_proto::v1;
use pgbraid_server::hot;
use prost::Message;
use tokio::time::Instant;

use crate::{
    message::{self, Form},
    path::Path,
};

/// The most one-row requests that are queued as one.
pub const TOGETHER: usize = 256;

/// What streams send.
#[derive(Clone, Debug)]
pub struct Load {
    /// How the rows are laid out.
    pub form: Form,
    /// Without meaning for [`Form::Single`].
    rows_a_request: usize,
    /// The requests. Each stream has its own part of them, and sends it again and again.
    pub messages: Arc<[Bytes]>,
    /// Requests that a stream has sent and has no answer to yet; of [`Form::Single`], groups of
    /// [`TOGETHER`] requests.
    pub in_flight: usize,
    /// The time between two requests of a stream; none: whenever an answer comes.
    pub pace: Option<Duration>,
}

impl Load {
    /// So many streams, each of which sends a request for each answer. There are twice as many
    /// requests as are in flight, so that no key is in flight twice.
    pub fn closed(form: Form, streams: usize, in_flight: usize, rows: usize) -> Self {
        let requests = streams * in_flight * 2;
        let count = match form {
            Form::Single => requests * TOGETHER,
            Form::Columnar | Form::Rows => requests,
        };
        Self {
            form,
            rows_a_request: rows,
            messages: message::requests(form, count, rows).into(),
            in_flight,
            pace: None,
        }
    }

    /// Rows of a request, or of a group of one-row requests.
    pub fn rows(&self) -> usize {
        match self.form {
            Form::Single => TOGETHER,
            Form::Columnar | Form::Rows => self.rows_a_request,
        }
    }
}

/// A request on its way, or a group of them.
struct Taken {
    ack: Ack,
    /// Of each row; of one request only its own.
    sequences: Vec<u64>,
    each: bool,
}

/// A stream of writes.
pub struct Stream {
    path: Arc<Path>,
    load: Load,
    part: Range<usize>,
    next: usize,
    signal: Signal,
    waiting: Vec<Taken>,
    answer: Vec<u8>,
    committed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Stream {
    /// The stream of this number, of so many.
    pub fn new(path: Arc<Path>, load: &Load, number: usize, streams: usize) -> Self {
        let cut = |number: usize| load.messages.len() * number / streams;
        Self {
            path,
            part: cut(number)..cut(number + 1),
            next: cut(number),
            load: load.clone(),
            signal: Signal::new(),
            waiting: Vec::new(),
            answer: Vec::new(),
            committed: Arc::default(),
            stop: Arc::default(),
        }
    }

    /// Rows committed so far.
    pub fn committed(&self) -> Arc<AtomicU64> {
        self.committed.clone()
    }

    /// Once it is true nothing more is sent.
    pub fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.stop = stop;
    }

    /// Sends so many requests, or groups of one-row requests, and reads their answers. Returns the
    /// number of rows, all of which were committed.
    pub async fn run(mut self, mut requests: u64) -> Result<u64> {
        let mut due = Instant::now();
        loop {
            while requests > 0
                && self.waiting.len() < self.load.in_flight
                && (self.load.pace.is_none() || due <= Instant::now())
            {
                requests -= 1;
                due += self.load.pace.unwrap_or_default();
                let taken = match self.load.form {
                    Form::Single => self.take_each().await?,
                    Form::Columnar | Form::Rows => self.take().await?,
                };
                self.waiting.push(taken);
            }
            let sends = requests > 0 && self.waiting.len() < self.load.in_flight;
            if sends {
                // Paced, and not yet due.
                tokio::select! {
                    answers = self.answers() => answers?,
                    () = tokio::time::sleep_until(due) => {}
                }
            } else if self.waiting.is_empty() {
                return Ok(self.committed.load(Ordering::Relaxed));
            } else {
                self.answers().await?;
            }
            if self.stop.load(Ordering::Relaxed) {
                requests = 0;
            }
        }
    }

    /// The next request.
    fn message(&mut self) -> Bytes {
        let message = self.load.messages[self.next].clone();
        self.next += 1;
        if self.next == self.part.end {
            self.next = self.part.start;
        }
        message
    }

    async fn take(&mut self) -> Result<Taken> {
        let message = self.message();
        let block = self.path.decode(message)?;
        let signal = self.signal.clone();
        Ok(Taken {
            ack: self.path.submit(block, WhenFull::Wait, signal).await?,
            sequences: vec![self.next as u64],
            each: false,
        })
    }

    async fn take_each(&mut self) -> Result<Taken> {
        let messages: Vec<Bytes> = (0..TOGETHER).map(|_| self.message()).collect();
        let bytes = messages.iter().map(|message| &message[..]);
        let (sequences, block) =
            hot::lone_rows(bytes, &self.path.schema).context("requests of more than one row")?;
        let signal = self.signal.for_each_row();
        Ok(Taken {
            ack: self.path.submit(block?, WhenFull::Wait, signal).await?,
            sequences,
            each: true,
        })
    }

    /// Waits until requests are answered.
    async fn answers(&mut self) -> Result<()> {
        poll_fn(|context| {
            self.signal.register(context);
            let before = self.waiting.len();
            match self.collect() {
                Ok(()) if self.waiting.len() == before => Poll::Pending,
                result => Poll::Ready(result),
            }
        })
        .await
    }

    /// Makes the answers that are there.
    fn collect(&mut self) -> Result<()> {
        let mut at = 0;
        while at < self.waiting.len() {
            let taken = &mut self.waiting[at];
            // Asked first: what is answered meanwhile is found the next time.
            let done = taken.ack.is_done();
            if taken.each {
                let mut rows = 0;
                let mut refused = None;
                taken.ack.news(|row, refusal| {
                    if let Some(refusal) = refusal {
                        refused = Some(refusal.refusal.message.clone());
                    }
                    rows += 1;
                    answer(&mut self.answer, taken.sequences[row as usize], 1);
                });
                if let Some(message) = refused {
                    bail!("a row was refused: {message}");
                }
                self.committed.fetch_add(rows, Ordering::Relaxed);
            }
            if !done {
                at += 1;
                continue;
            }
            let taken = self.waiting.swap_remove(at);
            if !taken.each {
                let outcome = taken.ack.outcome();
                if let Some(refusal) = outcome.refused.first() {
                    bail!("a row was refused: {}", refusal.refusal.message);
                }
                answer(&mut self.answer, taken.sequences[0], outcome.committed);
                self.committed
                    .fetch_add(outcome.committed, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

fn answer(out: &mut Vec<u8>, sequence: u64, rows_committed: u64) {
    out.clear();
    let response = v1::WriteResponse {
        sequence,
        rows_committed,
        refused: Vec::new(),
        status: None,
    };
    // It fails only where a buffer cannot grow.
    let _ = response.encode(out);
    std::hint::black_box(out);
}

/// Runs so many requests (of [`Form::Single`] in whole groups) on some streams at once, on this
/// thread. Returns the rows.
pub async fn run(path: &Arc<Path>, load: &Load, streams: usize, requests: u64) -> Result<u64> {
    let groups = match load.form {
        Form::Single => requests.div_ceil(TOGETHER as u64),
        Form::Columnar | Form::Rows => requests,
    };
    let running: Vec<_> = (0..streams)
        .map(|number| {
            let stream = Stream::new(path.clone(), load, number, streams);
            let cut = |number: usize| groups * number as u64 / streams as u64;
            tokio::spawn(stream.run(cut(number + 1) - cut(number)))
        })
        .collect();
    let mut rows = 0;
    for stream in running {
        rows += stream.await.map_err(|error| anyhow!("{error}"))??;
    }
    Ok(rows)
}
