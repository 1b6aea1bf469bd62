//! Whether a copy gets on. PostgreSQL tries again for ever and tells why in the target's log only:
//! from outside a copy that fails looks like one that takes long.

use std::time::Duration;

use pgbraid_instance::{ColumnShape, Workers};
use tokio::time::Instant;

/// A worker that fails is started anew after `wal_retrieve_retry_interval`, by default 5 s: one that
/// is not there for longer than twice that does not come.
const NO_WORKER: Duration = Duration::from_secs(10);
/// Errors are told for so long after the last one.
const RECENT: Duration = Duration::from_secs(30);
/// Columns that are named.
const NAMED: usize = 3;

/// What is amiss with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ailment {
    /// The subscription was disabled, by somebody or by an error.
    Disabled,
    /// Its workers have failed so many times.
    Failing(u64),
    /// There is no worker.
    NoWorker,
}

impl Ailment {
    /// Whether it is of the same kind: counts go on.
    pub fn same_kind(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// What was seen of a copy's workers.
#[derive(Debug, Default)]
pub(crate) struct Health {
    errors: u64,
    failed_at: Option<Instant>,
    alone_since: Option<Instant>,
    ill_since: Option<Instant>,
}

impl Health {
    /// Looks at the workers. `progress`: something arrived since the last look.
    pub fn look(&mut self, workers: &Workers, progress: bool, now: Instant) -> Option<Ailment> {
        if workers.errors > self.errors {
            self.failed_at = Some(now);
        }
        self.errors = workers.errors;
        self.alone_since = match workers.applying && workers.copying || progress {
            true => None,
            false => self.alone_since.or(Some(now)),
        };
        let within = |since: Option<Instant>, time| {
            since.is_some_and(|since: Instant| now.duration_since(since) < time)
        };
        let ailment = if !workers.enabled {
            Some(Ailment::Disabled)
        } else if within(self.failed_at, RECENT) {
            Some(Ailment::Failing(workers.errors))
        } else if self.alone_since.is_some() && !within(self.alone_since, NO_WORKER) {
            Some(Ailment::NoWorker)
        } else {
            None
        };
        self.ill_since = ailment.and(self.ill_since.or(Some(now)));
        ailment
    }

    /// For how long something has been amiss without a break.
    pub fn ill_for(&self, now: Instant) -> Duration {
        self.ill_since
            .map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}

/// How the columns of source and target differ, if they do.
pub(crate) fn difference(source: &[ColumnShape], target: &[ColumnShape]) -> Option<String> {
    let list = |names: Vec<&str>| {
        let more = names.len().saturating_sub(NAMED);
        let named = names.iter().take(NAMED).copied();
        let named = named.collect::<Vec<_>>().join(", ");
        match more {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    };
    let find = |name: &str| target.iter().find(|column| column.name == name);
    let names = |pass: &dyn Fn(&ColumnShape) -> bool| {
        let columns = source.iter().filter(|column| pass(column));
        columns
            .map(|column| column.name.as_str())
            .collect::<Vec<_>>()
    };
    let missing = names(&|column| find(&column.name).is_none());
    let other = names(&|column| find(&column.name).is_some_and(|there| there != column));
    if !missing.is_empty() {
        return Some(format!("it lacks {}", list(missing)));
    }
    if !other.is_empty() {
        return Some(format!("{} differ there", list(other)));
    }
    let required = target
        .iter()
        .filter(|column| column.not_null && !source.iter().any(|known| known.name == column.name));
    let required: Vec<&str> = required.map(|column| column.name.as_str()).collect();
    (!required.is_empty()).then(|| format!("it asks for {}, which is not sent", list(required)))
}

#[cfg(test)]
mod tests;
