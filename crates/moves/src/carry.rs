//! Carries out one move: looks, does the next step, looks again.

mod ill;

use std::time::Duration;

use futures::future::try_join;
use pgbraid_instance::{
    DbError, DbErrorKind, Instance, Move, MoveOutcome, MoveRecord, SourceSide, TargetSide,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Event, Goal, Happening, MoveError, Step,
    apply::Mover,
    cutover::{Cut, cut_over, hasten, own, undo},
    health::{Ailment, Health},
    lag::Lag,
    next_step,
    settings::Site,
};

/// Longest that anything but a cut-over's own bounds may take before the instance is taken for
/// lost. The server's `statement_timeout` ends statements before.
const LIMIT: Duration = Duration::from_secs(60);

/// How often the copy and the lag are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often once the lag is what decides.
const LOOK_CLOSELY: Duration = Duration::from_millis(20);
/// How late a copy may be: writers will wait so long, about. That it is less than the time between
/// two looks means that all is there which was written at the look before.
const LATE: Duration = Duration::from_millis(10);
/// After so long without a lag below the limit in bytes it is doubled, again and again.
const RELAX: Duration = Duration::from_secs(10);
/// The same, for how late it may be: a busy machine is not to keep a move waiting for long.
const RELAX_LATE: Duration = Duration::from_secs(1);

/// One move under way.
pub(crate) struct Carry<'a> {
    pub mover: &'a Mover<'a>,
    pub record: MoveRecord,
    of: Move,
    copy_started: Option<Instant>,
    following_since: Option<Instant>,
    lag: Lag,
    copy_ms: u64,
    bytes: u64,
    noted: &'static str,
    noted_at: Instant,
    abort: bool,
    cuts: u32,
    health: Health,
    /// Bytes that were there at the last look.
    arrived: (u64, Option<u64>),
    /// What was told last of a copy that does not get on.
    told: Option<(Ailment, Instant)>,
    trouble: Option<String>,
}

/// An error, and whose it is.
type Told<T> = Result<T, MoveError>;

async fn bounded<T>(site: &Instance, work: impl Future<Output = Result<T, DbError>>) -> Told<T> {
    let done = timeout(LIMIT, work).await.unwrap_or_else(|_| {
        Err(DbError::new(
            DbErrorKind::Outage,
            format!("no answer within {LIMIT:?}"),
        ))
    });
    done.map_err(|error| MoveError::of(site.name(), error))
}

impl<'a> Carry<'a> {
    pub fn new(mover: &'a Mover<'a>, record: MoveRecord) -> Told<Self> {
        let schema = mover.sites.schema(&record.feed)?.clone();
        Ok(Self {
            mover,
            of: Move {
                id: record.id,
                schema,
                table: record.table,
                epoch: record.epoch,
                source: record.source,
                target: record.target,
                term: mover.term,
            },
            abort: record.abort_requested,
            copy_ms: record.copy_ms,
            bytes: record.bytes,
            record,
            copy_started: None,
            following_since: None,
            lag: Lag::default(),
            noted: "",
            noted_at: Instant::now(),
            cuts: 0,
            health: Health::default(),
            arrived: (0, None),
            told: None,
            trouble: None,
        })
    }

    fn tell(&self, what: Happening) {
        self.mover.progress.event(Event {
            record: self.record.clone(),
            what,
        });
    }

    /// Until the move is over. Outages are waited out for as long as the settings say.
    pub async fn run(mut self) -> Told<MoveOutcome> {
        self.tell(Happening::Started);
        let mut trouble: Option<(Instant, u32)> = None;
        loop {
            let before = self.noted;
            let error = match self.session().await {
                Ok(outcome) => {
                    self.tell(match outcome {
                        MoveOutcome::Done => Happening::Done,
                        MoveOutcome::Aborted => Happening::Aborted,
                    });
                    return Ok(outcome);
                }
                Err(error) => error,
            };
            self.note_trouble(&error.to_string()).await;
            if !error.is_transient() {
                self.tell(Happening::GaveUp {
                    why: error.to_string(),
                });
                return Err(error);
            }
            if self.noted != before {
                trouble = None;
            }
            let (since, tries) = trouble.get_or_insert((Instant::now(), 0));
            if since.elapsed() >= self.mover.settings.patience {
                self.tell(Happening::GaveUp {
                    why: error.to_string(),
                });
                return Err(error);
            }
            self.tell(Happening::Trouble {
                why: error.to_string(),
            });
            *tries += 1;
            let tries = *tries;
            self.back_off(tries).await;
        }
    }

    fn wait_after(&self, tries: u32) -> Duration {
        let settings = &self.mover.settings;
        let wait = settings.retry_min * 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
        wait.min(settings.retry_max)
            .mul_f64(rand::random_range(0.5..=1.0))
    }

    async fn back_off(&self, tries: u32) {
        self.mover.rest(self.wait_after(tries)).await;
    }

    /// With one pair of connections.
    async fn session(&mut self) -> Told<MoveOutcome> {
        self.mover.check()?;
        let sites = &self.mover.sites;
        let (from, to) = (
            sites.site(self.record.source)?.clone(),
            sites.site(self.record.target)?.clone(),
        );
        let mut source = bounded(&from.instance, from.instance.move_source()).await?;
        let reached = bounded(&to.instance, to.instance.move_target(&to.admin)).await;
        let mut target = match reached {
            Ok(target) => target,
            Err(error) => {
                // A dead target must not keep the source's writers waiting.
                self.mover.check_lease()?;
                bounded(&from.instance, undo(&self.of, &mut source)).await?;
                return Err(error);
            }
        };
        self.take_over(&from, &to, &source, &target).await?;
        loop {
            self.mover.check()?;
            let goal = if self.abort {
                Goal::Back
            } else {
                Goal::Forward
            };
            let (seen, at) = try_join(
                bounded(&from.instance, source.look(&self.of)),
                bounded(&to.admin, target.look(&self.of)),
            )
            .await?;
            self.bytes = self.bytes.max(at.bytes);
            let step = next_step(goal, self.of.epoch, &seen, &at);
            if step != Step::CutOver {
                self.following_since = None;
                self.lag.forget();
            }
            match &step {
                Step::Close(outcome) => {
                    self.note("close", None).await?;
                    let home = self.mover.sites.home()?;
                    bounded(home, home.close_move(&self.record, *outcome)).await?;
                    self.mover.progress.point("closed");
                    return Ok(*outcome);
                }
                Step::TooLate => {
                    self.abort = false;
                    self.tell(Happening::Trouble {
                        why: "it is decided already: the target owns the table, so the move is \
                              finished; move the table back with the map"
                            .into(),
                    });
                    self.record.abort_requested = false;
                }
                Step::Stuck(why) => {
                    return Err(MoveError::Refused(format!(
                        "{} of feed {}: {why}; look at pgbraid.ownership on {} and {}",
                        self.record.table, self.record.feed, self.record.source, self.record.target
                    )));
                }
                Step::Wait => {
                    self.copy_started.get_or_insert_with(Instant::now);
                    self.mind(&at, &from, &to).await?;
                    self.note("copy", None).await?;
                    self.tell(Happening::Copying {
                        rows: at.copied_rows,
                        bytes: at.copied_bytes.unwrap_or(at.bytes),
                    });
                    sleep(LOOK).await;
                }
                Step::CutOver => {
                    if let Some(started) = self.copy_started.take() {
                        self.copy_ms += started.elapsed().as_millis() as u64;
                        self.mover.progress.point("copied");
                    }
                    self.mind(&at, &from, &to).await?;
                    self.when_close(&seen, &to, &mut source, &mut target)
                        .await?;
                }
                step => {
                    if self.mover.paused() && matches!(step, Step::Make | Step::Subscribe) {
                        self.tell(Happening::Paused);
                        self.note(self.noted_or("claimed"), None).await?;
                        sleep(LOOK * 2).await;
                        continue;
                    }
                    self.execute(step, &from, &to, &mut source, &mut target)
                        .await?;
                    self.tell(Happening::Did(step.clone()));
                    self.note(step.name(), None).await?;
                    self.mover.progress.point(step.name());
                }
            }
        }
    }

    fn noted_or(&self, other: &'static str) -> &'static str {
        if self.noted.is_empty() {
            other
        } else {
            self.noted
        }
    }

    /// Movers of an earlier term can do nothing to the table any more.
    async fn take_over(
        &self,
        from: &Site,
        to: &Site,
        source: &SourceSide,
        target: &TargetSide,
    ) -> Told<()> {
        let (seen, at) = try_join(
            bounded(&from.instance, source.look(&self.of)),
            bounded(&to.admin, target.look(&self.of)),
        )
        .await?;
        let held = |row: &pgbraid_instance::MovingRow| {
            row.mine && row.state != pgbraid_shardmap::OwnershipState::Moved
        };
        if seen.row.as_ref().is_some_and(held) {
            bounded(&from.instance, source.mark(&self.of)).await?;
        }
        if at.row.as_ref().is_some_and(|row| row.mine) {
            bounded(&to.instance, target.adopt(&self.of)).await?;
        }
        Ok(())
    }

    /// Tells the home, now and then, and hears whether the move is to be undone.
    async fn note(&mut self, phase: &'static str, pause: Option<Duration>) -> Told<()> {
        let same = phase == self.noted && pause.is_none();
        if same && self.noted_at.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
        self.noted = phase;
        self.noted_at = Instant::now();
        let home = self.mover.sites.home()?;
        let copy_ms = self.copy_ms
            + self
                .copy_started
                .map_or(0, |started| started.elapsed().as_millis() as u64);
        let noted = home.note_move(
            self.record.id,
            phase,
            (self.bytes, copy_ms),
            pause.map(|pause| pause.as_micros() as u64),
            self.trouble.as_deref(),
        );
        let abort = bounded(home, noted).await?;
        if abort && !self.record.abort_requested {
            self.abort = true;
            self.record.abort_requested = true;
        }
        Ok(())
    }

    async fn execute(
        &mut self,
        step: &Step,
        from: &Site,
        to: &Site,
        source: &mut SourceSide,
        target: &mut TargetSide,
    ) -> Told<()> {
        let of = &self.of;
        match step {
            Step::Mark => bounded(&from.instance, source.mark(of)).await,
            Step::Make => {
                // The target has the rules before the first row.
                self.mover.bring_rules(&to.instance).await?;
                bounded(&to.instance, target.make(of)).await
            }
            Step::Publish => bounded(&from.instance, source.publish(of)).await,
            Step::Subscribe => {
                let settings = &self.mover.settings;
                let conninfo = from
                    .instance
                    .conninfo(settings.passfile.as_deref(), settings.root_cert.as_deref());
                bounded(&to.admin, target.subscribe(of, &conninfo)).await?;
                self.copy_started = Some(Instant::now());
                Ok(())
            }
            Step::Undo => bounded(&from.instance, undo(of, source)).await,
            Step::Own => bounded(&to.instance, own(of, target)).await,
            Step::Unsubscribe => bounded(&to.admin, target.unsubscribe(of)).await,
            Step::DropCopy => bounded(&to.instance, target.drop_copy(of)).await,
            Step::Unpublish => bounded(&from.instance, source.unpublish(of)).await,
            Step::Restart(why) => {
                self.tell(Happening::Trouble {
                    why: format!("the copy begins anew: {why}"),
                });
                bounded(&to.admin, target.unsubscribe(of)).await?;
                bounded(&to.instance, target.drop_copy(of)).await?;
                bounded(&from.instance, source.unpublish(of)).await
            }
            Step::Unmark => {
                bounded(&to.instance, target.unmark(of)).await?;
                bounded(&from.instance, source.unmark(of)).await
            }
            // The loop does these itself.
            Step::Wait | Step::CutOver | Step::Close(_) | Step::TooLate | Step::Stuck(_) => Ok(()),
        }
    }

    /// The copy is there and follows: cuts over once the lag is small. A lag that is not known is
    /// not zero.
    async fn when_close(
        &mut self,
        seen: &pgbraid_instance::SourceSeen,
        to: &Site,
        source: &mut SourceSide,
        target: &mut TargetSide,
    ) -> Told<()> {
        let since = *self.following_since.get_or_insert_with(Instant::now);
        self.note("catch up", None).await?;
        let from = self.mover.sites.site(self.record.source)?;
        let doublings = (since.elapsed().as_secs() / RELAX.as_secs()).min(10);
        let enough = self.mover.settings.max_lag << doublings;
        let late_doublings = (since.elapsed().as_secs() / RELAX_LATE.as_secs()).min(10);
        let late_enough = LATE * (1 << late_doublings);
        let close = seen.lag.is_some_and(|lag| {
            let late = self.lag.behind(Instant::now(), seen.written, lag);
            lag <= enough && late.is_some_and(|late| late <= late_enough)
        });
        if self.mover.paused() {
            self.tell(Happening::Paused);
            sleep(LOOK).await;
            return Ok(());
        }
        if !close || self.abort {
            self.tell(Happening::Following { lag: seen.lag });
            bounded(&to.instance, hasten(source, target)).await?;
            let near = seen.lag.is_some_and(|lag| lag <= enough);
            sleep(if near { LOOK_CLOSELY } else { LOOK }).await;
            return Ok(());
        }
        self.mover.progress.point("caught-up");
        self.mover.bring_rules(&to.instance).await?;
        self.mover.check()?;
        let cutting = cut_over(
            &self.of,
            (&from.instance, &to.instance),
            source,
            target,
            &self.mover.settings,
            self.mover.progress.as_ref(),
        );
        match bounded(&from.instance, cutting).await? {
            Cut::Over(pause) => {
                self.tell(Happening::CutOver { pause });
                self.note("own", Some(pause.total())).await?;
                self.mover.progress.point("own");
            }
            Cut::NotYet(why) => {
                self.cuts += 1;
                let again = self.wait_after(self.cuts);
                self.tell(Happening::NotYet { why, again });
                self.mover.rest(again).await;
            }
        }
        Ok(())
    }
}
