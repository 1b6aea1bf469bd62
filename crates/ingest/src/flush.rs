//! Writes one job: builds its batch, sends its statements, finds rows that can't be written, and
//! puts back what has to wait.

use std::{collections::HashMap, sync::Arc, time::Duration};

use pgbraid_feed::{Batch, Block, Refusal, RowRef, Statement};
use pgbraid_shardmap::TableId;
use rand::RngExt;
use tokio::{sync::Notify, time::Instant};
use tracing::{debug, info, warn};

use crate::{
    Code, Doubt, ErrorKind, RowRefusal, SinkError, Target,
    config::{FEW_LATER, MIX_BELOW, RETRIES},
    job::Job,
    lot::Lot,
    queue::{InstanceQueue, Moved, Next},
    table::{Rows, Segment},
};

/// Characters of a key that a message shows.
const SHOWN_CHARS: usize = 100;

/// Takes jobs until the queue is closed and empty. `moved` gets rows of tables that left;
/// `stale` is woken when the instance says that a table is not its own any more.
pub(crate) async fn writer(
    queue: Arc<InstanceQueue>,
    moved: impl Fn(Moved) + Send + Sync,
    stale: Arc<Notify>,
) {
    loop {
        match queue.next() {
            Next::Job(job) => moved(flush(&queue, job, &stale).await),
            Next::Wait(wait) => queue.idle(wait).await,
            Next::Closed => return,
        }
    }
}

/// The rows of a job while they are being written.
struct Flush<'a> {
    queue: &'a InstanceQueue,
    target: Target,
    lots: Vec<&'a Lot>,
    blocks: Vec<&'a Block>,
    /// In order of arrival.
    rows: Vec<(TableId, RowRef)>,
    /// The same rows as they were queued: lot, and rows side by side.
    taken: Vec<(u32, Rows)>,
    /// Rows that must wait: the rest of a failed statement.
    failed: bool,
}

async fn flush(queue: &InstanceQueue, job: Job, stale: &Notify) -> Moved {
    let mut flush = Flush {
        queue,
        target: job.target,
        lots: Vec::with_capacity(job.segments.len()),
        blocks: Vec::with_capacity(job.segments.len()),
        rows: Vec::with_capacity(job.rows),
        taken: Vec::with_capacity(job.segments.len()),
        failed: false,
    };
    flush.add_all(&job);
    if !flush.rows.is_empty() {
        flush.write(stale).await;
    }
    drop(flush);
    queue.finish(job)
}

/// Lots that have rows of several tables in a batch: their index, by address.
type Known = HashMap<*const Lot, u32>;

impl<'a> Flush<'a> {
    fn add_all(&mut self, job: &'a Job) {
        let now = Instant::now();
        let mut known = match job.target {
            Target::Table(_) => Known::new(),
            Target::Parent => Known::with_capacity(job.segments.len()),
        };
        let mut segments = job.segments.iter();
        for table in &job.tables {
            for segment in segments.by_ref().take(table.segments) {
                self.add(table.table, segment, now, &mut known);
            }
        }
    }

    /// Adds the rows of a segment that still want to be written.
    fn add(&mut self, table: TableId, segment: &'a Segment, now: Instant, known: &mut Known) {
        let lot: &Lot = &segment.lot;
        let Some(wanted) = segment.wanted(now) else {
            return;
        };
        let lots = &mut self.lots;
        let blocks = &mut self.blocks;
        let mut new = || {
            lots.push(lot);
            blocks.push(&lot.block);
            lots.len() as u32 - 1
        };
        let block = match self.target {
            // Several segments of one lot come from retries only: it does not matter.
            Target::Table(_) => new(),
            Target::Parent => *known.entry(std::ptr::from_ref(lot)).or_insert_with(new),
        };
        let row = |row| (table, RowRef { block, row });
        match &wanted {
            Rows::Range(start, end) => self.rows.extend((*start..*end).map(row)),
            Rows::List(rows) => self.rows.extend(rows.iter().copied().map(row)),
        }
        self.taken.push((block, wanted));
    }

    async fn write(&mut self, stale: &Notify) {
        let all = self.rows.len();
        let mut later = self.write_once(stale).await;
        // A few rows of a large batch are written behind it rather than a whole turn of the tables
        // later: the requests that they belong to are answered that much sooner.
        let few = !later.is_empty() && later.len() <= all / FEW_LATER && all >= MIX_BELOW;
        if few && !self.failed && matches!(self.target, Target::Table(_)) {
            let now = Instant::now();
            later.retain(|(_, row)| !self.lots[row.block as usize].is_over(row.row, now));
            self.rows = later;
            self.taken.clear();
            self.write_once(stale).await;
        }
    }

    /// Writes the rows, but for those that would hide another's value, which are returned.
    async fn write_once(&mut self, stale: &Notify) -> Vec<(TableId, RowRef)> {
        let Some(first) = self.blocks.first().filter(|_| !self.rows.is_empty()) else {
            return Vec::new();
        };
        let batch = Batch::build(first.schema.clone(), self.blocks.clone(), &self.rows);
        let merged = self.rows.len() - batch.rows().len() - batch.deferred().len();
        self.queue.metrics.merged.increment(merged as u64);
        self.queue
            .metrics
            .deferred
            .increment(batch.deferred().len() as u64);
        let statements = batch.statements();
        self.statements(&batch, statements, stale).await;
        batch.deferred().to_vec()
    }

    /// Writes statements until each is committed, refused row by row, or has to wait.
    async fn statements(&mut self, batch: &Batch<'_>, mut todo: Vec<Statement>, stale: &Notify) {
        let mut conflicts = 0;
        while !todo.is_empty() {
            let started = Instant::now();
            self.queue.started();
            let results = self.queue.sink.write(batch, &todo, self.target).await;
            self.queue.metrics.flushed(started.elapsed());
            self.queue.answered();
            let mut next = Vec::new();
            let mut doubt = None;
            let mut conflict = None;
            let mut apart = Vec::new();
            for (statement, result) in todo.into_iter().zip(results) {
                match result {
                    Ok(()) => {
                        self.queue.succeeded();
                        self.commit(batch, &statement);
                    }
                    Err(error) => match &error.kind {
                        ErrorKind::Refused => {
                            self.split(batch, statement, &error, &mut next, &mut apart);
                        }
                        ErrorKind::Conflict => {
                            self.queue.metrics.retried(error.sqlstate.as_deref());
                            conflict = Some(error);
                            next.push(statement);
                        }
                        ErrorKind::Outage(lost) => {
                            self.failed = true;
                            self.outage(&error);
                            doubt = doubt.or_else(|| lost.clone());
                        }
                        ErrorKind::Moved => {
                            self.failed = true;
                            self.queue.metrics.retried(error.sqlstate.as_deref());
                            info!(instance = %self.queue.name, "{error}; asking who owns the table");
                            stale.notify_one();
                            // The answer is a moment away: the rows wait at the front meanwhile.
                            tokio::time::sleep(news_after(error.sqlstate.as_deref())).await;
                        }
                    },
                }
            }
            if let Some(doubt) = doubt {
                self.settle(&doubt).await;
            }
            for row in apart {
                if !self.failed {
                    self.apart(batch, row).await;
                }
            }
            if let Some(error) = conflict {
                conflicts += 1;
                if conflicts > RETRIES || self.failed {
                    warn!(instance = %self.queue.name, "{error}; {conflicts} times in a row");
                    self.failed = true;
                    return;
                }
                tokio::time::sleep(jitter(Duration::from_millis(1 << conflicts))).await;
            }
            if self.failed {
                // What else is to be written of this batch waits too: the connection is gone.
                return;
            }
            todo = next;
        }
    }

    fn commit(&self, batch: &Batch<'_>, statement: &Statement) {
        let mut counts = vec![0; self.lots.len()];
        // All that was taken, but for what is written later.
        let whole = !self.taken.is_empty()
            && statement.rows.len() == batch.rows().len()
            && batch.writes() + batch.deferred().len() == self.rows.len();
        if whole {
            let mut deferred: Vec<(u32, u32)> = batch
                .deferred()
                .iter()
                .map(|(_, row)| (row.block, row.row))
                .collect();
            deferred.sort_unstable();
            // PostgreSQL took its time: the marks have left the processor's cache. Read first, they
            // come back side by side; each mark by itself would wait for its own.
            let ranges = (self.taken.iter()).filter_map(|(block, rows)| match rows {
                Rows::Range(start, end) => Some((*block, *start, *end)),
                Rows::List(_) => None,
            });
            let resolved = ranges.filter(|(block, start, end)| {
                self.lots[*block as usize].are_resolved(*start, *end)
            });
            std::hint::black_box(resolved.count());
            // By ranges, not by rows.
            for (block, rows) in &self.taken {
                let lot = &self.lots[*block as usize];
                let of_block = |row: u32| (*block, row);
                counts[*block as usize] += match rows {
                    Rows::Range(start, end) => {
                        let from = deferred.partition_point(|row| *row < of_block(*start));
                        let waiting = (deferred[from..].iter())
                            .take_while(|row| **row < of_block(*end))
                            .map(|(_, row)| *row);
                        between(*start, *end, waiting)
                            .map(|(start, end)| lot.mark_range(start, end))
                            .sum::<u32>()
                    }
                    Rows::List(rows) => rows
                        .iter()
                        .filter(|row| deferred.binary_search(&of_block(**row)).is_err())
                        .map(|row| lot.mark(*row))
                        .sum(),
                };
            }
        } else {
            for row in &statement.rows {
                for source in batch.sources(*row) {
                    let block = source.block as usize;
                    counts[block] += self.lots[block].mark(source.row);
                }
            }
        }
        for (lot, count) in self.lots.iter().zip(&counts) {
            if *count > 0 {
                lot.committed(*count);
            }
        }
        let committed = counts.iter().map(|count| u64::from(*count)).sum();
        self.queue.metrics.committed.increment(committed);
        self.queue
            .metrics
            .batch(self.target == Target::Parent, statement.rows.len());
    }

    /// Halves a statement that PostgreSQL refuses until the bad row is alone, then takes the
    /// writes that were merged into it apart, then refuses the bad one.
    fn split(
        &mut self,
        batch: &Batch<'_>,
        mut statement: Statement,
        error: &SinkError,
        next: &mut Vec<Statement>,
        apart: &mut Vec<u32>,
    ) {
        self.queue.metrics.splits.increment(1);
        if statement.rows.len() > 1 {
            let tail = statement.rows.split_off(statement.rows.len() / 2);
            next.push(Statement {
                rows: tail,
                ..statement.clone()
            });
            next.push(statement);
            return;
        }
        let sources = batch.sources(statement.rows[0]);
        if let [source] = sources {
            self.refuse(*source, error);
        } else {
            debug!(instance = %self.queue.name, "{error}: taking merged writes of one key apart");
            apart.push(statement.rows[0]);
        }
    }

    /// Writes what was merged into one row write by write, in order: only the bad one is refused.
    async fn apart(&mut self, batch: &Batch<'_>, row: u32) {
        let table = batch.rows()[row as usize].table;
        for source in batch.sources(row) {
            let schema = batch.schema().clone();
            let alone = Batch::build(schema, self.blocks.clone(), &[(table, *source)]);
            let statements = alone.statements();
            self.queue.started();
            let results = (self.queue.sink)
                .write(&alone, &statements, self.target)
                .await;
            self.queue.answered();
            for result in results {
                match result {
                    Ok(()) => self.commit(&alone, &statements[0]),
                    Err(error) if error.kind == ErrorKind::Refused => self.refuse(*source, &error),
                    Err(error) => {
                        self.failed = true;
                        self.outage(&error);
                        if let ErrorKind::Outage(Some(doubt)) = &error.kind {
                            self.settle(doubt).await;
                        }
                        return;
                    }
                }
            }
        }
    }

    fn refuse(&self, source: RowRef, error: &SinkError) {
        let lot = &self.lots[source.block as usize];
        let column = error.column.clone().unwrap_or_default();
        let refusal = RowRefusal {
            refusal: Refusal {
                // Set when the row is refused.
                row: 0,
                reason: reason(error).into(),
                column,
                message: format!(
                    "key {}: {}",
                    shown(lot.block.key_text(source.row)),
                    error.message
                ),
            },
            code: Code::Invalid,
            sqlstate: error.sqlstate.clone(),
            constraint: error.constraint.clone(),
            retry_after: None,
        };
        if lot.refuse(source.row, refusal) {
            self.queue.metrics.refused(Code::Invalid, 1);
        }
    }

    fn outage(&self, error: &SinkError) {
        self.queue.metrics.retried(error.sqlstate.as_deref());
        if self.queue.failed(&error.message) {
            warn!(instance = %self.queue.name, "can't write: {error}");
        }
    }

    /// Rows are not sent again before it is certain that the lost statement can't write any more:
    /// a backend that was stopped would wake up and put old values over newer ones.
    async fn settle(&self, doubt: &Doubt) {
        let mut wait = self.queue.config.retry_min;
        while let Err(error) = self.queue.sink.settle(doubt).await {
            self.queue.failed(&error.message);
            debug!(instance = %self.queue.name, pid = doubt.pid, "waiting for a lost backend: {error}");
            tokio::time::sleep(jitter(wait)).await;
            wait = (wait * 2).min(self.queue.config.retry_max);
        }
    }
}

/// The parts of a range of rows that lie between those of `without`, which ascend in it.
fn between(
    start: u32,
    end: u32,
    without: impl Iterator<Item = u32>,
) -> impl Iterator<Item = (u32, u32)> {
    let mut from = start;
    (without.map(|row| (row, row + 1)))
        .chain(std::iter::once((end, end)))
        .map(move |(to, next)| (std::mem::replace(&mut from, next), to))
        .filter(|(start, end)| start < end)
}

/// A key for a message: a long one is cut.
fn shown(mut key: String) -> String {
    if let Some((end, _)) = key.char_indices().nth(SHOWN_CHARS) {
        key.truncate(end);
        key.push('…');
    }
    key
}

/// How long the news of a table may take. A statement that PostgreSQL does not understand (class
/// 42) will hardly be mended within milliseconds; a table that moved is known at once.
fn news_after(sqlstate: Option<&str>) -> Duration {
    match sqlstate {
        Some(code) if code.starts_with("42") && code != "42P01" => {
            jitter(Duration::from_millis(250))
        }
        _ => Duration::from_millis(5),
    }
}

fn jitter(ceiling: Duration) -> Duration {
    ceiling.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// The machine-readable reason for a SQLSTATE.
fn reason(error: &SinkError) -> &'static str {
    match error.sqlstate.as_deref() {
        Some("23502") => "NOT_NULL_VIOLATION",
        Some("23503") => "FOREIGN_KEY_VIOLATION",
        Some("23505") => "UNIQUE_VIOLATION",
        Some("23514") => "CHECK_VIOLATION",
        Some("23P01") => "EXCLUSION_VIOLATION",
        Some("22003") => "OUT_OF_RANGE",
        Some("22001") => "TOO_LONG",
        Some(code) if code.starts_with("22") => "INVALID_VALUE",
        Some(code) if code.starts_with("P0") => "TRIGGER_ERROR",
        _ => "REFUSED_BY_POSTGRES",
    }
}
