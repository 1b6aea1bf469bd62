//! The routing in the form in which rows are routed: no name is looked up for a row or a table.

use std::{collections::HashMap, sync::Arc};

use pgbraid_shardmap::{FeedName, InstanceName, TableId};

use crate::{
    Owner, Routing,
    queue::{Assigned, InstanceQueue},
    table::TableRef,
};

/// Where the rows of some tables go.
pub(crate) enum Destination {
    Queue(Arc<InstanceQueue>),
    /// The owner is not in this router's shard map.
    Unknown(InstanceName),
    Nobody,
    Conflict(Vec<InstanceName>),
}

/// Tables of a feed by destination.
pub(crate) struct FeedPlan {
    /// For each table its place: tables of one destination lie side by side.
    pub places: Vec<u32>,
    /// For each table its destination's index, and its number in that queue.
    slots: Vec<(u32, u32)>,
    destinations: Vec<Destination>,
}

/// A routing, and what follows from it.
#[derive(Default)]
pub(crate) struct Plan {
    pub routing: Arc<Routing>,
    feeds: HashMap<FeedName, FeedPlan>,
}

impl Plan {
    pub fn new(
        routing: Arc<Routing>,
        instances: &HashMap<InstanceName, Arc<InstanceQueue>>,
    ) -> Self {
        let feeds = routing
            .feeds
            .iter()
            .map(|(name, route)| (name.clone(), FeedPlan::new(name, &route.owners, instances)))
            .collect();
        Self { routing, feeds }
    }

    /// The plan of a feed with so many tables.
    pub fn feed(&self, feed: &FeedName, tables: u32) -> Option<&FeedPlan> {
        self.feeds
            .get(feed)
            .filter(|plan| plan.places.len() == tables as usize)
    }

    /// Who a table belongs to, as an instance sees it.
    pub fn assigned(&self, instance: InstanceName, table: &TableRef) -> Assigned {
        let owner = self
            .routing
            .feeds
            .get(&table.feed)
            .and_then(|feed| feed.owners.get(table.table.index() as usize));
        match owner {
            Some(Owner::One(owner)) if *owner == instance => Assigned::Here,
            Some(Owner::Held(owner)) if *owner == instance => Assigned::Held,
            Some(Owner::One(owner) | Owner::Held(owner)) => Assigned::To(*owner),
            Some(Owner::Nobody | Owner::Conflict(_)) | None => Assigned::Nobody,
        }
    }
}

impl FeedPlan {
    /// Segments that lie in the order of `places`, by destination.
    pub fn by_destination<'a>(
        &'a self,
        segments: &'a [(TableId, u32, u32)],
    ) -> impl Iterator<Item = (&'a Destination, &'a [(TableId, u32, u32)])> {
        let to = |table: TableId| self.slots[table.index() as usize].0;
        segments
            .chunk_by(move |a, b| to(a.0) == to(b.0))
            .map(move |segments| {
                let destination = to(segments[0].0);
                (&self.destinations[destination as usize], segments)
            })
    }

    /// The number of a table in its destination's queue.
    pub fn number(&self, table: TableId) -> u32 {
        self.slots[table.index() as usize].1
    }

    fn new(
        feed: &FeedName,
        owners: &[Owner],
        instances: &HashMap<InstanceName, Arc<InstanceQueue>>,
    ) -> Self {
        let mut destinations = Vec::new();
        let mut known: HashMap<&Owner, u32> = HashMap::new();
        let of_table: Vec<u32> = owners
            .iter()
            .map(|owner| {
                *known.entry(owner).or_insert_with(|| {
                    destinations.push(match owner {
                        Owner::One(name) | Owner::Held(name) => match instances.get(name) {
                            Some(queue) => Destination::Queue(queue.clone()),
                            None => Destination::Unknown(*name),
                        },
                        Owner::Nobody => Destination::Nobody,
                        Owner::Conflict(names) => Destination::Conflict(names.clone()),
                    });
                    destinations.len() as u32 - 1
                })
            })
            .collect();
        let mut order: Vec<u32> = (0..owners.len() as u32).collect();
        order.sort_by_key(|table| of_table[*table as usize]);
        let mut places = vec![0; owners.len()];
        let mut slots = vec![(0, 0); owners.len()];
        for (place, table) in order.iter().enumerate() {
            places[*table as usize] = place as u32;
        }
        for tables in order.chunk_by(|a, b| of_table[*a as usize] == of_table[*b as usize]) {
            let destination = of_table[tables[0] as usize];
            let refs: Vec<TableRef> = tables
                .iter()
                .map(|table| TableRef {
                    feed: feed.clone(),
                    table: TableId::new(*table),
                })
                .collect();
            let numbers = match &destinations[destination as usize] {
                Destination::Queue(queue) => queue.numbers(&refs),
                _ => vec![0; refs.len()],
            };
            for (table, number) in tables.iter().zip(numbers) {
                slots[*table as usize] = (destination, number);
            }
        }
        Self {
            places,
            slots,
            destinations,
        }
    }
}
