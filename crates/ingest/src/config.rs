//! Limits and timings.

use std::time::Duration;

/// Limits and timings of ingestion.
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// Most rows in one batch of one table.
    pub batch_rows: usize,
    /// How long a row may wait for its table's batch to grow, while writers are busy.
    pub linger: Duration,
    /// Bytes queued and in flight, over all instances.
    pub queue_bytes: u64,
    /// Bytes queued and in flight for one instance.
    pub queue_bytes_per_instance: u64,
    /// First wait after an outage.
    pub retry_min: Duration,
    /// Longest wait after an outage.
    pub retry_max: Duration,
    /// An instance that has made no progress for this long takes no further rows.
    pub stall_after: Duration,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            batch_rows: 8000,
            linger: Duration::from_millis(20),
            queue_bytes: 512 << 20,
            queue_bytes_per_instance: 128 << 20,
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_secs(2),
            stall_after: Duration::from_secs(5),
        }
    }
}

/// A table with fewer rows than this is better written together with others, through the parent:
/// 64 rows of one table reach half the rate of 1000 mixed rows, 1000 of one table pass it.
pub(crate) const MIX_BELOW: usize = 256;

/// Most rows in a mixed batch. It occupies all its tables, so it is kept short.
pub(crate) const MIXED_ROWS: usize = 1000;

/// While a batch that is no larger than a mixed one is being written, fewer rows than this wait for
/// it to be back: they then share one commit with what comes until then.
pub(crate) const WORTH_A_WRITER: usize = 256;

/// Part of the linger limit that they wait at most.
pub(crate) const PATIENT_PART: u32 = 4;

/// Times a batch is tried again after deadlocks and lock timeouts before it goes back to its queue.
pub(crate) const RETRIES: u32 = 8;

/// Of a large batch, at most one row in so many is written by itself right behind it, because it
/// would have hidden another's value.
pub(crate) const FEW_LATER: usize = 8;
