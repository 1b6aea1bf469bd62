//! What a subscriber gets.

use std::sync::Arc;
use std::time::Duration;

use pgbraid_shardmap::InstanceName;

use crate::Alert;

/// One event of a subscription.
#[derive(Debug, Clone)]
pub enum Event {
    /// A row matched a rule, or has stopped to.
    Alert(Arc<Alert>),
    /// A message on a plain channel. Not durable.
    Notification {
        /// The instance it was sent on.
        instance: InstanceName,
        /// The channel.
        channel: Arc<str>,
        /// The message.
        payload: Arc<str>,
        /// The process id of the sending backend.
        pid: i32,
        /// When the router heard it: µs since the Unix epoch, by the router's clock.
        at_us: i64,
    },
    /// Messages on plain channels may have been lost here; or, with [`Start::Now`](crate::Start),
    /// alerts of an instance that was not reached until now.
    Gap {
        /// The instance.
        instance: InstanceName,
        /// What happened.
        reason: Arc<str>,
    },
    /// The instance cannot be read; what it raises meanwhile comes later. Once per outage.
    InstanceDown {
        /// The instance.
        instance: InstanceName,
        /// Why.
        reason: Arc<str>,
    },
    /// The instance can be read again.
    InstanceUp {
        /// The instance.
        instance: InstanceName,
    },
    /// The instance's history changed under the cursor; alerts from an earlier point are repeated.
    /// Drop repeats by (instance, seq).
    Rewound {
        /// The instance.
        instance: InstanceName,
        /// What changed.
        reason: Arc<str>,
    },
    /// Alerts that had not been delivered are not kept any more: they were dropped from the outbox.
    /// Once for each time that the subscriber had fallen so far behind.
    Dropped {
        /// The instance.
        instance: InstanceName,
        /// How many, at most.
        alerts: u64,
        /// All were raised before: µs since the Unix epoch, by the instance's clock.
        raised_until_us: i64,
        /// Why they were dropped.
        reason: Arc<str>,
    },
    /// Nothing new, and how far each instance was read.
    Heartbeat {
        /// The resume position.
        token: String,
        /// One entry per instance, in their order.
        progress: Vec<Progress>,
    },
}

/// How far one instance was read for one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The instance.
    pub instance: InstanceName,
    /// Whether it is being followed.
    pub state: ReadState,
    /// Everything committed before this time was handed on: µs since the Unix epoch, by the
    /// router's clock. None until the subscriber has caught up once.
    pub read_at_us: Option<i64>,
    /// How long ago that was.
    pub lag: Option<Duration>,
}

/// How an instance is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadState {
    /// New alerts arrive as they are committed.
    Live,
    /// Older alerts are being read, or the instance is being connected.
    CatchingUp,
    /// It cannot be read.
    Down,
}
