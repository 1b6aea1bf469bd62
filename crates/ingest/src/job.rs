//! Which rows a free writer takes.
//!
//! Nothing lingers while a writer is free: rows go at once, so an idle system has the latency of
//! one commit. Under load the rows pile up by themselves and the table with the most rows is
//! taken, which makes large batches of one table, the fastest form. What waits longer than the
//! linger limit, or comes in dribs and drabs for many tables, goes in one mixed batch through
//! the parent.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::{
    IngestConfig, Target,
    config::{MIX_BELOW, MIXED_ROWS},
    table::{Segment, TableQueue, TableRef},
};

/// Rows that one writer writes in one go. Their tables are busy until it is back.
pub(crate) struct Job {
    pub target: Target,
    pub tables: Vec<(TableRef, Vec<Segment>)>,
}

impl Job {
    pub fn bytes(&self) -> u64 {
        self.tables
            .iter()
            .flat_map(|(_, segments)| segments)
            .map(Segment::bytes)
            .sum()
    }
}

/// Takes the next job out of the queues, if there is one.
pub(crate) fn next_job(
    tables: &mut HashMap<TableRef, TableQueue>,
    config: &IngestConfig,
    now: Instant,
) -> Option<Job> {
    let mut largest: Option<(&TableRef, usize)> = None;
    let mut oldest: Option<(&TableRef, Instant, usize)> = None;
    let mut ready = 0;
    for (table, queue) in tables.iter().filter(|(_, queue)| queue.ready()) {
        ready += 1;
        if largest.is_none_or(|(_, rows)| queue.rows() > rows) {
            largest = Some((table, queue.rows()));
        }
        if let Some(queued) = queue.oldest()
            && oldest.is_none_or(|(_, before, _)| queued < before)
        {
            oldest = Some((table, queued, queue.rows()));
        }
    }
    let (largest, largest_rows) = largest?;
    let (oldest, queued, oldest_rows) = oldest?;
    let overdue = now.saturating_duration_since(queued) > config.linger;
    let single = if overdue && oldest_rows >= MIX_BELOW {
        Some(oldest)
    } else if ready == 1 || (largest_rows >= MIX_BELOW && !overdue) {
        Some(largest)
    } else {
        None
    };
    match single.cloned() {
        Some(table) => {
            let queue = tables.get_mut(&table)?;
            queue.busy = true;
            Some(Job {
                target: Target::Table(table.table),
                tables: vec![(table, queue.take(config.batch_rows))],
            })
        }
        None => {
            let feed = oldest.feed.clone();
            mixed(tables, |table| table.feed == feed)
        }
    }
}

/// One batch of many tables, the oldest first.
fn mixed(
    tables: &mut HashMap<TableRef, TableQueue>,
    same_feed: impl Fn(&TableRef) -> bool,
) -> Option<Job> {
    let mut order: Vec<(Instant, &TableRef, &mut TableQueue)> = tables
        .iter_mut()
        .filter(|(table, queue)| queue.ready() && same_feed(table))
        .filter_map(|(table, queue)| Some((queue.oldest()?, table, queue)))
        .collect();
    order.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut left = MIXED_ROWS;
    let mut taken: Vec<(TableRef, Vec<Segment>)> = Vec::new();
    for (_, table, queue) in order {
        if left == 0 {
            break;
        }
        let segments = queue.take(left);
        let rows: usize = segments.iter().map(Segment::len).sum();
        let same_schema = match (taken.first(), segments.first()) {
            (Some((_, first)), Some(segment)) => {
                std::sync::Arc::ptr_eq(&first[0].ticket.block.schema, &segment.ticket.block.schema)
            }
            _ => true,
        };
        if !same_schema {
            queue.push_front(segments);
            continue;
        }
        left -= rows;
        queue.busy = true;
        taken.push((table.clone(), segments));
    }
    let target = match taken.as_slice() {
        [] => return None,
        [(table, _)] => Target::Table(table.table),
        _ => Target::Parent,
    };
    Some(Job {
        target,
        tables: taken,
    })
}
