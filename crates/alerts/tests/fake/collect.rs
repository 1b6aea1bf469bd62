//! Takes the events of a subscription until nothing more comes.

use std::collections::BTreeSet;
use std::time::Duration;

use pgbraid_alerts::{Event, Hub, ReadState, Subscription, Token};
use pgbraid_shardmap::InstanceName;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub type Id = (InstanceName, i64);

/// What a subscriber got.
#[derive(Debug, Default)]
pub struct Record {
    /// Alerts, each with the token after it.
    pub alerts: Vec<(Id, Token)>,
    /// Everything else but heartbeats.
    pub others: Vec<Event>,
}

impl Record {
    pub fn ids(&self) -> Vec<Id> {
        self.alerts.iter().map(|(id, _)| *id).collect()
    }

    /// All ids; fails on a repeat.
    pub fn distinct(&self) -> BTreeSet<Id> {
        let mut distinct = BTreeSet::new();
        for id in self.ids() {
            assert!(distinct.insert(id), "{id:?} was delivered twice");
        }
        distinct
    }

    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.others.iter().filter(|event| wanted(event)).count()
    }
}

/// How a subscriber behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Its pause after each event.
    pub pause: Duration,
    /// Gives up on `next` after this time, again and again.
    pub patience: Option<Duration>,
}

/// Takes events until `done`, and then until three heartbeats in a row find every lane live.
pub async fn collect(
    mut subscription: Subscription,
    manner: Manner,
    mut done: watch::Receiver<bool>,
) -> Record {
    let mut record = Record::default();
    let mut quiet = 0;
    while quiet < 3 {
        let event = match manner.patience {
            None => subscription.next().await,
            Some(patience) => loop {
                if let Ok(event) = timeout(patience, subscription.next()).await {
                    break event;
                }
            },
        };
        match event {
            Event::Alert(alert) => {
                quiet = 0;
                let id = (alert.instance, alert.seq);
                record.alerts.push((id, subscription.token()));
            }
            Event::Heartbeat { token, progress } => {
                assert_eq!(Token::decode(&token), Ok(subscription.token()));
                let live = progress.iter().all(|part| part.state == ReadState::Live);
                let counts = live && *done.borrow_and_update();
                quiet = if counts { quiet + 1 } else { 0 };
            }
            other => record.others.push(other),
        }
        if !manner.pause.is_zero() {
            sleep(manner.pause).await;
        }
    }
    record
}

/// Waits until every instance is being read.
pub async fn all_readable(hub: &Hub) {
    while !hub.status().iter().all(|status| status.readable) {
        sleep(Duration::from_millis(5)).await;
    }
}

/// A `done` that is true already.
pub fn already() -> watch::Receiver<bool> {
    watch::Sender::new(true).subscribe()
}
