//! A producer that goes on through faults and knows what it was told.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use pgbraid_proto::v1;
use tonic::{Code, Status};

use crate::{Layout, Router, Writer, rows};

/// Requests of one producer that wait for their answer.
const IN_FLIGHT: usize = 16;
/// Rows of one request.
const ROWS: usize = 64;

/// Rows acked so far, by instance.
#[derive(Clone)]
pub struct Acked {
    layout: Arc<Layout>,
    rows: Arc<Vec<AtomicU64>>,
}

impl Acked {
    /// None yet.
    pub fn new(layout: Layout, instances: u16) -> Self {
        Self {
            layout: Arc::new(layout),
            rows: Arc::new((0..instances).map(|_| AtomicU64::new(0)).collect()),
        }
    }

    fn add(&self, key: i64) {
        self.rows[self.layout.owner(key)].fetch_add(1, Ordering::Relaxed);
    }

    /// Number of instances.
    pub fn instances(&self) -> usize {
        self.rows.len()
    }

    /// Rows acked by an instance.
    pub fn of(&self, instance: usize) -> u64 {
        self.rows[instance].load(Ordering::Relaxed)
    }
}

/// Writes values that only go up into one column of its keys.
pub struct Producer {
    /// The column, which is its own.
    pub column: String,
    /// The keys.
    pub keys: Vec<i64>,
    /// The last value that was sent for each key.
    pub sent: Vec<i32>,
    /// The last value that was acked for each key; 0: none.
    pub acked: Vec<i32>,
    /// Rows refused, by reason.
    pub refused: HashMap<String, u64>,
    /// Least time between two requests; none: as fast as it is answered.
    pub pace: Duration,
    value: i32,
    place: usize,
    /// The value and the keys' places of each request on its way.
    waiting: HashMap<u64, (i32, Vec<usize>)>,
}

impl Producer {
    /// A producer for an int column.
    pub fn new(column: impl Into<String>, keys: Vec<i64>) -> Self {
        Self {
            column: column.into(),
            sent: vec![0; keys.len()],
            acked: vec![0; keys.len()],
            keys,
            refused: HashMap::new(),
            pace: Duration::ZERO,
            value: 0,
            place: 0,
            waiting: HashMap::new(),
        }
    }

    /// Requests that it has sent; each writes its own number.
    pub fn requests(&self) -> i32 {
        self.value
    }

    /// The keys of a request, unless its streams broke.
    pub fn keys_of(&self, request: i32) -> Vec<i64> {
        let rows = ROWS.min(self.keys.len());
        let first = (request as usize - 1) * ROWS;
        let at = |row| (first + row) % self.keys.len();
        (0..rows).map(|row| self.keys[at(row)]).collect()
    }

    /// Writes its keys in turn until it is told to stop, and takes all answers.
    ///
    /// # Errors
    /// If the stream breaks.
    pub async fn run(
        &mut self,
        mut writer: Writer,
        timeout: Duration,
        stop: &AtomicBool,
        acked: &Acked,
    ) -> Result<(), Status> {
        self.waiting.clear();
        loop {
            if !stop.load(Ordering::Relaxed) && writer.in_flight() < IN_FLIGHT {
                let places = (0..ROWS.min(self.keys.len()))
                    .map(|at| (self.place + at) % self.keys.len())
                    .collect();
                self.place = (self.place + ROWS) % self.keys.len();
                if !self.pace.is_zero() {
                    tokio::time::sleep(self.pace).await;
                }
                if self.send(&mut writer, places, timeout).await.is_err() {
                    // The router reads no more: what it has taken it still answers.
                    loop {
                        self.answer(&mut writer, acked).await?;
                    }
                }
            } else if writer.in_flight() > 0 {
                self.answer(&mut writer, acked).await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Sends again whatever is not acked, until all is.
    ///
    /// # Errors
    /// If the stream breaks.
    pub async fn finish(&mut self, router: &Router, acked: &Acked) -> Result<(), Status> {
        let mut writer = Writer::open(router).await;
        self.waiting.clear();
        let what = format!("all rows of {} to be acked", self.column);
        crate::wait::limited(&what, async {
            loop {
                let open: Vec<usize> = (0..self.keys.len())
                    .filter(|place| self.acked[*place] != self.sent[*place])
                    .collect();
                if open.is_empty() {
                    return Ok(());
                }
                for places in open.chunks(ROWS) {
                    self.send(&mut writer, places.to_vec(), Duration::from_secs(10))
                        .await?;
                    while writer.in_flight() > 0 {
                        self.answer(&mut writer, acked).await?;
                    }
                }
            }
        })
        .await
    }

    async fn send(
        &mut self,
        writer: &mut Writer,
        places: Vec<usize>,
        timeout: Duration,
    ) -> Result<(), Status> {
        self.value += 1;
        for place in &places {
            self.sent[*place] = self.value;
        }
        let keys: Vec<i64> = places.iter().map(|place| self.keys[*place]).collect();
        let values = vec![self.value; keys.len()];
        let columns = vec![rows::int32s(&self.column, &values)];
        let mut request = rows::columnar("feed", rows::int64s("", &keys), columns);
        request.timeout = Some(timeout.try_into().expect("a time"));
        let number = writer.send(request).await?;
        self.waiting.insert(number, (self.value, places));
        Ok(())
    }

    async fn answer(&mut self, writer: &mut Writer, acked: &Acked) -> Result<(), Status> {
        let (_, answer) = writer.answer().await?;
        let waiting = self.waiting.remove(&answer.sequence);
        let (value, places) = waiting.expect("an answer belongs to a request");
        if let Some(status) = answer.status {
            assert_retriable(status.code, &status.message);
            *self.refused.entry(status.message).or_default() += places.len() as u64;
            return Ok(());
        }
        let mut refused = answer.refused.iter().peekable();
        for (index, place) in places.iter().enumerate() {
            match refused.next_if(|row| row.index as usize == index) {
                Some(row) => self.note(row),
                None => {
                    self.acked[*place] = self.acked[*place].max(value);
                    acked.add(self.keys[*place]);
                }
            }
        }
        assert_eq!(refused.next(), None, "refused rows are in order, each once");
        let told = answer.rows_committed as usize + answer.refused.len();
        assert_eq!(
            told,
            places.len(),
            "each row is either committed or refused"
        );
        Ok(())
    }

    fn note(&mut self, row: &v1::RefusedRow) {
        assert_retriable(row.code, &format!("{row:?}"));
        assert!(row.retry_delay.is_some(), "no retry delay: {row:?}");
        *self.refused.entry(row.reason.clone()).or_default() += 1;
    }
}

fn assert_retriable(code: i32, what: &str) {
    let code = Code::from_i32(code);
    let retriable = matches!(code, Code::Unavailable | Code::ResourceExhausted);
    assert!(
        retriable,
        "a good row was refused for ever, {code:?}: {what}"
    );
}
