//! A cache of rows that is kept in step with a feed by its change stream.
//!
//! What it holds is current as far as it has been told: a change that it is told of drops the row,
//! and the next look-up reads it from its owner. Two things keep it from holding what is old:
//!
//! - A read marks its key while it is under way ([`store`]). A change takes the mark away, and what
//!   was read under a mark that is gone is not stored: it may be from before the change.
//! - A row is stored only while its instance is *live* ([`live`]): while no change of it can go
//!   missing, and has been since the read began. RESET drops every row of its instance.
//!
//! So a look-up never returns a value older than the last change of its key that the cache had been
//! told of when the look-up began. It may be older than the last change that was committed, by what
//! the stream takes to deliver it: milliseconds, and at most [`CacheConfig::silence`] with a router
//! that has gone without a word, and the router's own limit (`alerts.heartbeat` and 5 s) with an
//! instance that has. It can't order rows of different keys, and does not see changes that no
//! trigger sees (`session_replication_role`, disabled triggers, detached partitions).

mod key;
mod live;
mod store;
mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgbraid_proto::v1::{self, column::Values};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::backoff::Backoff;
use crate::changes::{ChangeEvent, ChangeFollower, FollowOptions};
use crate::client::Client;
use crate::error::ClientError;

pub use key::CacheKey;
use live::Instances;
use store::{Found, Store};

/// Called with each event of the change stream after the cache has taken it in.
pub type Observer = Arc<dyn Fn(&ChangeEvent) + Send + Sync>;

/// What to cache, and how much of it.
#[derive(Clone)]
pub struct CacheConfig {
    /// The feed. It must tell of its changes (`changes = true` in the shard map).
    pub feed: String,
    /// The columns of the rows; none means all.
    pub columns: Vec<String>,
    /// The most rows held, those known not to be there among them.
    pub max_rows: usize,
    /// The most bytes of rows and keys held.
    pub max_bytes: usize,
    /// How often the router is to say how far it has heard.
    pub heartbeat: Duration,
    /// After so long without a word from the router nothing is served from the cache.
    pub silence: Duration,
    /// The longest that one read may take.
    pub read_timeout: Duration,
    /// Waits before connecting again.
    pub backoff: Backoff,
    /// Is told of every event.
    pub observer: Option<Observer>,
}

impl CacheConfig {
    /// The defaults for a feed: 100,000 rows, 64 MiB.
    pub fn new(feed: impl Into<String>) -> Self {
        Self {
            feed: feed.into(),
            columns: Vec::new(),
            max_rows: 100_000,
            max_bytes: 64 << 20,
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(5),
            read_timeout: Duration::from_secs(10),
            backoff: Backoff::default(),
            observer: None,
        }
    }
}

/// What the cache has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups answered from memory.
    pub hits: u64,
    /// Look-ups that read the row, or waited for another's read.
    pub misses: u64,
    /// Of these, the ones that did not look into the cache, because the stream was silent or no
    /// instance was live.
    pub bypassed: u64,
    /// Rows dropped because they changed.
    pub invalidated: u64,
    /// Rows that were read and not stored, because they changed meanwhile or their instance was
    /// not live.
    pub not_stored: u64,
    /// Times that an instance's rows, or all, were dropped.
    pub resets: u64,
    /// Rows held.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
    invalidated: AtomicU64,
    not_stored: AtomicU64,
    resets: AtomicU64,
}

struct Inner {
    client: Client,
    config: CacheConfig,
    store: Store,
    instances: Instances,
    counters: Counters,
    /// Counts the events taken in; closed when the follower has ended for good.
    applied: watch::Sender<u64>,
}

/// See the module. Clones share it; with the last one it ends.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    _task: Arc<Task>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A row as one JSON object; `None` if there is none with this key.
pub type CachedRow = Option<Arc<str>>;

impl Cache {
    /// Begins to follow the feed. Look-ups work at once; they are answered from memory once the
    /// stream is live ([`Cache::live`]).
    ///
    /// # Errors
    /// The router is not there, or the feed does not tell of its changes.
    pub async fn start(client: Client, config: CacheConfig) -> Result<Self, ClientError> {
        let options = FollowOptions {
            feeds: vec![config.feed.clone()],
            heartbeat: Some(config.heartbeat),
            silence: Some(config.silence),
            backoff: config.backoff,
            ..FollowOptions::default()
        };
        let follower = ChangeFollower::start(client.clone(), options).await?;
        let inner = Arc::new(Inner {
            store: Store::new(config.max_rows, config.max_bytes),
            client,
            config,
            instances: Instances::default(),
            counters: Counters::default(),
            applied: watch::Sender::new(0),
        });
        let task = tokio::spawn(task::run(inner.clone(), follower)).abort_handle();
        let _task = Arc::new(Task(task));
        Ok(Self { inner, _task })
    }

    /// Waits until every instance is live.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the router refuses to be followed any more.
    pub async fn live(&self) -> Result<(), ClientError> {
        let mut applied = self.inner.applied.subscribe();
        while !self.inner.instances.all_live(self.inner.config.silence) {
            applied.changed().await.map_err(|_| ClientError::Closed)?;
            if self.inner.instances.ended() {
                return Err(ClientError::Closed);
            }
        }
        Ok(())
    }

    /// A row, from memory if it is there, and otherwise from its owner.
    ///
    /// # Errors
    /// The key is not one of the feed's type, or the owner can't be read.
    pub async fn get(&self, key: impl Into<CacheKey>) -> Result<CachedRow, ClientError> {
        let inner = &self.inner;
        let key = key.into();
        let Some(kind) = inner.instances.kind(inner.config.silence) else {
            count(&inner.counters.misses);
            count(&inner.counters.bypassed);
            let (row, _) = inner.read(key.text()).await?;
            return Ok(row);
        };
        let key = key.canonical(kind)?;
        loop {
            match inner.store.find(&key) {
                Found::Row(row) => {
                    count(&inner.counters.hits);
                    return Ok(row);
                }
                Found::Reading(mut read) => {
                    // Begun before this look-up, and nothing was told of the key since.
                    if let Ok(answer) = read.wait_for(Option::is_some).await
                        && let Some(answer) = answer.as_ref()
                    {
                        count(&inner.counters.misses);
                        return answer.clone();
                    }
                    // It was given up: it is this one's turn.
                }
                Found::Mark(mark) => {
                    count(&inner.counters.misses);
                    let turn = inner.instances.turn();
                    let (row, instance) = match inner.read(key.clone()).await {
                        Ok(read) => read,
                        Err(error) => {
                            mark.fail(error.clone());
                            return Err(error);
                        }
                    };
                    let stored = mark.store(row.clone(), &instance, || {
                        inner.instances.live_since(&instance, turn)
                    });
                    if !stored {
                        count(&inner.counters.not_stored);
                    }
                    return Ok(row);
                }
            }
        }
    }

    /// What it has done so far.
    pub fn stats(&self) -> CacheStats {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (rows, bytes) = self.inner.store.size();
        CacheStats {
            hits: read(&counters.hits),
            misses: read(&counters.misses),
            bypassed: read(&counters.bypassed),
            invalidated: read(&counters.invalidated),
            not_stored: read(&counters.not_stored),
            resets: read(&counters.resets),
            rows: rows as u64,
            bytes: bytes as u64,
        }
    }
}

impl Inner {
    /// Reads a row and the name of the instance that owns it.
    async fn read(&self, key: String) -> Result<(CachedRow, String), ClientError> {
        let request = v1::GetRequest {
            feed: self.config.feed.clone(),
            keys: Some(v1::Column {
                values: Some(Values::Texts(v1::Texts { values: vec![key] })),
                ..v1::Column::default()
            }),
            columns: self.config.columns.clone(),
            format: v1::Format::Json.into(),
        };
        let mut rows = self.client.rows();
        let limit = self.config.read_timeout;
        let answer = tokio::time::timeout(limit, rows.get(request)).await;
        let answer = answer.map_err(|_| {
            let message = format!("the router has not answered within {limit:?}");
            ClientError::from(tonic::Status::unavailable(message))
        })??;
        let row = answer.into_inner().rows.into_iter().next();
        let row = row.ok_or_else(|| {
            ClientError::from(tonic::Status::internal("the router answered without a row"))
        })?;
        Ok((row.found.then(|| row.json.into()), row.instance))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
