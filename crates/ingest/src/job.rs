//! Which rows a free writer takes.
//!
//! Rows go at once on an idle system, which has the latency of one commit. While a small batch is
//! being written, few rows wait for it to be back, up to a part of the linger limit: writers that took
//! each row as it came would commit row by row, and be busy when many come. Under load the rows pile up by themselves and the table with the most rows is taken, which makes large
//! batches of one table, the fastest form. What waits longer than the linger limit, or comes in dribs
//! and drabs for many tables, goes in one mixed batch through the parent.

use std::sync::Arc;

use pgbraid_shardmap::TableId;
use tokio::time::Instant;

use crate::{
    IngestConfig, Target,
    config::{MIX_BELOW, MIXED_ROWS, PATIENT_PART, WORTH_A_WRITER},
    table::Segment,
    tables::Tables,
};

/// Rows that one writer writes in one go. Their tables are busy until it is back.
pub(crate) struct Job {
    pub target: Target,
    pub tables: Vec<JobTable>,
    /// Those of the first table, then those of the second, and so on.
    pub segments: Vec<Segment>,
    pub rows: usize,
    pub bytes: u64,
}

/// A table's part of a job.
pub(crate) struct JobTable {
    /// Its number in the instance's queue.
    pub number: u32,
    pub table: TableId,
    /// How many of the job's segments are its.
    pub segments: usize,
}

impl Job {
    fn empty(target: Target) -> Self {
        Self {
            target,
            tables: Vec::new(),
            segments: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Whether few rows wait for it to be back.
    pub fn is_small(&self) -> bool {
        self.rows <= MIXED_ROWS
    }

    /// Takes up to `limit` rows of a table. False if none could be taken.
    fn take(&mut self, tables: &mut Tables, number: u32, limit: usize) -> bool {
        let queue = tables.get(number);
        let before = self.segments.len();
        self.rows += queue.take(limit, &mut self.segments);
        let segments = self.segments.len() - before;
        if segments == 0 {
            return false;
        }
        queue.busy = true;
        self.bytes += self.segments[before..]
            .iter()
            .map(Segment::bytes)
            .sum::<u64>();
        self.tables.push(JobTable {
            number,
            table: queue.table.table,
            segments,
        });
        true
    }
}

/// What there is to write.
pub(crate) enum Choice {
    Job(Job),
    /// So little that it waits for what is being written, until then at most.
    Later(Instant),
    Nothing,
}

/// Takes the next job out of the queues, if there is one. `patient`: a small one is being written.
pub(crate) fn next_job(
    tables: &mut Tables,
    config: &IngestConfig,
    now: Instant,
    patient: bool,
) -> Choice {
    let mut largest: Option<(u32, usize)> = None;
    let mut oldest: Option<(u32, Instant, usize)> = None;
    let (mut ready, mut rows) = (0, 0);
    for (number, queue) in tables.ready() {
        ready += 1;
        rows += queue.rows();
        if largest.is_none_or(|(_, rows)| queue.rows() > rows) {
            largest = Some((number, queue.rows()));
        }
        if let Some(queued) = queue.oldest()
            && oldest.is_none_or(|(_, before, _)| queued < before)
        {
            oldest = Some((number, queued, queue.rows()));
        }
    }
    let (Some((largest, largest_rows)), Some((oldest, queued, oldest_rows))) = (largest, oldest)
    else {
        return Choice::Nothing;
    };
    let patient_until = queued + config.linger / PATIENT_PART;
    if patient && rows < WORTH_A_WRITER && now < patient_until {
        return Choice::Later(patient_until);
    }
    let overdue = now.saturating_duration_since(queued) > config.linger;
    let single = if overdue && oldest_rows >= MIX_BELOW {
        Some(oldest)
    } else if ready == 1 || (largest_rows >= MIX_BELOW && !overdue) {
        Some(largest)
    } else {
        None
    };
    let job = match single {
        Some(number) => {
            let table = tables.get(number).table.table;
            let mut job = Job::empty(Target::Table(table));
            job.take(tables, number, config.batch_rows);
            job
        }
        None => mixed(tables, oldest),
    };
    tables.tidy();
    match job.rows {
        0 => Choice::Nothing,
        _ => Choice::Job(job),
    }
}

/// One batch of many tables of a feed, the oldest first.
fn mixed(tables: &mut Tables, oldest: u32) -> Job {
    let feed = tables.get(oldest).table.feed.clone();
    let mut order: Vec<(Instant, TableId, u32, usize)> = tables
        .ready()
        .filter(|(_, queue)| queue.table.feed == feed)
        .filter_map(|(number, queue)| {
            Some((queue.oldest()?, queue.table.table, number, queue.rows()))
        })
        .collect();
    // Only as many as fit in the batch have to be in order.
    let enough = order.len().min(MIXED_ROWS);
    if enough < order.len() {
        order.select_nth_unstable(enough);
        order.truncate(enough);
    }
    order.sort_unstable();
    let mut job = Job::empty(Target::Parent);
    for (_, _, number, _) in order {
        let left = MIXED_ROWS.saturating_sub(job.rows);
        if left == 0 {
            break;
        }
        job.take(tables, number, left);
    }
    if let [only] = job.tables.as_slice() {
        job.target = Target::Table(only.table);
    }
    debug_assert!(job.segments.windows(2).all(|pair| {
        let schema = |segment: &Segment| Arc::as_ptr(&segment.lot.block.schema);
        schema(&pair[0]) == schema(&pair[1])
    }));
    job
}
