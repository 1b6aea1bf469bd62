//! An instance as ingestion's sink and the alerts' source.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pgbraid_alerts::{
    Alert, Change, ChangeOp, Claim, Cursor, Delivery, DeliveryId, Dropped, GroupStore, Identity,
    Listener, Page, PageMark, Settle, Snapshot, Source, SourceError, TimelineStart, Wake,
};
use pgbraid_feed::{Batch, Statement};
use pgbraid_ingest::{Doubt, ErrorKind, Sink, SinkError, Target};
use pgbraid_instance::{
    AlertRow, CHANGE_CHANNEL, ChangeNote, ChangeNoteKind, DbError, DbErrorKind, DroppedPart,
    GROUPS_CHANGED, Instance, ListenConnection, LostBackend, NO_GROUP, Notice, OWNERSHIP_CHANNEL,
    OutboxQuery, OutboxSnapshot, ServerIdentity, SettleCall, SettleHow, WriteTarget,
};
use pgbraid_shardmap::InstanceName;

/// Bounds the wait for an instance: a stopped one takes connections and never answers.
pub(crate) async fn within<T>(
    limit: Duration,
    instance: InstanceName,
    asked: impl Future<Output = Result<T, DbError>>,
) -> Result<T, DbError> {
    tokio::time::timeout(limit, asked)
        .await
        .unwrap_or_else(|_| {
            Err(DbError::new(
                DbErrorKind::Outage,
                format!("{instance} has not answered within {limit:?}"),
            ))
        })
}

/// The channel that rules' triggers notify.
const ALERT_CHANNEL: &str = "pgbraid_alert";

/// An instance of the map. Its hosts may change under it at a reload.
pub(crate) struct Node {
    pub name: InstanceName,
    pub instance: ArcSwap<Instance>,
    identity: RwLock<Option<ServerIdentity>>,
}

impl Node {
    pub fn new(instance: Arc<Instance>) -> Arc<Self> {
        Arc::new(Self {
            name: instance.name(),
            instance: ArcSwap::new(instance),
            identity: RwLock::new(None),
        })
    }

    fn expected(&self) -> Option<ServerIdentity> {
        *self.identity.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where timelines of this instance began.
    pub async fn known_timelines(&self) -> Result<Vec<TimelineStart>, DbError> {
        let instance = self.instance.load_full();
        let known = instance.timelines(self.expected()).await?.into_iter();
        let start = |(timeline, first_xid)| TimelineStart {
            timeline,
            first_xid,
        };
        Ok(known.map(start).collect())
    }
}

#[async_trait]
impl Sink for Node {
    fn instance(&self) -> InstanceName {
        self.name
    }

    async fn write(
        &self,
        batch: &Batch<'_>,
        statements: &[Statement],
        target: Target,
    ) -> Vec<Result<(), SinkError>> {
        let target = match target {
            Target::Table(table) => WriteTarget::Table(table),
            Target::Parent => WriteTarget::Parent,
        };
        let instance = self.instance.load_full();
        let (results, lost) = instance.write(batch, statements, target).await;
        let doubt = lost.map(|lost| Doubt {
            pid: lost.pid,
            backend_start: lost.backend_start,
        });
        results
            .into_iter()
            .map(|result| result.map_err(|error| sink_error(error, doubt.as_ref())))
            .collect()
    }

    async fn settle(&self, doubt: &Doubt) -> Result<(), SinkError> {
        let lost = LostBackend {
            pid: doubt.pid,
            backend_start: doubt.backend_start.clone(),
        };
        self.instance
            .load_full()
            .settle(&lost)
            .await
            .map_err(|error| sink_error(error, None))
    }
}

fn sink_error(error: DbError, doubt: Option<&Doubt>) -> SinkError {
    SinkError {
        kind: match error.kind {
            DbErrorKind::Refused => ErrorKind::Refused,
            DbErrorKind::Conflict => ErrorKind::Conflict,
            DbErrorKind::Moved => ErrorKind::Moved,
            DbErrorKind::Lost => ErrorKind::Outage(doubt.cloned().map(Box::new)),
            // A statement that PostgreSQL does not understand was built for a table that has
            // changed since: rows wait until the catalog was read again.
            DbErrorKind::Statement => ErrorKind::Moved,
            DbErrorKind::Outage | DbErrorKind::Contradiction => ErrorKind::Outage(None),
        },
        message: error.message,
        sqlstate: error.sqlstate,
        constraint: error.constraint,
        column: error.column,
    }
}

fn source_error(error: DbError) -> SourceError {
    SourceError::new(error.message)
}

/// The snapshot as far as a crash can't undo it: to the newest alert, or to where `base` was.
fn snapshot(seen: &OutboxSnapshot, base: &Snapshot) -> Result<Snapshot, SourceError> {
    let unreadable = "PostgreSQL sent a snapshot that can't be read";
    let whole: Snapshot =
        (seen.text.parse()).map_err(|error| SourceError::caused(unreadable, error))?;
    let beyond_newest = seen.newest.map_or(0, |xid| xid.saturating_add(1));
    Ok(whole.capped(base.xmax().max(beyond_newest)))
}

impl Node {
    fn alert(&self, row: AlertRow) -> Arc<Alert> {
        Arc::new(Alert {
            instance: self.name,
            seq: row.seq,
            xid: row.xid,
            feed: row.feed.into(),
            rule: row.rule.into(),
            rule_version: row.rule_version,
            channel: row.channel.into(),
            reason: row.reason.into(),
            key: row.key,
            row: row.row,
            raised_at_us: row.raised_at_us,
            resolved: row.resolved,
        })
    }
}

/// What a cursor has lost of parts that are not kept any more.
fn dropped(cursor: &Cursor, parts: &[DroppedPart]) -> Option<Dropped> {
    let lost = |part: &&DroppedPart| cursor.may_need(part.first_xid, part.last_xid, part.last_seq);
    let lost: Vec<&DroppedPart> = parts.iter().filter(lost).collect();
    let last = lost.last()?;
    Some(Dropped {
        through_part: last.part,
        alerts: lost.iter().map(|part| part.alerts.max(0) as u64).sum(),
        raised_until_us: last.raised_until_us,
        reason: last.reason.as_str().into(),
    })
}

#[async_trait]
impl Source for Node {
    fn instance(&self) -> InstanceName {
        self.name
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        Some(self)
    }

    async fn identity(&self) -> Result<Identity, SourceError> {
        let instance = self.instance.load_full();
        let cluster = instance.expected_cluster();
        instance
            .verify_cluster(cluster)
            .await
            .map_err(source_error)?;
        let found = instance.server_identity().await.map_err(source_error)?;
        *self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(Identity {
            system_id: found.system_id,
            timeline: found.timeline,
        })
    }

    async fn timelines(&self) -> Result<Vec<TimelineStart>, SourceError> {
        self.known_timelines().await.map_err(source_error)
    }

    async fn now(&self) -> Result<Cursor, SourceError> {
        let instance = self.instance.load_full();
        let seen = instance
            .snapshot(self.expected())
            .await
            .map_err(source_error)?;
        Ok(Cursor {
            base: snapshot(&seen, &Snapshot::NOTHING)?,
            page: None,
        })
    }

    async fn cursor_at_time(&self, raised_at_us: i64) -> Result<Cursor, SourceError> {
        let instance = self.instance.load_full();
        let start = instance
            .outbox_at_time(raised_at_us, self.expected())
            .await
            .map_err(source_error)?;
        let now = snapshot(&start.seen, &Snapshot::NOTHING)?;
        Ok(Cursor::at(match start.first_xid {
            // What runs now is not seen, so that it comes whatever its id.
            Some(first) => now.capped(first),
            None => now,
        }))
    }

    async fn read(&self, cursor: &Cursor, limit: u32) -> Result<Page, SourceError> {
        let instance = self.instance.load_full();
        let query = OutboxQuery {
            xmax: cursor.base.xmax(),
            in_progress: cursor.base.xip().to_vec(),
            window: cursor
                .page
                .as_ref()
                .map(|page| (page.upper.to_string(), page.after_seq)),
            limit,
        };
        let page = instance
            .read_alerts(&query, self.expected())
            .await
            .map_err(source_error)?;
        let upper = match &cursor.page {
            Some(page) => page.upper.clone(),
            None => snapshot(&page.seen, &cursor.base)?,
        };
        let next = match page.alerts.last() {
            Some(last) if page.more => Cursor {
                base: cursor.base.clone(),
                page: Some(PageMark {
                    upper,
                    after_seq: last.seq,
                }),
            },
            _ => Cursor {
                base: upper,
                page: None,
            },
        };
        let dropped = dropped(cursor, &page.dropped);
        let alerts = page.alerts.into_iter().map(|row| self.alert(row)).collect();
        Ok(Page {
            alerts,
            next,
            more: page.more,
            dropped,
        })
    }

    async fn tracked_feeds(&self) -> Result<Vec<Arc<str>>, SourceError> {
        let instance = self.instance.load_full();
        let feeds = instance.tracked_feeds().await.map_err(source_error)?;
        Ok(feeds.into_iter().map(Into::into).collect())
    }

    async fn listen(&self, channels: &[String]) -> Result<Box<dyn Listener>, SourceError> {
        let own = [ALERT_CHANNEL, OWNERSHIP_CHANNEL, CHANGE_CHANNEL];
        let mut all = own.map(str::to_owned).to_vec();
        all.extend_from_slice(channels);
        let connection = self
            .instance
            .load_full()
            .listen(&all)
            .await
            .map_err(source_error)?;
        Ok(Box::new(NodeListener(connection)))
    }
}

/// What a notification of changes says. One that nobody understands may have said anything.
fn changed(payload: &str) -> Wake {
    let Some(note) = ChangeNote::parse(payload) else {
        return Wake::ChangesLost {
            feed: None,
            reason: "a notification of changes can't be read".into(),
        };
    };
    let feed: Arc<str> = note.feed.into();
    match note.kind {
        ChangeNoteKind::Reset(reason) => Wake::ChangesLost {
            feed: Some(feed),
            reason: reason.into(),
        },
        ChangeNoteKind::Keys { op, rows } => {
            let op = match op {
                'I' => ChangeOp::Insert,
                'D' => ChangeOp::Delete,
                _ => ChangeOp::Update,
            };
            let changes = rows.into_iter().map(|rows| Change {
                feed: feed.clone(),
                op,
                columns: rows.columns.map(|columns| columns.into_iter().collect()),
                keys: rows.keys.into_iter().collect(),
            });
            Wake::Changed(changes.collect())
        }
    }
}

struct NodeListener(ListenConnection);

#[async_trait]
impl Listener for NodeListener {
    async fn next(&mut self, idle: Duration) -> Result<Wake, SourceError> {
        Ok(match self.0.next(idle).await.map_err(source_error)? {
            Notice::Checked(started) => Wake::Checked(started),
            Notice::Notification { channel, .. } if channel == ALERT_CHANNEL => Wake::Alerts,
            Notice::Notification {
                channel, payload, ..
            } if channel == OWNERSHIP_CHANNEL => match payload.as_str() {
                GROUPS_CHANGED => Wake::Groups,
                _ => Wake::Ownership,
            },
            Notice::Notification {
                channel, payload, ..
            } if channel == CHANGE_CHANNEL => changed(&payload),
            Notice::Notification {
                channel,
                payload,
                pid,
            } => Wake::Notification {
                channel,
                payload,
                pid,
            },
        })
    }
}

/// A group that an instance does not know yet is asked for again after this time.
const NO_GROUP_YET: Duration = Duration::from_secs(1);

#[async_trait]
impl GroupStore for Node {
    async fn claim(
        &self,
        group: &str,
        member: &str,
        limit: u32,
        max_bytes: u64,
    ) -> Result<Claim, SourceError> {
        let instance = self.instance.load_full();
        let claimed = instance.claim_alerts(group, member, limit, max_bytes).await;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) if error.sqlstate.as_deref() == Some(NO_GROUP) => {
                return Ok(Claim {
                    next_in: Some(NO_GROUP_YET),
                    ..Claim::default()
                });
            }
            Err(error) => return Err(source_error(error)),
        };
        let delivery = |one: pgbraid_instance::ClaimedAlert| Delivery {
            id: DeliveryId {
                instance: self.name,
                claim: claimed.claim,
                seq: one.alert.seq,
            },
            delivery: one.delivery,
            deadline_us: claimed.deadline_us,
            alert: self.alert(one.alert),
        };
        Ok(Claim {
            deliveries: claimed.alerts.into_iter().map(delivery).collect(),
            more: claimed.more,
            next_in: claimed.next_in,
        })
    }

    async fn settle(
        &self,
        group: &str,
        settlements: &[(DeliveryId, Settle)],
    ) -> Result<Vec<bool>, SourceError> {
        // Alike ones of a claim go in one call. One that stands twice is open once only.
        let mut calls: Vec<SettleCall> = Vec::new();
        let mut call_of: Vec<usize> = Vec::with_capacity(settlements.len());
        let mut known: HashMap<(i64, SettleHow), usize> = HashMap::new();
        for (id, settle) in settlements {
            let how = settle_how(settle);
            let at = *known.entry((id.claim, how.clone())).or_insert_with(|| {
                calls.push(SettleCall {
                    claim: id.claim,
                    seqs: Vec::new(),
                    how,
                });
                calls.len() - 1
            });
            calls[at].seqs.push(id.seq);
            call_of.push(at);
        }
        let instance = self.instance.load_full();
        let open = instance.settle_alerts(group, &calls).await;
        let open = open.map_err(source_error)?;
        let mut open: Vec<HashSet<i64>> = open
            .into_iter()
            .map(|seqs| seqs.into_iter().collect())
            .collect();
        let settled = settlements.iter().zip(call_of).map(|((id, settle), at)| {
            if settle.is_final() {
                open[at].remove(&id.seq)
            } else {
                open[at].contains(&id.seq)
            }
        });
        Ok(settled.collect())
    }
}

fn settle_how(settle: &Settle) -> SettleHow {
    match settle {
        Settle::Ack => SettleHow::Ack,
        Settle::Nack { delay, reason } => SettleHow::Nack(*delay, reason.clone()),
        Settle::Release { reason } => SettleHow::Release(reason.clone()),
        Settle::Terminate { reason } => SettleHow::Terminate(reason.clone()),
        Settle::Extend { by } => SettleHow::Extend(*by),
    }
}
