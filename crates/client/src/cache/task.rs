//! Takes in the events of the change stream, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Inner, count, key::KeyKind};
use crate::changes::{ChangeEvent, ChangeFollower};

/// Runs until the router refuses to be followed any more.
pub(super) async fn run(inner: Arc<Inner>, mut follower: ChangeFollower) {
    loop {
        match follower.next().await {
            Ok(event) => {
                apply(&inner, &event);
                if let Some(observer) = &inner.config.observer {
                    observer(&event);
                }
                inner.applied.send_modify(|applied| *applied += 1);
            }
            Err(error) => {
                tracing::error!(feed = inner.config.feed, %error, "the cache is not told of changes any more: every look-up reads the row");
                forget(&inner);
                inner.instances.end();
                inner.applied.send_modify(|applied| *applied += 1);
                return;
            }
        }
    }
}

fn apply(inner: &Inner, event: &ChangeEvent) {
    match event {
        ChangeEvent::Following(following) => {
            forget(inner);
            let ours = following
                .feeds
                .iter()
                .find(|one| one.feed == inner.config.feed);
            let kind = ours.and_then(|feed| KeyKind::named(&feed.key_type));
            inner.instances.set_kind(kind);
        }
        ChangeEvent::Changes(batch) => {
            for change in &batch.changes {
                let mut dropped = 0;
                for key in &change.keys {
                    dropped += u64::from(inner.store.invalidate(key));
                }
                let counter = &inner.counters.invalidated;
                counter.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        ChangeEvent::Reset(reset) => {
            count(&inner.counters.resets);
            // First not live, then dropped: what is read meanwhile is not stored.
            inner.instances.set_lost(&reset.instance);
            inner.store.drop_instance(&reset.instance);
        }
        ChangeEvent::Live(live) => inner.instances.set_live(&live.instance),
        ChangeEvent::Heartbeat(_) => inner.instances.set_named(),
        ChangeEvent::Disconnected { .. } => forget(inner),
    }
    if !matches!(event, ChangeEvent::Disconnected { .. }) {
        inner.instances.heard();
    }
}

fn forget(inner: &Inner) {
    count(&inner.counters.resets);
    inner.instances.forget();
    inner.store.clear();
}
