//! The home's rules on all instances, and their triggers as this version makes them.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use pgbraid_instance::{DbError, DbErrorKind, RuleSet, Schemas};
use pgbraid_shardmap::InstanceName;
use tracing::{info, warn};

use super::SOON;
use crate::{
    node::{Node, within},
    state::Topology,
};

/// Longest that triggers may take, with their locks.
const INSTALL_LIMIT: Duration = Duration::from_secs(90);

impl Topology {
    /// Brings the rules of all reachable instances to the home's version.
    pub(super) async fn copy_rules(&mut self) {
        let Some(home) = self.nodes.get(&self.map.home) else {
            return;
        };
        let Some(version) = self.rules.get(&self.map.home).copied() else {
            return;
        };
        let behind: Vec<Arc<Node>> = self
            .nodes
            .values()
            .filter(|node| {
                self.rules
                    .get(&node.name)
                    .is_some_and(|have| *have < version)
                    && !self.unreachable.contains_key(&node.name)
            })
            .cloned()
            .collect();
        if behind.is_empty() {
            return;
        }
        let instance = home.instance.load_full();
        let set = match within(SOON * 10, home.name, instance.rules()).await {
            Ok(set) => set,
            Err(error) => {
                warn!("the home's rules can't be read: {error}");
                return;
            }
        };
        for (name, failed) in install(&set, &self.rule_schemas(), &behind).await {
            match failed {
                None => {
                    info!(instance = %name, "rules are now of version {}", set.version);
                    self.rules.insert(name, set.version);
                }
                Some(error) => warn!(instance = %name, "rules could not be installed: {error}"),
            }
        }
    }

    /// Makes triggers anew that a router or `migrate` of an older version has made in another way.
    /// Returns whether none are left.
    pub(super) async fn renew_triggers(&mut self) -> bool {
        let schemas = self.rule_schemas();
        if schemas.is_empty() {
            return self.outdated.is_empty();
        }
        let nodes = self.outdated.iter().filter_map(|name| self.nodes.get(name));
        let nodes = nodes.filter(|node| !self.unreachable.contains_key(&node.name));
        let renewed = join_all(nodes.map(|node| async {
            let instance = node.instance.load_full();
            let renewing = instance.try_renew_triggers(&schemas);
            (node.name, within(INSTALL_LIMIT, node.name, renewing).await)
        }))
        .await;
        for (name, renewed) in renewed {
            match renewed {
                Ok(_) => {
                    info!(instance = %name, "its rules' triggers are as this version makes them");
                    self.outdated.remove(&name);
                }
                Err(error) => {
                    warn!(instance = %name, "its rules' triggers stay as they were: {error}");
                }
            }
        }
        self.outdated.is_empty()
    }

    pub(crate) fn rule_schemas(&self) -> Schemas {
        self.schemas
            .iter()
            .map(|(feed, schema)| (feed.to_string(), schema.clone()))
            .collect()
    }
}

/// Installs rules on several instances; returns each with its error, if there was one.
pub(crate) async fn install(
    set: &RuleSet,
    schemas: &Schemas,
    nodes: &[Arc<Node>],
) -> Vec<(InstanceName, Option<DbError>)> {
    join_all(nodes.iter().map(|node| async {
        let instance = node.instance.load_full();
        let done = tokio::time::timeout(INSTALL_LIMIT, instance.install_rules(set, schemas)).await;
        let error = match done {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(DbError::new(DbErrorKind::Outage, "no answer")),
        };
        (node.name, error)
    }))
    .await
}
