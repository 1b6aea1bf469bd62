//! A producer in the background of a test, through deaths of instances and routers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{Acked, Cluster, Layout, Producer, Router, Writer, wait::until};

/// Leaves the machine to whoever is killed and moved.
const PACE: Duration = Duration::from_millis(10);

/// A producer that writes its keys until the end.
pub struct Load {
    stop: Arc<AtomicBool>,
    acked: Acked,
    breaks: Arc<AtomicU64>,
    router: Arc<Mutex<Arc<Router>>>,
    task: JoinHandle<Producer>,
}

impl Load {
    /// Writes `c1` of the first keys of the feed `feed`.
    pub async fn start(cluster: &Cluster, keys: i64, timeout: Duration) -> Self {
        let router = tokio::task::block_in_place(|| cluster.router());
        let layout = Layout::of(cluster, "feed").await;
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Acked::new(layout, cluster.instances());
        let breaks = Arc::new(AtomicU64::new(0));
        let router = Arc::new(Mutex::new(Arc::new(router)));
        let (stopping, counting) = (stop.clone(), acked.clone());
        let (broken, current) = (breaks.clone(), router.clone());
        let task = tokio::spawn(async move {
            let mut producer = Producer::new("c1", (0..keys).collect());
            producer.pace = PACE;
            loop {
                // Held while the router is killed, until there is another.
                let router = current.lock().await.clone();
                let writer = Writer::open(&router).await;
                let run = producer.run(writer, timeout, &stopping, &counting).await;
                if run.is_ok() {
                    return producer;
                }
                broken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let load = Self {
            stop,
            acked,
            breaks,
            router,
            task,
        };
        load.goes_on("at the start").await;
        load
    }

    /// The router that it writes to.
    pub async fn router(&self) -> Arc<Router> {
        self.router.lock().await.clone()
    }

    /// Kills the router with -9, and starts another.
    pub async fn kill_router(&self, cluster: &Cluster) {
        let mut router = self.router.lock().await;
        router.signal(Signal::SIGKILL);
        *router = Arc::new(tokio::task::block_in_place(|| cluster.router()));
    }

    /// Streams that broke.
    pub fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Relaxed)
    }

    /// Rows acked, by the instance that owned them at the start.
    pub fn acked(&self) -> &Acked {
        &self.acked
    }

    fn count(&self) -> u64 {
        let instances = 0..self.acked.instances();
        instances.map(|instance| self.acked.of(instance)).sum()
    }

    /// Rows go on being acked: each key once, about.
    ///
    /// # Panics
    /// If they do not.
    pub async fn goes_on(&self, when: &str) {
        let before = self.count();
        until(&format!("rows to be acked {when}"), || async {
            (self.count() > before + 512).then_some(())
        })
        .await;
    }

    /// Ends it. What was not acked by then is not sent again.
    ///
    /// # Panics
    /// If a good row was refused for ever.
    pub async fn stop(self) -> Producer {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the producer ends")
    }

    /// Ends it, and sends again what was not acked: then each key's last acked value is in its one
    /// place. Returns how many rows had been refused, by reason.
    ///
    /// # Panics
    /// If that is not so.
    pub async fn check(self, cluster: &Cluster) -> HashMap<String, u64> {
        let (router, acked) = (self.router().await, self.acked.clone());
        let mut producer = self.stop().await;
        let refused = producer.refused.clone();
        let finished = producer.finish(&router, &acked).await;
        finished.expect("the stream goes on");
        let layout = Layout::of(cluster, "feed").await;
        let rows = cluster.rows_everywhere("c1").await;
        assert_eq!(rows.len(), producer.keys.len(), "no other keys");
        for (key, acked) in producer.keys.iter().zip(&producer.acked) {
            let expected = vec![(layout.owner(*key), acked.to_string())];
            assert_eq!(rows[key], expected, "key {key}");
        }
        refused
    }
}
