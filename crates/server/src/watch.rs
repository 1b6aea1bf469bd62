//! Reloads the shard map when its file changes, or on SIGHUP.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use metrics::{counter, gauge};
use notify::{RecursiveMode, Watcher};
use pgbraid_alerts::Source;
use pgbraid_config::ShardMap;
use pgbraid_ingest::Sink;
use pgbraid_shardmap::InstanceName;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::{
    fleet,
    node::Node,
    publish::publish,
    state::{Shared, Topology},
};

/// Watches the folder of a file: editors and ConfigMaps replace files and links rather than write
/// into them. The watcher lives as long as the value returned.
pub(crate) fn watch(path: &Path, changed: Arc<Notify>) -> notify::Result<impl Watcher + use<>> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    })?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Wakes the follower when the map was changed; several events become one reload.
pub(crate) async fn reloader(shared: Arc<Shared>) {
    let mut draining = shared.draining.subscribe();
    loop {
        tokio::select! {
            () = shared.reload.notified() => {}
            _ = draining.wait_for(|draining| *draining) => return,
        }
        // An editor writes in several steps.
        tokio::time::sleep(Duration::from_millis(50)).await;
        shared.refresh.notify_one();
    }
}

/// Reads the map again if it means something else than the one in force. Runs in the follower, so
/// that nothing but news of owners changes the topology meanwhile.
pub(crate) fn reload_if_asked(shared: &Shared) {
    let before = shared.topology.load_full();
    let loaded = ShardMap::load(&shared.map_path)
        .and_then(|map| shared.config.check_map(&map).map(|()| map))
        .map_err(|error| error.to_string())
        .and_then(|map| apply(shared, &before, map));
    match loaded {
        Ok(None) => {
            let cleared = shared.map_error.swap(Arc::new(None));
            if cleared.is_some() {
                info!("the shard map is as it was again");
            }
            gauge!("pgbraid_map_reload_failed").set(0.0);
        }
        Ok(Some(topology)) => {
            info!(
                fingerprint = topology.map.fingerprint,
                instances = topology.map.instances.len(),
                "a new shard map is in force"
            );
            shared.map_error.store(Arc::new(None));
            counter!("pgbraid_map_reloads_total", "result" => "applied").increment(1);
            gauge!("pgbraid_map_reload_failed").set(0.0);
            crate::metrics::map_info(&before.map.fingerprint, &topology.map.fingerprint);
            publish(shared, topology);
            shared.map_changed.notify_one();
            shared.refresh.notify_one();
        }
        Err(message) => {
            let known = shared.map_error.swap(Arc::new(Some(message.clone())));
            if known.as_deref() != Some(message.as_str()) {
                error!("the shard map was refused, the old one stays in force:\n{message}");
                counter!("pgbraid_map_reloads_total", "result" => "refused").increment(1);
            }
            gauge!("pgbraid_map_reload_failed").set(1.0);
        }
    }
}

fn apply(shared: &Shared, before: &Topology, map: ShardMap) -> Result<Option<Topology>, String> {
    if map.fingerprint == before.map.fingerprint {
        return Ok(None);
    }
    for (feed, entry) in &before.map.feeds {
        if let Some(now) = map.feeds.get(feed)
            && now.tables != entry.tables
        {
            return Err(format!(
                "feed {feed} has {} tables, which never changes: the file says {}; put {} back",
                entry.tables, now.tables, entry.tables
            ));
        }
    }
    for (name, owned) in &before.reports {
        let owned = owned
            .iter()
            .filter(|table| table.state == pgbraid_shardmap::OwnershipState::Owned)
            .count();
        if owned > 0 && !map.instances.contains_key(name) {
            return Err(format!(
                "{name} is not in the file any more, but owns {owned} tables: \
                 move them away before it is taken out"
            ));
        }
    }
    let map = Arc::new(map);
    let password = shared
        .config
        .postgres
        .password()
        .map_err(|error| error.to_string())?;
    let mut nodes: BTreeMap<InstanceName, Arc<Node>> = BTreeMap::new();
    let mut changed = Vec::new();
    for (name, spec) in &map.instances {
        let known = before.nodes.get(name);
        if let Some(node) = known
            && before
                .map
                .instances
                .get(name)
                .is_some_and(|old| old.hosts == spec.hosts && old.dbname == spec.dbname)
        {
            nodes.insert(*name, node.clone());
            continue;
        }
        let instance = fleet::instance(&shared.config, &map, *name, password.as_deref())
            .map_err(|error| error.to_string())?;
        instance.expect_cluster(shared.cluster);
        match known {
            Some(node) => {
                changed.push((node.clone(), instance));
                nodes.insert(*name, node.clone());
            }
            None => {
                nodes.insert(*name, Node::new(instance));
            }
        }
    }
    for (node, instance) in changed {
        info!(instance = %node.name, address = instance.address(), "is reached at another address now");
        node.instance.store(instance);
    }
    for (name, node) in &nodes {
        if !before.nodes.contains_key(name) {
            let sink: Arc<dyn Sink> = node.clone();
            shared
                .ingest
                .add_instance(sink, shared.config.postgres.writers as usize);
        }
    }
    for name in before.nodes.keys().filter(|name| !nodes.contains_key(name)) {
        warn!(instance = %name, "is not in the shard map any more");
        shared.ingest.remove_instance(*name);
    }
    let sources = nodes
        .values()
        .map(|node| node.clone() as Arc<dyn Source>)
        .collect();
    shared.hub.set_sources(sources);
    let mut topology = before.clone();
    topology.reports.retain(|name, _| nodes.contains_key(name));
    topology.rules.retain(|name, _| nodes.contains_key(name));
    topology.outdated.retain(|name| nodes.contains_key(name));
    topology.groups.retain(|name, _| nodes.contains_key(name));
    topology
        .unreachable
        .retain(|name, _| nodes.contains_key(name));
    topology
        .schemas
        .retain(|feed, _| map.feeds.contains_key(feed));
    topology.map = map;
    topology.nodes = nodes;
    topology.resolve_owners();
    Ok(Some(topology))
}
