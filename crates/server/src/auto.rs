//! `moves.auto`: after an edit of the shard map one router moves the tables, by itself.
//!
//! All routers may have it on. The lease of movers in the home lets one work; when that one dies its
//! lease ends, and another looks at what is there and goes on. Whose file counts is [`standing`]'s.
//! Nothing is ever dropped that was anybody's: what a table leaves behind stays until `map clean`.

mod standing;
mod told;

use std::{sync::Arc, time::Duration};

use pgbraid_config::ShardMap;
use pgbraid_instance::{DbError, DbErrorKind, MoverState};
use pgbraid_moves::{Applied, Job, Lease, MoveError, Stop, holder};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use tracing::info;

use self::{
    standing::{Standing, Verdict},
    told::{Failure, Run},
};
use crate::{
    fleet::{Fleet, FleetError},
    node::within,
    state::{Shared, Topology},
};

pub(crate) use told::{Told, describe};

/// How often the home is asked while there is nothing to do: a line of one table.
const IDLE: Duration = Duration::from_secs(10);
/// First and longest wait after a failure.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the home's answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest that the steps under way may keep a router from stopping.
pub(crate) const GOODBYE: Duration = Duration::from_secs(15);

/// What is to be done next.
#[derive(Clone, Copy)]
enum Next {
    /// Nothing is to be moved.
    Rest,
    /// Tables were moved, or somebody else moves them: look again soon.
    Soon,
    /// It did not work.
    BackOff,
}

/// Follows the map until the router stops. Ends with the step that is under way then.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let stop = Stop::new();
    let drained = {
        let (stop, mut draining) = (stop.clone(), shared.draining.subscribe());
        tokio::spawn(async move {
            let _ = draining.wait_for(|draining| *draining).await;
            stop.cancel();
        })
    };
    let by = holder("a router");
    let mut standing = Standing::new(Fleet::wish_of(&shared.topology.load().map).places());
    let mut tries = 0_u32;
    while !stop.is_cancelled() {
        let topology = shared.topology.load_full();
        standing.file_wants(&Fleet::wish_of(&topology.map).places());
        let next = round(&shared, &topology, &mut standing, &by, &stop).await;
        let wait = match next {
            Next::Rest => IDLE,
            Next::Soon => (shared.config.moves.lease / 2).min(IDLE),
            Next::BackOff => RETRY_MIN * 2_u32.saturating_pow(tries.min(16)),
        };
        tries = match next {
            Next::BackOff => tries + 1,
            _ => 0,
        };
        // Routers that saw the same do not try together.
        let wait = wait.min(RETRY_MAX).mul_f64(rand::random_range(0.5..=1.0));
        tokio::select! {
            () = shared.map_changed.notified() => tries = 0,
            () = stop.cancelled() => {}
            _ = tokio::time::sleep(wait) => {}
        }
    }
    drained.abort();
}

/// Looks at what is agreed on and where tables are, and moves them if that is this router's to do.
async fn round(
    shared: &Arc<Shared>,
    topology: &Topology,
    standing: &mut Standing,
    by: &str,
    stop: &Stop,
) -> Next {
    let told = &shared.auto;
    let Some(node) = topology.nodes.get(&topology.map.home) else {
        return Next::Rest;
    };
    let home = node.instance.load_full();
    let asked = async { Ok((home.mover().await?, home.moves(0).await?)) };
    let (mover, open) = match within(LIMIT, node.name, asked).await {
        Ok(answer) => answer,
        Err(error) => {
            told.failed(Failure::Unreachable);
            told.waits(Some(format!("the home can't be asked: {error}")));
            return Next::BackOff;
        }
    };
    let MoverState {
        holder,
        paused,
        agreed,
    } = mover;
    let drift: u32 = topology
        .schemas
        .keys()
        .map(|feed| topology.drift(feed).0)
        .sum();
    let settled = drift == 0 && open.is_empty() && !topology.amiss();
    let verdict = standing.judge(agreed.as_ref().map(|one| one.placement.as_str()), settled);
    told.agreed(agreed.clone(), holder.clone());
    match verdict {
        Verdict::Agrees => {}
        Verdict::Propose(instead_of) => {
            let places = Fleet::wish_of(&topology.map).places();
            let proposed = home.agree_instead(&places, by, instead_of.as_deref());
            match within(LIMIT, node.name, proposed).await {
                Ok(true) => {
                    standing.proposed(true);
                    info!(
                        places,
                        "routers with moves.auto keep to this file from now on"
                    );
                }
                // Another was first.
                Ok(false) => standing.proposed(false),
                Err(error) => {
                    told.failed(Failure::Unreachable);
                    told.waits(Some(format!("the home can't be asked: {error}")));
                    return Next::BackOff;
                }
            }
            // Judged again at once: it agrees now, or it lost.
            shared.map_changed.notify_one();
            return Next::Soon;
        }
        Verdict::Differs => {
            let agreed = agreed.as_ref();
            told.waits(Some(format!(
                "its shard map wants other places than what is agreed on since {} by {}: put the \
                 same file everywhere, or `pgbraid map apply` the right one",
                agreed.map_or("", |one| one.since.as_str()),
                agreed.map_or("", |one| one.by.as_str()),
            )));
            return Next::Rest;
        }
        Verdict::Nothing if drift == 0 => {
            told.waits(None);
            return Next::Rest;
        }
        Verdict::Nothing => {
            told.waits(Some(format!(
                "{drift} tables are not where the shard map wants them, but nobody has edited it \
                 while this router ran: `pgbraid map apply` carries it out once"
            )));
            return Next::Rest;
        }
    }
    if drift == 0 && open.is_empty() {
        told.waits(None);
        return Next::Rest;
    }
    if paused {
        told.waits(Some("moves are paused, see `pgbraid map resume`".into()));
        return Next::Soon;
    }
    let lease = match Lease::take(&home, by, shared.config.moves.lease).await {
        Ok(lease) => lease,
        Err(MoveError::Busy { holder, .. }) => {
            told.agreed(agreed, Some(holder));
            told.waits(None);
            return Next::Soon;
        }
        Err(error) => return failed(shared, &error),
    };
    told.agreed(agreed, Some(by.to_owned()));
    let done = carry_out(shared, &topology.map, lease, stop).await;
    told.agreed(told.state().agreed, None);
    shared.refresh.notify_one();
    match done {
        Ok(applied) => match applied.left.first() {
            Some(_) if stop.is_cancelled() => Next::Rest,
            Some((record, why)) => {
                told.failed(Failure::Left);
                told.waits(Some(format!(
                    "{} moves are not finished; {}/{}: {why}",
                    applied.left.len(),
                    record.feed,
                    record.table
                )));
                Next::BackOff
            }
            None => {
                told.waits(None);
                Next::Soon
            }
        },
        // What is agreed on has changed meanwhile.
        Err(MoveError::Stopped) => {
            shared.map_changed.notify_one();
            Next::Soon
        }
        Err(error) => failed(shared, &error),
    }
}

fn failed(shared: &Shared, error: &MoveError) -> Next {
    shared.auto.failed(match error {
        MoveError::LeaseLost | MoveError::Busy { .. } => Failure::LeaseLost,
        error if error.is_transient() => Failure::Unreachable,
        _ => Failure::Refused,
    });
    shared.auto.waits(Some(error.to_string()));
    Next::BackOff
}

/// Moves the tables, and gives the lease back. On a thread of its own: a move is a future of many
/// borrowed parts, and the compiler does not see that it may be sent to another thread.
async fn carry_out(
    shared: &Arc<Shared>,
    map: &Arc<ShardMap>,
    lease: Lease,
    stop: &Stop,
) -> Result<Applied, MoveError> {
    let (shared, map, stop) = (shared.clone(), map.clone(), stop.clone());
    let (send, done) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        let done = runtime.block_on(async {
            let done = carry_out_here(&shared, &map, &lease, &stop).await;
            lease.release().await;
            done
        });
        let _ = send.send(done);
    };
    let thread = std::thread::Builder::new().name("pgbraid-moves".into());
    match thread.spawn(work) {
        Ok(_) => done.await.unwrap_or(Err(MoveError::LeaseLost)),
        Err(error) => Err(MoveError::Refused(format!("no thread: {error}"))),
    }
}

async fn carry_out_here(
    shared: &Arc<Shared>,
    map: &Arc<ShardMap>,
    lease: &Lease,
    stop: &Stop,
) -> Result<Applied, MoveError> {
    let of_fleet = |error: FleetError| match error {
        FleetError::Instance { instance, source } => MoveError::Instance { instance, source },
        other => MoveError::Refused(other.to_string()),
    };
    let fleet = Fleet::new(shared.config.clone(), map.clone()).map_err(of_fleet)?;
    let sites = match timeout(LIMIT, fleet.sites()).await {
        Ok(sites) => sites.map_err(of_fleet)?,
        Err(_) => {
            return Err(MoveError::Instance {
                instance: map.home,
                source: DbError::new(DbErrorKind::Outage, format!("no answer within {LIMIT:?}")),
            });
        }
    };
    let job = Job {
        sites,
        settings: fleet.move_settings(),
        progress: Arc::new(Run::new(shared.auto.clone())),
        stop: stop.child_token(),
    };
    let (wish, tables) = (fleet.wish(), fleet.tables());
    let work = job.bring_about(lease, &wish, &tables);
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        // The file was edited: first it has to be said what it wants now.
        () = shared.map_changed.notified() => job.stop.cancel(),
    }
    work.await?;
    Err(MoveError::Stopped)
}
