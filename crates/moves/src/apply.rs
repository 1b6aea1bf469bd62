//! Carries out a plan: under a lease, several moves at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use pgbraid_instance::{Instance, MoveOutcome, MoveRecord, TakenTerm};
use pgbraid_shardmap::InstanceName;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tracing::debug;

use crate::{
    Event, Happening, MoveError, MoveSettings, Plan, Progress, Sites, carry::Carry, plan::records,
};

/// What the heartbeat knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pulse {
    /// The lease is ours until then, at the least.
    until: Instant,
    paused: bool,
}

/// The lease of a mover, kept while it lives.
pub struct Lease {
    term: i64,
    home: Arc<Instance>,
    pulse: watch::Receiver<Pulse>,
    beating: JoinHandle<()>,
}

impl Lease {
    /// Takes the lease.
    ///
    /// # Errors
    /// [`MoveError::Busy`] if another mover has it.
    pub async fn take(
        sites: &Sites,
        holder: &str,
        settings: &MoveSettings,
    ) -> Result<Self, MoveError> {
        let name = sites.home;
        let home = sites.site(name)?.instance.clone();
        let lease = settings.lease;
        let asked = Instant::now();
        let taken = home
            .take_mover(holder, lease)
            .await
            .map_err(|error| MoveError::of(name, error))?;
        let term = match taken {
            TakenTerm::Ours(term) => term,
            TakenTerm::Held { holder, left } => return Err(MoveError::Busy { holder, left }),
        };
        let (send, pulse) = watch::channel(Pulse {
            until: asked + lease,
            paused: false,
        });
        let instance = home.clone();
        let beating = tokio::spawn(async move {
            loop {
                let asked = Instant::now();
                let renewed =
                    tokio::time::timeout(lease / 3, instance.renew_mover(term, lease)).await;
                match renewed {
                    Ok(Ok(Some(state))) => {
                        let until = asked + lease;
                        let paused = state.paused;
                        send.send_replace(Pulse { until, paused });
                    }
                    // Another has it: ours is over.
                    Ok(Ok(None)) => {
                        send.send_modify(|pulse| pulse.until = asked);
                        return;
                    }
                    Ok(Err(error)) => debug!("the lease was not renewed: {error}"),
                    Err(_) => debug!("the lease was not renewed: no answer"),
                }
                sleep((lease / 5).min(Duration::from_secs(1))).await;
            }
        });
        Ok(Self {
            term,
            home,
            pulse,
            beating,
        })
    }

    /// Gives the lease back.
    pub async fn release(self) {
        self.beating.abort();
        let limit = Duration::from_secs(5);
        let _ = tokio::time::timeout(limit, self.home.release_mover(self.term)).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// What all moves of one mover share.
pub(crate) struct Mover {
    pub sites: Sites,
    pub settings: MoveSettings,
    pub term: i64,
    pub progress: Arc<dyn Progress>,
    pulse: watch::Receiver<Pulse>,
}

impl Mover {
    /// Whether the lease is still ours. Looked at before each step; a mover that was stopped right
    /// after is kept from doing harm by its term.
    pub fn check(&self) -> Result<(), MoveError> {
        match self.pulse.borrow().until > Instant::now() {
            true => Ok(()),
            false => Err(MoveError::LeaseLost),
        }
    }

    pub fn paused(&self) -> bool {
        self.pulse.borrow().paused
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

/// Carries out a plan, and moves that were interrupted before. Stops no move halfway: one that
/// can't go on stays as it is, and the others go on.
///
/// # Errors
/// If another mover is at work, the plan is stale, or the home can't be asked.
pub async fn apply(
    sites: &Sites,
    settings: &MoveSettings,
    plan: &Plan,
    holder: &str,
    progress: Arc<dyn Progress>,
) -> Result<Applied, MoveError> {
    let lease = Lease::take(sites, holder, settings).await?;
    let applied = under(&lease, sites, settings, plan, progress).await;
    lease.release().await;
    applied
}

fn mover(
    lease: &Lease,
    sites: &Sites,
    settings: &MoveSettings,
    progress: Arc<dyn Progress>,
) -> Mover {
    Mover {
        sites: sites.clone(),
        settings: settings.clone(),
        term: lease.term,
        progress,
        pulse: lease.pulse.clone(),
    }
}

async fn under(
    lease: &Lease,
    sites: &Sites,
    settings: &MoveSettings,
    plan: &Plan,
    progress: Arc<dyn Progress>,
) -> Result<Applied, MoveError> {
    let mover = mover(lease, sites, settings, progress);
    let home = sites.home()?;
    let mut queue = VecDeque::new();
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
    mover.progress.point("claimed");
    Ok(carry_all(&mover, queue).await)
}

/// As many at a time as the settings say.
async fn carry_all(mover: &Mover, mut queue: VecDeque<MoveRecord>) -> Applied {
    let mut applied = Applied::default();
    let mut busy: BTreeMap<InstanceName, usize> = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    let started = Instant::now();
    let mut moved: u64 = 0;
    loop {
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
            sleep(early.max(Duration::from_millis(10))).await;
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
            Err(error) => {
                if matches!(error, MoveError::LeaseLost) {
                    queue.clear();
                }
                applied.left.push((record, error.to_string()));
            }
        }
    }
}

async fn size_now(mover: &Mover, record: &MoveRecord) -> u64 {
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

/// Undoes moves that are under way: by itself, or, if a mover is at work, by telling it.
///
/// # Errors
/// If the home can't be asked.
pub async fn abort(
    sites: &Sites,
    settings: &MoveSettings,
    chosen: &[MoveRecord],
    holder: &str,
    progress: Arc<dyn Progress>,
) -> Result<Abort, MoveError> {
    let home = sites.home()?;
    let of_home = |error| MoveError::of(home.name(), error);
    for record in chosen {
        home.request_abort(record.id).await.map_err(of_home)?;
        progress.event(Event {
            record: record.clone(),
            what: Happening::Started,
        });
    }
    let mut result = Abort::default();
    let lease = loop {
        match Lease::take(sites, holder, settings).await {
            Ok(lease) => break lease,
            Err(MoveError::Busy { .. }) => {}
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
        sleep(settings.retry_min).await;
    };
    let mover = mover(&lease, sites, settings, progress);
    let open = home.moves(0).await.map_err(of_home)?;
    let queue: VecDeque<MoveRecord> = open
        .into_iter()
        .filter(|record| chosen.iter().any(|one| one.id == record.id))
        .collect();
    let applied = carry_all(&mover, queue).await;
    lease.release().await;
    result.aborted = applied.aborted;
    result.finished = applied.done;
    result.left = applied.left;
    Ok(result)
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
