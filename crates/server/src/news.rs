//! News of who owns a table, which must not wait: an instance said so, or two seem to own one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::join_all;
use metrics::counter;
use pgbraid_config::RouterConfig;
use pgbraid_shardmap::{Epoch, FeedName, InstanceName, OwnershipState, TableId, TableOwner};

use crate::{
    follow::{limit, publish},
    node::{Node, within},
    state::{Shared, Topology},
};

/// An instance said that ownership, or rules, changed there: tables first, the rest in turn.
pub(crate) async fn heard(shared: &Shared) {
    let of = std::mem::take(&mut *shared.heard_from.lock());
    let mut topology = Topology::clone(&shared.topology.load());
    let before = topology.owners.clone();
    counter!("pgbraid_ownership_news_total").increment(1);
    topology.ask_owners(&shared.config, &of).await;
    topology.resolve_owners();
    topology.settle_conflicts(&shared.config).await;
    if topology.owners != before {
        publish(shared, topology);
    }
    shared.refresh.notify_one();
}

impl Topology {
    /// Reads again what the given instances say of tables, and nothing else: news of a move must
    /// not wait. Returns whether all of them answered.
    async fn ask_owners(&mut self, config: &RouterConfig, of: &BTreeSet<InstanceName>) -> bool {
        let nodes: Vec<Arc<Node>> = of
            .iter()
            .filter_map(|name| self.nodes.get(name).cloned())
            .collect();
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
                }
                Err(_) => all = false,
            }
        }
        all
    }

    /// Reports are of different moments: one instance may have been asked before it gave a table
    /// up, and the next after it had taken it. So those that seem to own a table at once are asked
    /// again. One that does not answer gave the table up, if another owns it at a later epoch.
    pub(crate) async fn settle_conflicts(&mut self, config: &RouterConfig) {
        let torn: BTreeSet<InstanceName> = (self.owners.values().flatten())
            .filter_map(|owner| match owner {
                TableOwner::Conflict(instances) => Some(instances.iter().copied()),
                _ => None,
            })
            .flatten()
            .collect();
        if torn.is_empty() {
            return;
        }
        for name in torn {
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
            for table in self.reports.entry(name).or_default() {
                if later
                    .get(&(table.feed.clone(), table.table))
                    .is_some_and(|epoch| *epoch > table.epoch)
                {
                    table.state = OwnershipState::Moved;
                }
            }
        }
        self.resolve_owners();
    }
}
