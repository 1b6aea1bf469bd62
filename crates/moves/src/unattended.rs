//! What is done without a person: undo what is not wanted any more, then carry out what is.

use std::collections::BTreeMap;

use pgbraid_shardmap::FeedName;

use crate::{Applied, Job, Lease, Level, MoveError, Plan, Wish, draw, survey};

/// Reasons of a refusal that are told; the rest is counted.
const TOLD: usize = 3;

impl Job {
    /// Makes the instances as a map wants them, under a lease that is ours already. Nothing is ever
    /// dropped but copies that were not finished.
    ///
    /// # Errors
    /// If the plan can't be carried out ([`MoveError::Impossible`]), or the home can't be asked. It
    /// ends with [`MoveError::Stopped`], at the next safe point, once routers agree on another map.
    pub async fn bring_about(
        &self,
        lease: &Lease,
        wish: &Wish,
        tables: &BTreeMap<FeedName, u32>,
    ) -> Result<Applied, MoveError> {
        let places = wish.places();
        let agreed = lease.until_agreed_is_not(&places);
        tokio::pin!(agreed);
        let work = self.bring(lease, wish, tables);
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = &mut agreed => self.stop.cancel(),
        }
        work.await?;
        Err(MoveError::Stopped)
    }

    async fn bring(
        &self,
        lease: &Lease,
        wish: &Wish,
        tables: &BTreeMap<FeedName, u32>,
    ) -> Result<Applied, MoveError> {
        let mut seen = survey(&self.sites, tables).await?;
        let wanted = |record: &pgbraid_instance::MoveRecord| {
            wish.of(&record.feed, record.table) == Some(record.target)
        };
        let unwanted: Vec<_> = seen
            .open
            .iter()
            .filter(|record| record.abort_requested || !wanted(record))
            .cloned()
            .collect();
        if !unwanted.is_empty() {
            let home = self.sites.home()?;
            for record in &unwanted {
                home.request_abort(record.id)
                    .await
                    .map_err(|error| MoveError::of(home.name(), error))?;
            }
            let undone = self.abort_under(lease, &unwanted).await?;
            if !undone.left.is_empty() {
                return Ok(Applied {
                    done: undone.finished,
                    aborted: undone.aborted,
                    left: undone.left,
                });
            }
            seen = survey(&self.sites, tables).await?;
        }
        let plan = draw(wish, &seen, &self.settings);
        if !plan.is_possible() {
            return Err(MoveError::Impossible(refusal(&plan)));
        }
        self.apply_under(lease, &plan).await
    }
}

/// What stands in a plan's way, in one line.
fn refusal(plan: &Plan) -> String {
    let errors = plan.findings.iter().filter(|one| one.level == Level::Error);
    let told: Vec<String> = errors
        .clone()
        .take(TOLD)
        .map(|one| match &one.instance {
            Some(instance) => format!("{instance}: {}", one.message),
            None => one.message.clone(),
        })
        .collect();
    let more = errors.count() - told.len();
    let told = told.join("; ");
    match more {
        0 => told,
        more => format!("{told}; and {more} more, see `pgbraid map plan`"),
    }
}
