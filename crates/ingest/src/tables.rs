//! All tables that an instance has, or had, rows for.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    lot::Lot,
    table::{Segment, TableQueue, TableRef, Tickets},
};

/// Table queues by number. A table's number here stays its own as long as the router lives, so
/// that whoever routes rows looks it up once a change of routing and not once a row.
#[derive(Default)]
pub(crate) struct Tables {
    queues: Vec<TableQueue>,
    numbers: HashMap<TableRef, u32>,
    /// Those with rows, and some that had.
    active: Vec<u32>,
    listed: Vec<bool>,
}

impl Tables {
    /// The number of a table, which is added if it is new.
    pub fn number(&mut self, table: &TableRef) -> u32 {
        if let Some(number) = self.numbers.get(table) {
            return *number;
        }
        let number = self.queues.len() as u32;
        self.queues.push(TableQueue::new(table.clone()));
        self.listed.push(false);
        self.numbers.insert(table.clone(), number);
        number
    }

    pub fn get(&mut self, number: u32) -> &mut TableQueue {
        &mut self.queues[number as usize]
    }

    pub fn push(&mut self, number: u32, segment: Segment) {
        self.queues[number as usize].push(segment);
        self.list(number);
    }

    /// As [`TableQueue::push_rows`].
    pub fn push_rows(
        &mut self,
        number: u32,
        lot: &Arc<Lot>,
        rows: (u32, u32),
        queued: Instant,
        tickets: &mut Tickets,
    ) -> u64 {
        self.list(number);
        self.queues[number as usize].push_rows(lot, rows, queued, tickets)
    }

    pub fn push_front(&mut self, number: u32, rows: impl DoubleEndedIterator<Item = Segment>) {
        self.queues[number as usize].push_front(rows);
        self.list(number);
    }

    fn list(&mut self, number: u32) {
        if !std::mem::replace(&mut self.listed[number as usize], true) {
            self.active.push(number);
        }
    }

    /// Forgets which tables have no rows any more.
    pub fn tidy(&mut self) {
        let (queues, listed) = (&self.queues, &mut self.listed);
        self.active.retain(|number| {
            let stays = queues[*number as usize].rows() > 0;
            listed[*number as usize] = stays;
            stays
        });
    }

    /// Tables that a writer may take rows of.
    pub fn ready(&self) -> impl Iterator<Item = (u32, &TableQueue)> {
        self.active
            .iter()
            .map(|number| (*number, &self.queues[*number as usize]))
            .filter(|(_, queue)| queue.ready())
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut TableQueue> {
        self.queues.iter_mut()
    }

    /// How many tables there are, or were.
    pub fn len(&self) -> usize {
        self.queues.len()
    }
}
