//! Carries out a plan: under a lease, several moves at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use pgbraid_instance::{Instance, MoveOutcome, MoveRecord};
use pgbraid_shardmap::InstanceName;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    Event, Happening, Lease, MoveError, MoveSettings, Plan, Progress, Sites, Stop,
    carry::Carry,
    lease::{self, Pulse},
    plan::records,
};

/// With what moves are carried out.
#[derive(Clone)]
pub struct Job {
    /// The instances and feeds.
    pub sites: Sites,
    /// Limits and timings.
    pub settings: MoveSettings,
    /// Hears how far it is.
    pub progress: Arc<dyn Progress>,
    /// Cancelled: no step is begun any more. A cut-over is brought to its end, which is bounded.
    pub stop: Stop,
}

/// What all moves of one mover share.
pub(crate) struct Mover<'a> {
    pub job: &'a Job,
    pub term: i64,
    pulse: watch::Receiver<Pulse>,
}

impl std::ops::Deref for Mover<'_> {
    type Target = Job;

    fn deref(&self) -> &Job {
        self.job
    }
}

impl Mover<'_> {
    /// Whether to go on: the lease is ours, and nobody has asked to stop. Looked at before each step.
    pub fn check(&self) -> Result<(), MoveError> {
        match self.stop.is_cancelled() {
            true => Err(MoveError::Stopped),
            false => self.check_lease(),
        }
    }

    /// Whether the lease is ours.
    pub fn check_lease(&self) -> Result<(), MoveError> {
        lease::check(&self.pulse)
    }

    pub fn paused(&self) -> bool {
        self.pulse.borrow().paused
    }

    /// Sleeps, unless it is asked to stop.
    pub async fn rest(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.stop.cancelled()).await;
    }

    /// Gives an instance the home's rules, if it does not have them.
    pub async fn bring_rules(&self, to: &Instance) -> Result<(), MoveError> {
        let home = self.sites.home()?;
        if home.name() == to.name() {
            return Ok(());
        }
        let of_home = |error| MoveError::of(home.name(), error);
        let set = home.rules().await.map_err(of_home)?;
        let schemas = self
            .sites
            .schemas
            .iter()
            .map(|(feed, schema)| (feed.to_string(), schema.clone()))
            .collect();
        to.install_rules(&set, &schemas)
            .await
            .map_err(|error| MoveError::of(to.name(), error))?;
        Ok(())
    }
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// Tables that have a new owner.
    pub done: Vec<MoveRecord>,
    /// Moves that were undone.
    pub aborted: Vec<MoveRecord>,
    /// Moves that stay as they are, and why. The next `apply` goes on with them.
    pub left: Vec<(MoveRecord, String)>,
}

impl Job {
    /// Carries out a plan, and moves that were interrupted before. Stops no move halfway: one that
    /// can't go on stays as it is, and the others go on. Routers that move tables by themselves agree
    /// on `places` from then on, the name of what the plan wants.
    ///
    /// # Errors
    /// If another mover is at work, the plan is stale, or the home can't be asked.
    pub async fn apply(
        &self,
        plan: &Plan,
        places: &str,
        holder: &str,
    ) -> Result<Applied, MoveError> {
        let lease = self.lease(holder).await?;
        let home = self.sites.home()?;
        let applied = match home.agree(places, holder, lease.term()).await {
            Ok(true) => self.apply_under(&lease, plan).await,
            Ok(false) => Err(MoveError::LeaseLost),
            Err(error) => Err(MoveError::of(home.name(), error)),
        };
        lease.release().await;
        applied
    }

    /// Takes the lease.
    ///
    /// # Errors
    /// [`MoveError::Busy`] if another has it.
    pub async fn lease(&self, holder: &str) -> Result<Lease, MoveError> {
        let home = &self.sites.site(self.sites.home)?.instance;
        Lease::take(home, holder, self.settings.lease).await
    }

    fn mover(&self, lease: &Lease) -> Mover<'_> {
        Mover {
            job: self,
            term: lease.term(),
            pulse: lease.pulse(),
        }
    }

    /// The same as [`Self::apply`], under a lease that is ours already.
    ///
    /// # Errors
    /// If the plan is stale, or the home can't be asked.
    pub async fn apply_under(&self, lease: &Lease, plan: &Plan) -> Result<Applied, MoveError> {
        let home = self.sites.home()?;
        let mut queue = VecDeque::new();
        // Moves that were begun come first.
        for wanted in records(plan)? {
            let claimed = home
                .claim_move(&wanted)
                .await
                .map_err(|error| MoveError::of(home.name(), error))?;
            if (claimed.source, claimed.target) != (wanted.source, wanted.target) {
                return Err(MoveError::Stale(format!(
                    "{} of feed {} is being moved from {} to {}",
                    claimed.table, claimed.feed, claimed.source, claimed.target
                )));
            }
            queue.push_back(claimed);
        }
        self.progress.point("claimed");
        Ok(carry_all(&self.mover(lease), queue).await)
    }
}

/// As many at a time as the settings say.
async fn carry_all(mover: &Mover<'_>, mut queue: VecDeque<MoveRecord>) -> Applied {
    let mut applied = Applied::default();
    let mut busy: BTreeMap<InstanceName, usize> = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    let started = Instant::now();
    let mut moved: u64 = 0;
    loop {
        if let Err(error) = mover.check() {
            let why = error.to_string();
            applied
                .left
                .extend(queue.drain(..).map(|record| (record, why.clone())));
        }
        let rate = mover.settings.bytes_per_second.filter(|rate| *rate > 0);
        let early = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(moved as f64 / rate as f64).saturating_sub(started.elapsed())
        });
        let per_instance = mover.settings.per_instance.max(1);
        let fits = |record: &MoveRecord| {
            let of = |name| busy.get(name).copied().unwrap_or(0);
            of(&record.source) < per_instance && of(&record.target) < per_instance
        };
        let may_start = running.len() < mover.settings.at_once.max(1)
            && early.is_zero()
            && (!mover.paused() || running.is_empty());
        let next = may_start
            .then(|| queue.iter().position(fits))
            .flatten()
            .and_then(|at| queue.remove(at));
        if let Some(record) = next {
            *busy.entry(record.source).or_default() += 1;
            *busy.entry(record.target).or_default() += 1;
            running.push(async move {
                let carried = match Carry::new(mover, record.clone()) {
                    Ok(carry) => carry.run().await,
                    Err(error) => Err(error),
                };
                (record, carried)
            });
            continue;
        }
        if running.is_empty() {
            if queue.is_empty() {
                return applied;
            }
            mover.rest(early.max(Duration::from_millis(10))).await;
            continue;
        }
        let finished = tokio::select! {
            finished = running.next() => finished,
            () = sleep(early), if !early.is_zero() => None,
        };
        let Some((record, carried)) = finished else {
            continue;
        };
        for name in [record.source, record.target] {
            if let Some(count) = busy.get_mut(&name) {
                *count -= 1;
            }
        }
        match carried {
            Ok(MoveOutcome::Done) => {
                moved += record.bytes.max(size_now(mover, &record).await);
                applied.done.push(record);
            }
            Ok(MoveOutcome::Aborted) => applied.aborted.push(record),
            Err(error) => applied.left.push((record, error.to_string())),
        }
    }
}

async fn size_now(mover: &Mover<'_>, record: &MoveRecord) -> u64 {
    if mover.settings.bytes_per_second.is_none() {
        return 0;
    }
    let (Ok(schema), Ok(site)) = (
        mover.sites.schema(&record.feed),
        mover.sites.site(record.target),
    ) else {
        return 0;
    };
    let sizes = site.instance.table_sizes(schema).await.unwrap_or_default();
    let of_table = sizes.iter().find(|size| size.table == record.table);
    of_table.map_or(0, |size| size.bytes)
}

/// What became of an abort.
#[derive(Debug, Default)]
pub struct Abort {
    /// Moves that were undone.
    pub aborted: Vec<MoveRecord>,
    /// Moves that were decided already, and are finished.
    pub finished: Vec<MoveRecord>,
    /// Moves that stay, and why.
    pub left: Vec<(MoveRecord, String)>,
}

impl Job {
    /// Undoes moves that are under way: by itself, or, if a mover is at work, by telling it. Routers
    /// make no moves by themselves then, until a map is applied or edited.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn abort(&self, chosen: &[MoveRecord], holder: &str) -> Result<Abort, MoveError> {
        let home = self.sites.home()?;
        let of_home = |error| MoveError::of(home.name(), error);
        if !chosen.is_empty() {
            home.agree_on_nothing().await.map_err(of_home)?;
        }
        for record in chosen {
            home.request_abort(record.id).await.map_err(of_home)?;
            self.progress.event(Event {
                record: record.clone(),
                what: Happening::Started,
            });
        }
        let lease = loop {
            match self.lease(holder).await {
                Ok(lease) => break lease,
                Err(MoveError::Busy { .. }) if !self.stop.is_cancelled() => {}
                Err(error) => return Err(error),
            }
            // The mover at work undoes them; if it dies, its lease ends.
            let open = home.moves(0).await.map_err(of_home)?;
            if !chosen
                .iter()
                .any(|one| open.iter().any(|other| other.id == one.id))
            {
                return sorted_out(home, chosen).await;
            }
            sleep(self.settings.retry_min).await;
        };
        let undone = self.abort_under(&lease, chosen).await;
        lease.release().await;
        undone
    }

    /// Undoes moves that were asked to be undone, under a lease that is ours already.
    pub(crate) async fn abort_under(
        &self,
        lease: &Lease,
        chosen: &[MoveRecord],
    ) -> Result<Abort, MoveError> {
        let home = self.sites.home()?;
        let open = home
            .moves(0)
            .await
            .map_err(|error| MoveError::of(home.name(), error))?;
        let queue: VecDeque<MoveRecord> = open
            .into_iter()
            .filter(|record| chosen.iter().any(|one| one.id == record.id))
            .collect();
        let applied = carry_all(&self.mover(lease), queue).await;
        Ok(Abort {
            aborted: applied.aborted,
            finished: applied.done,
            left: applied.left,
        })
    }
}

async fn sorted_out(home: &Instance, chosen: &[MoveRecord]) -> Result<Abort, MoveError> {
    let all = home
        .moves(10_000)
        .await
        .map_err(|error| MoveError::of(home.name(), error))?;
    let mut result = Abort::default();
    for one in chosen {
        match all.iter().find(|other| other.id == one.id) {
            Some(found) if found.outcome == Some(MoveOutcome::Done) => {
                result.finished.push(found.clone());
            }
            _ => result.aborted.push(one.clone()),
        }
    }
    Ok(result)
}
