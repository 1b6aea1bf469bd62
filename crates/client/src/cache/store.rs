//! The rows, and the marks of those that are being read.
//!
//! Sharded by key. A key has a row, or a mark while somebody reads it, or nothing. A change takes
//! both away, so that a row is stored only under the mark that its read began with: the mark is the
//! proof that nothing was told of the key since.
//!
//! When it is full the rows that were not looked up since the last round go first (second chance).

use std::collections::VecDeque;
use std::collections::hash_map::{DefaultHasher, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::CachedRow;
use crate::error::ClientError;

const MAX_SHARDS: usize = 16;
/// What a row costs beside its text: its entries in the table and in the queue.
const ROW_BYTES: usize = 160;

/// The answer of a read that several wait for, once it is there.
pub(super) type Answer = watch::Receiver<Option<Result<CachedRow, ClientError>>>;

/// What a look-up finds.
pub(super) enum Found<'a> {
    Row(CachedRow),
    /// Somebody reads it, and nothing was told of it since.
    Reading(Answer),
    /// Nothing: whoever gets this is to read it.
    Mark(Mark<'a>),
}

pub(super) struct Store {
    shards: Vec<Mutex<Shard>>,
    max_rows: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Shard {
    rows: HashMap<Arc<str>, Row>,
    marks: HashMap<Arc<str>, Arc<Reading>>,
    /// In the order in which they may go; those whose number is not their row's have gone.
    queue: VecDeque<(Arc<str>, u64)>,
    /// The names of instances, each once.
    instances: Vec<Arc<str>>,
    next: u64,
    bytes: usize,
}

struct Row {
    row: CachedRow,
    instance: Arc<str>,
    number: u64,
    bytes: usize,
    used: bool,
}

type Reading = watch::Sender<Option<Result<CachedRow, ClientError>>>;

/// The right to store a key's row. Dropped without it, another look-up gets it.
pub(super) struct Mark<'a> {
    store: &'a Store,
    key: Arc<str>,
    reading: Arc<Reading>,
}

impl Store {
    pub(super) fn new(max_rows: usize, max_bytes: usize) -> Self {
        let shards = max_rows.clamp(1, MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            max_rows: max_rows / shards,
            max_bytes: max_bytes / shards,
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = hasher.finish() as usize % self.shards.len();
        lock(&self.shards[index])
    }

    pub(super) fn find(&self, key: &str) -> Found<'_> {
        let mut shard = self.shard(key);
        if let Some(row) = shard.rows.get_mut(key) {
            row.used = true;
            return Found::Row(row.row.clone());
        }
        if let Some(reading) = shard.marks.get(key) {
            return Found::Reading(reading.subscribe());
        }
        let key: Arc<str> = key.into();
        let reading = Arc::new(Reading::new(None));
        shard.marks.insert(key.clone(), reading.clone());
        Found::Mark(Mark {
            store: self,
            key,
            reading,
        })
    }

    /// The key was changed. Whether there was a row.
    pub(super) fn invalidate(&self, key: &str) -> bool {
        let mut shard = self.shard(key);
        shard.marks.remove(key);
        shard.remove(key)
    }

    /// Drops the rows of an instance, and all marks: nobody knows yet whose rows those will be.
    pub(super) fn drop_instance(&self, instance: &str) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.marks.clear();
            let mut freed = 0;
            shard.rows.retain(|_, row| {
                let keep = *row.instance != *instance;
                freed += if keep { 0 } else { row.bytes };
                keep
            });
            shard.bytes -= freed;
            shard.tidy();
        }
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *lock(shard) = Shard::default();
        }
    }

    /// Rows and bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(|shard| {
            let shard = lock(shard);
            (shard.rows.len(), shard.bytes)
        });
        sizes.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mark<'_> {
    /// Hands the row to those who wait for it, and stores it if the mark is still there and `may`
    /// says so. Whether it was stored.
    pub(super) fn store(self, row: CachedRow, instance: &str, may: impl FnOnce() -> bool) -> bool {
        let mut shard = self.store.shard(&self.key);
        let ours = |mark: &Arc<Reading>| Arc::ptr_eq(mark, &self.reading);
        let mut stored = false;
        if shard.marks.get(&self.key).is_some_and(ours) {
            shard.marks.remove(&self.key);
            // Under the lock: a RESET that comes now finds the row and drops it.
            if may() {
                stored = shard.insert(self.store, &self.key, row.clone(), instance);
            }
        }
        drop(shard);
        self.reading.send_replace(Some(Ok(row)));
        stored
    }

    /// Hands an error to those who wait.
    pub(super) fn fail(self, error: ClientError) {
        self.reading.send_replace(Some(Err(error)));
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut shard = self.store.shard(&self.key);
        let mark = shard.marks.get(&self.key);
        if mark.is_some_and(|mark| Arc::ptr_eq(mark, &self.reading)) {
            shard.marks.remove(&self.key);
        }
    }
}

impl Shard {
    fn remove(&mut self, key: &str) -> bool {
        let Some(row) = self.rows.remove(key) else {
            return false;
        };
        self.bytes -= row.bytes;
        self.tidy();
        true
    }

    fn insert(&mut self, store: &Store, key: &Arc<str>, row: CachedRow, instance: &str) -> bool {
        let text = row.as_ref().map_or(0, |row| row.len());
        let bytes = text + key.len() + ROW_BYTES;
        if bytes > store.max_bytes || store.max_rows == 0 {
            return false;
        }
        self.remove(key);
        while self.rows.len() >= store.max_rows || self.bytes + bytes > store.max_bytes {
            if !self.evict() {
                break;
            }
        }
        let known = self.instances.iter().find(|name| ***name == *instance);
        let instance = match known {
            Some(name) => name.clone(),
            None => {
                let name: Arc<str> = instance.into();
                self.instances.push(name.clone());
                name
            }
        };
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.queue.push_back((key.clone(), number));
        let row = Row {
            row,
            instance,
            number,
            bytes,
            used: false,
        };
        self.rows.insert(key.clone(), row);
        true
    }

    /// Goes on until one row has gone; false if there is none.
    fn evict(&mut self) -> bool {
        while let Some((key, number)) = self.queue.pop_front() {
            match self.rows.get_mut(&key) {
                Some(row) if row.number == number && row.used => {
                    row.used = false;
                    self.queue.push_back((key, number));
                }
                Some(row) if row.number == number => {
                    self.bytes -= row.bytes;
                    self.rows.remove(&key);
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    /// Keeps the queue from growing by rows that were dropped.
    fn tidy(&mut self) {
        if self.queue.len() > 2 * self.rows.len() + 64 {
            let rows = &self.rows;
            (self.queue)
                .retain(|(key, number)| rows.get(key).is_some_and(|row| row.number == *number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(store: &Store, key: &str, row: &str, instance: &str) -> bool {
        match store.find(key) {
            Found::Mark(mark) => mark.store(Some(row.into()), instance, || true),
            Found::Row(_) | Found::Reading(_) => panic!("{key} is there"),
        }
    }

    fn has(store: &Store, key: &str) -> bool {
        matches!(store.find(key), Found::Row(_))
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_stored() {
        let store = Store::new(100, 1 << 20);
        let Found::Mark(mark) = store.find("1") else {
            panic!("nothing is there yet")
        };
        assert!(matches!(store.find("1"), Found::Reading(_)));
        assert!(!store.invalidate("1"));
        // Whoever comes now must not wait for a read that began before the change.
        let Found::Mark(second) = store.find("1") else {
            panic!("the first mark is gone")
        };
        assert!(!mark.store(Some("old".into()), "db0", || true));
        assert!(second.store(Some("new".into()), "db0", || true));
        let Found::Row(Some(row)) = store.find("1") else {
            panic!("it is stored")
        };
        assert_eq!(&*row, "new");
        assert!(store.invalidate("1"));
        assert!(!has(&store, "1"));
    }

    #[test]
    fn a_reset_takes_rows_of_its_instance_and_all_marks() {
        let store = Store::new(100, 1 << 20);
        assert!(read(&store, "1", "a", "db0"));
        assert!(read(&store, "2", "b", "db1"));
        let Found::Mark(mark) = store.find("3") else {
            panic!("nothing is there yet")
        };
        store.drop_instance("db0");
        assert!(!has(&store, "1"));
        assert!(has(&store, "2"));
        assert!(!mark.store(Some("c".into()), "db1", || true));
        store.clear();
        assert_eq!(store.size(), (0, 0));
    }

    #[test]
    fn who_may_not_store_hands_on_all_the_same() {
        let store = Store::new(100, 1 << 20);
        let Found::Mark(mark) = store.find("1") else {
            panic!("nothing is there yet")
        };
        let Found::Reading(waiting) = store.find("1") else {
            panic!("it is being read")
        };
        assert!(!mark.store(Some("a".into()), "db0", || false));
        let answer = waiting.borrow().clone();
        assert_eq!(answer.unwrap().unwrap().as_deref(), Some("a"));
        assert!(!has(&store, "1"));
        // A read that was given up leaves no mark.
        drop(store.find("1"));
        assert!(matches!(store.find("1"), Found::Mark(_)));
    }

    #[test]
    fn rows_and_bytes_are_bounded_and_what_is_used_stays() {
        let store = Store::new(160, 1 << 20);
        assert!(read(&store, "hot", "x", "db0"));
        for number in 0..2000 {
            assert!(read(&store, &number.to_string(), "x", "db0"));
            assert!(has(&store, "hot"), "after {number}");
        }
        let (rows, bytes) = store.size();
        assert!(rows <= 160 && rows > 100, "{rows}");
        assert!(bytes <= 160 * (ROW_BYTES + 8), "{bytes}");
        let store = Store::new(1000, MAX_SHARDS * 3 * ROW_BYTES);
        for number in 0..2000 {
            assert!(read(&store, &number.to_string(), "x", "db0"));
        }
        assert!(store.size().1 <= MAX_SHARDS * 3 * ROW_BYTES);
        let huge = "x".repeat(4 * ROW_BYTES);
        assert!(!read(&store, "huge", &huge, "db0"));
    }

    #[test]
    fn rows_that_change_all_the_time_leave_nothing_behind() {
        let store = Store::new(100, 1 << 20);
        for _ in 0..10_000 {
            assert!(read(&store, "1", "a", "db0"));
            store.invalidate("1");
        }
        let queued: usize = store.shards.iter().map(|one| lock(one).queue.len()).sum();
        assert!(queued <= 64 * store.shards.len(), "{queued}");
        assert_eq!(store.size(), (0, 0));
    }
}
