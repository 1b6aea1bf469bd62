//! What writers of a table see of its cut-over: one-row requests to the tables that are moving,
//! sent at a steady rate through every router, whether or not those before were answered.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use pgbraid_proto::v1::{self, ingest_client::IngestClient, value::Kind, write_request::Form};
use pgbraid_shardmap::hash;
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tokio_postgres::Client;
use tokio_stream::wrappers::ReceiverStream;

use crate::scenarios::fixture::{FEED, Fleet, Router};

/// Between two probes of a table at a router.
const EVERY: Duration = Duration::from_millis(5);
/// How often it is asked which tables are moving.
const LOOK: Duration = Duration::from_millis(50);
/// Keys of a table. A key that is written again before its last write is done would wait for it.
const KEYS: usize = 512;
/// Beyond those of the load.
const FIRST_KEY: i64 = 1 << 40;
/// Of a stream; beyond that probes are left out.
const IN_FLIGHT: usize = 900;

/// Tables that are on their way, and not fenced yet or being cut over.
const MOVING: &str = "select tbl from pgbraid.move where outcome is null \
     and phase in ('publish', 'subscribe', 'copy', 'catch up')";

/// A row, and when it was sent and acked: µs since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    table: u32,
    sent: u64,
    acked: u64,
}

impl Probe {
    pub fn latency(self) -> Duration {
        Duration::from_micros(self.acked.saturating_sub(self.sent))
    }
}

/// Writes until it is told to end.
pub struct Prober {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<Vec<Probe>>>,
}

impl Prober {
    pub async fn start(fleet: &Fleet, routers: &[Router], tables: u32) -> Result<Self> {
        let (stop, moving) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let keys = Arc::new(keys(tables));
        let mut tasks = JoinSet::new();
        let home = fleet.cluster().connect(0, false, "pgbraid").await?;
        tasks.spawn(watch(home, Arc::clone(&moving), Arc::clone(&stop)));
        for router in routers {
            let client = IngestClient::connect(router.grpc.clone()).await?;
            let (moving, stop) = (Arc::clone(&moving), Arc::clone(&stop));
            tasks.spawn(probe(client, Arc::clone(&keys), moving, stop));
        }
        Ok(Self { stop, tasks })
    }

    /// All probes, once each is acked.
    pub async fn finish(mut self) -> Result<Vec<Probe>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(done) = self.tasks.join_next().await {
            all.extend(done?.context("probing tables that move")?);
        }
        Ok(all)
    }
}

/// How long the writers of a table waited that had sent before a moment and were acked after it.
pub fn pause_at(probes: &[Probe], table: u32, at: u64) -> Option<Duration> {
    let waited = probes
        .iter()
        .filter(|probe| probe.table == table && probe.sent <= at && probe.acked >= at);
    waited.map(|probe| probe.latency()).max()
}

/// Some keys of each table.
fn keys(tables: u32) -> HashMap<u32, Vec<i64>> {
    let mut keys: HashMap<u32, Vec<i64>> = HashMap::new();
    let (mut full, mut key) = (0, FIRST_KEY);
    while full < tables {
        let of = keys
            .entry(hash::table_of(hash::int8(key), tables).index())
            .or_default();
        if of.len() < KEYS {
            of.push(key);
            full += u32::from(of.len() == KEYS);
        }
        key += 1;
    }
    keys
}

type Moving = Arc<Mutex<Vec<u32>>>;

async fn watch(home: Client, moving: Moving, stop: Arc<AtomicBool>) -> Result<Vec<Probe>> {
    let look = home.prepare(MOVING).await?;
    while !stop.load(Ordering::Relaxed) {
        let rows = home.query(&look, &[]).await?;
        let tables = rows.iter().map(|row| row.get::<_, i32>(0) as u32);
        *moving.lock().unwrap_or_else(PoisonError::into_inner) = tables.collect();
        tokio::time::sleep(LOOK).await;
    }
    Ok(Vec::new())
}

async fn probe(
    mut client: IngestClient<tonic::transport::Channel>,
    keys: Arc<HashMap<u32, Vec<i64>>>,
    moving: Moving,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Probe>> {
    let (send, requests) = mpsc::channel(IN_FLIGHT);
    let answers = client.write_stream(ReceiverStream::new(requests)).await?;
    let mut answers = answers.into_inner();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut number, mut round) = (0_u64, 0_usize);
    let mut waiting: HashMap<u64, (u32, u64)> = HashMap::new();
    let mut done = Vec::new();
    while !stop.load(Ordering::Relaxed) || !waiting.is_empty() {
        tokio::select! {
            _ = tick.tick() => {
                if stop.load(Ordering::Relaxed) {
                    continue;
                }
                round += 1;
                let tables = moving.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for table in tables {
                    let Some(key) = keys.get(&table).and_then(|keys| keys.get(round % keys.len()))
                    else { continue };
                    if waiting.len() >= IN_FLIGHT {
                        break;
                    }
                    number += 1;
                    waiting.insert(number, (table, now()));
                    send.send(request(number, *key, round as i64)).await?;
                }
            }
            answer = answers.message() => {
                let answer = answer?.context("the stream has ended")?;
                if answer.rows_committed != 1 {
                    bail!("a probe was refused: {answer:?}");
                }
                let (table, sent) = waiting.remove(&answer.sequence).context("no such probe")?;
                done.push(Probe { table, sent, acked: now() });
            }
        }
    }
    Ok(done)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

fn request(sequence: u64, key: i64, value: i64) -> v1::WriteRequest {
    let int = |int| v1::Value {
        kind: Some(Kind::Int(int)),
    };
    let row = v1::Row {
        key: Some(int(key)),
        values: vec![int(value)],
        ..Default::default()
    };
    v1::WriteRequest {
        sequence,
        feed: FEED.into(),
        form: Some(Form::Rows(v1::RowBatch {
            columns: vec!["c3".into()],
            rows: vec![row],
        })),
        timeout: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_what_those_in_flight_waited() {
        let probe = |table, sent, acked| Probe { table, sent, acked };
        let probes = [
            probe(1, 0, 90),
            probe(1, 50, 130),
            probe(1, 95, 135),
            probe(1, 101, 900),
            probe(2, 0, 500),
        ];
        let ms = Duration::from_micros;
        assert_eq!(pause_at(&probes, 1, 100), Some(ms(80)));
        assert_eq!(pause_at(&probes, 1, 140), Some(ms(799)));
        assert_eq!(pause_at(&probes, 3, 100), None);
    }

    #[test]
    fn each_table_has_keys_of_its_own() {
        let keys = keys(8);
        assert_eq!(keys.len(), 8);
        for (table, keys) in keys {
            assert_eq!(keys.len(), KEYS);
            let all = keys.iter().map(|key| hash::table_of(hash::int8(*key), 8));
            assert!(all.into_iter().all(|of| of.index() == table));
        }
    }
}
