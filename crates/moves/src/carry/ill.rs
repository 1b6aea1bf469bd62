//! Tells of a copy that does not get on, and gives it up in the end.

use std::time::Duration;

use pgbraid_instance::TargetSeen;
use tokio::time::{Instant, timeout};

use super::{Carry, Told, bounded};
use crate::{
    Happening, MoveError,
    health::{Ailment, difference},
    settings::Site,
};

/// The same trouble is told again after this long.
const AGAIN: Duration = Duration::from_secs(30);
/// Longest that telling the home of an outage may take.
const NOTE: Duration = Duration::from_secs(2);

impl Carry<'_> {
    /// Looks at the target's workers while the table is copied, or followed.
    ///
    /// # Errors
    /// [`MoveError::Failing`] once that has gone on for longer than the settings' patience.
    pub(super) async fn mind(&mut self, at: &TargetSeen, from: &Site, to: &Site) -> Told<()> {
        let now = Instant::now();
        let arrived = (at.bytes, at.copied_bytes);
        let progress = std::mem::replace(&mut self.arrived, arrived) != arrived;
        let Some(ailment) = self.health.look(&at.workers, progress, now) else {
            self.trouble = None;
            self.told = None;
            return Ok(());
        };
        let again = self.told.is_some_and(|(told, when)| {
            told.same_kind(ailment) && now.duration_since(when) < AGAIN
        });
        if !again {
            self.told = Some((ailment, now));
            let why = self.diagnose(ailment, from, to).await;
            self.trouble = Some(why.clone());
            self.tell(Happening::Failing { why });
        }
        match self.health.ill_for(now) >= self.mover.settings.patience {
            true => Err(MoveError::Failing(self.trouble.clone().unwrap_or_default())),
            false => Ok(()),
        }
    }

    /// What is amiss, and what to do. What PostgreSQL says of it stands in the target's log only.
    async fn diagnose(&self, ailment: Ailment, from: &Site, to: &Site) -> String {
        let (target, name) = (self.record.target, self.of.name());
        let what = match ailment {
            Ailment::Disabled => {
                return format!(
                    "the subscription {name} on {target} is disabled: its log says why, if an \
                     error did it; then `alter subscription {name} enable` there"
                );
            }
            Ailment::NoWorker => format!(
                "no worker of logical replication is at work on {target}: all are taken, or they \
                 fail"
            ),
            Ailment::Failing(times) => format!(
                "the copy has failed on {target}, {times} {} so far",
                if times == 1 { "time" } else { "times" }
            ),
        };
        let columns = async {
            let here = bounded(&from.instance, from.instance.column_shapes(&self.of.schema));
            let there = bounded(&to.instance, to.instance.column_shapes(&self.of.schema));
            futures::future::try_join(here, there).await
        };
        let differ = match timeout(NOTE, columns).await {
            Ok(Ok((here, there))) => difference(&here, &there),
            _ => None,
        };
        match (differ, ailment) {
            (Some(differ), _) => format!("{what}: {differ}; apply the same DDL to both"),
            (None, Ailment::NoWorker) => format!(
                "{what}: see its log, max_logical_replication_workers and max_worker_processes"
            ),
            (None, _) => format!(
                "{what}: its log says why; mend that, or undo the move with `pgbraid map abort`"
            ),
        }
    }

    /// Tells the home of an outage, if the home is not what is out of reach.
    pub(super) async fn note_trouble(&self, why: &str) {
        let (Ok(home), Ok(())) = (self.mover.sites.home(), self.mover.check()) else {
            return;
        };
        let phase = match self.noted {
            "" => self.record.phase.as_str(),
            noted => noted,
        };
        let noted = home.note_move(self.record.id, phase, (0, 0), None, Some(why));
        let _ = timeout(NOTE, noted).await;
    }
}
