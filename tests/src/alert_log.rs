//! A subscriber in the background, and what it must have seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use pgbraid_proto::v1::subscribe_response::Event;
use tokio::task::JoinHandle;

use crate::{Cluster, Subscriber, wait};

/// What a subscriber has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Times that each alert came, by instance and seq.
    pub alerts: BTreeMap<(String, i64), u32>,
    /// Instances that went down (false) and came up (true), in that order.
    pub health: Vec<(String, bool)>,
    /// Instances that were read again from an earlier point.
    pub rewound: Vec<String>,
    /// What was dropped before it was read: instance, and how many.
    pub dropped: Vec<(String, u64)>,
    /// The last token.
    pub token: String,
    /// Why the stream ended.
    pub ended: Option<String>,
}

/// A subscriber in the background.
pub struct AlertLog {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl AlertLog {
    /// Goes on with what was seen before.
    pub fn follow(mut subscriber: Subscriber, before: Seen) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            ended: None,
            ..before
        }));
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let event = subscriber.next().await;
                let mut seen = noted.lock().expect("no panic under this lock");
                match event {
                    Ok(Event::Alert(alert)) => {
                        *seen.alerts.entry((alert.instance, alert.seq)).or_default() += 1;
                    }
                    Ok(Event::InstanceStatus(status)) => {
                        seen.health.push((status.instance, status.readable));
                    }
                    Ok(Event::Rewound(rewound)) => seen.rewound.push(rewound.instance),
                    Ok(Event::Dropped(dropped)) => {
                        seen.dropped.push((dropped.instance, dropped.alerts));
                    }
                    Ok(_) => {}
                    Err(status) => {
                        seen.ended = Some(status.to_string());
                        return;
                    }
                }
                seen.token.clone_from(&subscriber.token);
            }
        });
        Self { seen, task }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no panic under this lock").clone()
    }

    /// Looks at what it has seen so far, without a copy.
    pub fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&self.seen.lock().expect("no panic under this lock"))
    }

    /// Waits until it has seen something.
    ///
    /// # Panics
    /// After the usual time.
    pub async fn until(&self, what: &str, ask: impl Fn(&Seen) -> bool) -> Seen {
        wait::until(what, || async { self.look(&ask).then(|| self.seen()) }).await
    }

    /// Waits until every alert that the instances hold was seen. Nothing must write meanwhile.
    ///
    /// # Panics
    /// If one is missing, was invented, or came twice without a word about it.
    pub async fn assert_complete(&self, cluster: &Cluster) -> usize {
        let raised = raised(cluster).await;
        let started = std::time::Instant::now();
        while self.look(|seen| seen.alerts.len()) < raised.len() && started.elapsed() < wait::LIMIT
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let seen = self.seen();
        let got: BTreeSet<_> = seen.alerts.keys().cloned().collect();
        let lost: Vec<_> = raised.difference(&got).take(10).collect();
        assert!(
            lost.is_empty(),
            "{} of {} alerts lost: {lost:?}; ended: {:?}",
            raised.difference(&got).count(),
            raised.len(),
            seen.ended
        );
        let invented: Vec<_> = got.difference(&raised).take(10).collect();
        assert!(
            invented.is_empty(),
            "alerts that no instance holds: {invented:?}"
        );
        let twice: Vec<_> = seen
            .alerts
            .iter()
            .filter(|((instance, _), times)| **times > 1 && !seen.rewound.contains(instance))
            .take(10)
            .collect();
        assert!(
            twice.is_empty(),
            "alerts that came more than once: {twice:?}"
        );
        raised.len()
    }
}

impl Drop for AlertLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The alerts that the instances hold.
///
/// # Panics
/// If an instance can't be asked.
pub async fn raised(cluster: &Cluster) -> BTreeSet<(String, i64)> {
    let mut raised = BTreeSet::new();
    for instance in 0..cluster.instances().into() {
        let name = cluster.postgres.instances()[instance].name().to_owned();
        let sql = cluster.sql(instance).await;
        let rows = sql.query("select seq from pgbraid.alert", &[]).await;
        let rows = rows.expect("the outbox can be read");
        raised.extend(rows.iter().map(|row| (name.clone(), row.get(0))));
    }
    raised
}
