//! Writers that raise alerts as real ones do: short and long transactions, rollbacks, savepoints;
//! straight to the instances. No two-phase commit: PostgreSQL refuses to prepare what has notified.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;

use crate::{Cluster, Layout};

/// Writers in the background.
pub struct Churn {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Churn {
    /// Starts so many writers on each instance. Each row that is committed is new and has `c1 = 1`.
    pub async fn start(cluster: &Cluster, layout: &Layout, writers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicI64::new(0));
        let mut tasks = Vec::new();
        for instance in 0..usize::from(cluster.instances()) {
            for writer in 0..writers {
                let sql = cluster.sql(instance).await;
                let (stop, next, layout) = (stop.clone(), next.clone(), layout.clone());
                let mut rng = StdRng::seed_from_u64((instance * 100 + writer) as u64);
                tasks.push(tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let keys: Vec<i64> = (0..rng.random_range(1..6))
                            .map(|_| {
                                loop {
                                    let key = next.fetch_add(1, Ordering::Relaxed);
                                    if layout.owner(key) == instance {
                                        break key;
                                    }
                                }
                            })
                            .collect();
                        let text = transaction(&keys, &mut rng);
                        sql.batch_execute(&text).await.expect("it is written");
                        let pause = rng.random_range(0..10);
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                }));
            }
        }
        Self {
            stop,
            writers: tasks,
        }
    }

    /// Lets every writer end its transaction.
    ///
    /// # Panics
    /// If one of them has failed.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("a writer does not fail");
        }
    }
}

fn transaction(keys: &[i64], rng: &mut StdRng) -> String {
    let insert = |key: &i64| format!("insert into public.feed (id, c1) values ({key}, 1);");
    let pause = |rng: &mut StdRng| match rng.random_range(0..20) {
        0 => format!("select pg_sleep({});", rng.random_range(0.2..1.5)),
        _ => String::new(),
    };
    let mut sql = "begin;".to_owned();
    for key in keys {
        sql += &pause(rng);
        if rng.random_bool(0.2) {
            let end = ["release s;", "rollback to s;"][rng.random_range(0..2)];
            sql += &format!("savepoint s; {} {end}", insert(key));
        } else {
            sql += &insert(key);
        }
    }
    sql += &pause(rng);
    sql + if rng.random_bool(0.1) {
        "rollback"
    } else {
        "commit"
    }
}
