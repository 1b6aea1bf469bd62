//! News of who owns a table, which must not wait: an instance said so, or two seem to own one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use metrics::counter;
use pgbraid_config::RouterConfig;
use pgbraid_instance::OwnedTable;
use pgbraid_shardmap::{Epoch, FeedName, InstanceName, OwnershipState, TableId, TableOwner};

use crate::{
    follow::limit,
    node::{Node, within},
    publish::publish_owners,
    state::{Shared, Topology},
};

/// Follows what instances say of their tables. Each is asked by itself: one that does not answer
/// keeps no other's news waiting, nor does whatever else is asked in turn.
pub(crate) async fn follow_news(shared: Arc<Shared>) {
    let mut draining = shared.draining.subscribe();
    let mut asking = FuturesUnordered::new();
    let mut asked = BTreeSet::new();
    loop {
        tokio::select! {
            () = shared.news.notified() => {}
            Some(name) = asking.next() => {
                asked.remove(&name);
            }
            _ = draining.wait_for(|draining| *draining) => return,
        }
        // Who has said something while being asked is asked once more.
        let due: Vec<InstanceName> = {
            let mut heard_from = shared.heard_from.lock();
            let due = heard_from.difference(&asked).copied().collect();
            heard_from.retain(|name| asked.contains(name));
            due
        };
        for name in due {
            asked.insert(name);
            asking.push(heard(&shared, name));
        }
    }
}

/// An instance said that ownership, or rules, changed there: tables first, the rest in turn.
async fn heard(shared: &Shared, name: InstanceName) -> InstanceName {
    counter!("pgbraid_ownership_news_total").increment(1);
    let mut topology = Topology::clone(&shared.topology.load());
    let before = topology.owners.clone();
    topology
        .ask_owners(&shared.config, &BTreeSet::from([name]))
        .await;
    topology.resolve_owners();
    topology.settle(&shared.config, &before).await;
    publish_owners(shared, &topology);
    shared.told.notify_one();
    name
}

impl Topology {
    /// Reads again what the given instances say of tables, and nothing else: news of a move must
    /// not wait. Returns whether all of them answered.
    async fn ask_owners(&mut self, config: &RouterConfig, of: &BTreeSet<InstanceName>) -> bool {
        let nodes: Vec<Arc<Node>> = of
            .iter()
            .filter_map(|name| self.nodes.get(name).cloned())
            .collect();
        let asked = Instant::now();
        let answers = join_all(nodes.iter().map(|node| async {
            let instance = node.instance.load_full();
            within(limit(config), node.name, instance.ownership()).await
        }))
        .await;
        let mut all = true;
        for (node, answer) in nodes.iter().zip(answers) {
            match answer {
                Ok(owned) => {
                    self.reports.insert(node.name, owned);
                    self.asked.insert(node.name, asked);
                }
                Err(_) => all = false,
            }
        }
        all
    }

    /// Reports are of different moments: one instance may have been asked before it gave a table
    /// up, and the next after it had taken it. So those that seem to own a table at once are asked
    /// again. One that does not answer gave the table up, if another owns it at a later epoch. And
    /// where a table has just left one instance and is not known to have reached another, the one
    /// that it went to is asked: nobody's rows are refused because of the order of news.
    pub(crate) async fn settle(
        &mut self,
        config: &RouterConfig,
        before: &BTreeMap<FeedName, Vec<TableOwner>>,
    ) {
        let mut unsure: BTreeSet<InstanceName> = (self.owners.values().flatten())
            .filter_map(|owner| match owner {
                TableOwner::Conflict(instances) => Some(instances.iter().copied()),
                _ => None,
            })
            .flatten()
            .collect();
        let went_to = just_left(before, &self.owners, &self.reports);
        let nodes = self.nodes.keys().copied();
        unsure.extend(nodes.filter(|name| went_to.contains(&name.to_string())));
        if unsure.is_empty() {
            return;
        }
        for name in unsure {
            // Each after the others were heard: what it says now is no older.
            if self.ask_owners(config, &BTreeSet::from([name])).await {
                continue;
            }
            let later: BTreeMap<(FeedName, TableId), Epoch> = (self.reports.iter())
                .filter(|(other, _)| **other != name)
                .flat_map(|(_, tables)| tables)
                .filter(|table| table.state == OwnershipState::Owned)
                .map(|table| ((table.feed.clone(), table.table), table.epoch))
                .collect();
            let mut gave_up = false;
            for table in self.reports.entry(name).or_default() {
                if later
                    .get(&(table.feed.clone(), table.table))
                    .is_some_and(|epoch| *epoch > table.epoch)
                {
                    gave_up |= table.state != OwnershipState::Moved;
                    table.state = OwnershipState::Moved;
                }
            }
            if gave_up {
                self.asked.insert(name, Instant::now());
            }
        }
        self.resolve_owners();
    }
}

/// Where the tables went that had an owner before, and have none now.
fn just_left(
    before: &BTreeMap<FeedName, Vec<TableOwner>>,
    now: &BTreeMap<FeedName, Vec<TableOwner>>,
    reports: &BTreeMap<InstanceName, Vec<OwnedTable>>,
) -> BTreeSet<String> {
    let mut to = BTreeSet::new();
    for (feed, owners) in now {
        let known = before.get(feed).map_or(&[][..], Vec::as_slice);
        for (number, (owner, known)) in (0_u32..).zip(owners.iter().zip(known)) {
            if *owner != TableOwner::Away || *known == TableOwner::Away {
                continue;
            }
            let last = (reports.values().flatten())
                .filter(|one| one.feed == *feed && one.table == TableId::new(number))
                .filter(|one| one.state == OwnershipState::Moved)
                .max_by_key(|one| one.epoch);
            to.extend(last.and_then(|one| one.moved_to.clone()));
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_table_went_is_asked_once() {
        let feed = FeedName::parse("orders").unwrap();
        let [db0, db1, db2] = [0, 1, 2].map(InstanceName::new);
        let said = |table: u32, epoch: u64, to: &str| OwnedTable {
            feed: feed.clone(),
            table: TableId::new(table),
            epoch: Epoch(epoch),
            state: OwnershipState::Moved,
            moved_to: Some(to.into()),
        };
        // Table 1 was at db0 before it was at db1. Table 2 has been away before.
        let reports = BTreeMap::from([
            (db0, vec![said(0, 1, "db2"), said(1, 1, "db1")]),
            (db1, vec![said(1, 2, "db0"), said(2, 1, "db2")]),
            (db2, Vec::new()),
        ]);
        let one = |instance| TableOwner::One {
            instance,
            epoch: Epoch(1),
        };
        let owners = |owners: [TableOwner; 4]| BTreeMap::from([(feed.clone(), owners.to_vec())]);
        let before = owners([one(db0), one(db1), TableOwner::Away, one(db1)]);
        let now = owners([
            TableOwner::Away,
            TableOwner::Away,
            TableOwner::Away,
            one(db1),
        ]);
        let asked = just_left(&before, &now, &reports);
        assert_eq!(asked, BTreeSet::from(["db0".to_owned(), "db2".to_owned()]));
        assert_eq!(just_left(&now, &now, &reports), BTreeSet::new());
    }
}
