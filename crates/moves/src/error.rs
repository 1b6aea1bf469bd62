//! Why moves can't go on.

use std::time::Duration;

use pgbraid_instance::DbError;
use pgbraid_shardmap::{FeedName, InstanceName};
use thiserror::Error;

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum MoveError {
    /// An instance said no, or nothing.
    #[error("{instance}: {source}")]
    Instance {
        /// Which.
        instance: InstanceName,
        /// What.
        source: DbError,
    },
    /// An instance that the map does not have.
    #[error("{0} is not in the shard map: put it back, it takes part in a move")]
    NoInstance(InstanceName),
    /// A feed that the map does not have.
    #[error("feed {0} is not in the shard map")]
    NoFeed(FeedName),
    /// Another mover is at work.
    #[error(
        "{holder} carries out moves already, or changes the schema: stop moves with `pgbraid map pause`; if it was killed, its lease ends in {} s",
        .left.as_secs()
    )]
    Busy {
        /// Who.
        holder: String,
        /// For how long yet.
        left: Duration,
    },
    /// Another mover has taken over.
    #[error(
        "the home was out of reach for longer than the lease, or another mover has taken over: this one has stopped; run it again"
    )]
    LeaseLost,
    /// The copy fails again and again.
    #[error("{0}")]
    Failing(String),
    /// Somebody has asked to stop.
    #[error("stopped before it was done")]
    Stopped,
    /// The plan is not what is there any more.
    #[error("the plan is stale: {0}; make a new one with `pgbraid map plan`")]
    Stale(String),
    /// The plan can't be carried out as things are.
    #[error("the plan can't be carried out: {0}")]
    Impossible(String),
    /// Something is missing.
    #[error("{0}")]
    Refused(String),
}

impl MoveError {
    /// An error of an instance.
    pub(crate) fn of(instance: InstanceName, source: DbError) -> Self {
        Self::Instance { instance, source }
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Instance { source, .. } if source.is_transient())
    }
}
