//! The settings of a hub.

use std::time::Duration;

/// The settings of a [`Hub`](crate::Hub). Zeros are taken as the least that works.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// An instance is read, and its listening connection checked, at least this often: what a lost
    /// notification can cost.
    pub heartbeat: Duration,
    /// The longest wait before the first attempt to reconnect; it doubles with each attempt. The
    /// wait itself is random, from zero up (full jitter).
    pub reconnect_min: Duration,
    /// Where it stops to double.
    pub reconnect_max: Duration,
    /// The longest an instance may take to answer one call.
    pub call_timeout: Duration,
    /// Alerts kept in memory per instance. Keep it well above `read_batch`.
    pub ring_alerts: usize,
    /// Bytes of alerts kept in memory per instance; the same again for plain channels.
    pub ring_bytes: usize,
    /// The most alerts one read returns: also what a subscriber that catches up holds in memory.
    pub read_batch: u32,
    /// Reads of subscribers that catch up, at once, over all instances; one instance gets at most
    /// a quarter of them, so that a slow one leaves room for the others.
    pub catchup_reads: usize,
    /// Subscribers at once.
    pub max_subscribers: usize,
    /// How many transactions before its oldest running one a cursor is taken back when a standby
    /// was promoted: more than a standby may lag behind.
    pub rewind_xids: u64,
    /// The plain channels to listen on.
    pub channels: Vec<String>,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            reconnect_min: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(10),
            call_timeout: Duration::from_secs(10),
            ring_alerts: 8192,
            ring_bytes: 4 << 20,
            read_batch: 1000,
            catchup_reads: 8,
            max_subscribers: 1000,
            rewind_xids: 100_000,
            channels: Vec::new(),
        }
    }
}

impl HubConfig {
    /// The settings without zeros that would stand everything still.
    pub(crate) fn checked(mut self) -> Self {
        const LEAST: Duration = Duration::from_millis(1);
        self.heartbeat = self.heartbeat.max(LEAST);
        self.reconnect_min = self.reconnect_min.max(LEAST);
        self.reconnect_max = self.reconnect_max.max(self.reconnect_min);
        self.call_timeout = self.call_timeout.max(LEAST);
        self.read_batch = self.read_batch.max(1);
        self.catchup_reads = self.catchup_reads.max(1);
        self
    }
}
