//! A plan: the difference between what the map wants and what is owned, as moves.

use std::collections::{BTreeMap, BTreeSet};

use pgbraid_instance::MoveRecord;
use pgbraid_shardmap::{Drift, Epoch, FeedName, InstanceName, TableId, TableOwner, drift, hash};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{MoveError, MoveSettings, estimate, preflight::preflight, survey::Survey};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The plan can't be carried out.
    Error,
    /// It can, but look.
    Warning,
    /// Good to know.
    Info,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFinding {
    /// How bad it is.
    pub level: Level,
    /// Where, if it is about one instance.
    pub instance: Option<String>,
    /// What, and what to do.
    pub message: String,
}

/// One table to move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedMove {
    /// The feed.
    pub feed: String,
    /// The table, by number.
    pub table: u32,
    /// Who owns it.
    pub from: String,
    /// Who shall own it.
    pub to: String,
    /// The owner's epoch.
    pub epoch: u64,
    /// About as many rows.
    pub rows: u64,
    /// With indexes.
    pub bytes: u64,
    /// How far it is, if it was begun before.
    pub begun: Option<String>,
}

/// What a plan means for an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceChange {
    /// Tables before and after.
    pub tables: (u32, u32),
    /// Bytes that arrive: so much disk is needed.
    pub bytes_in: u64,
    /// Bytes that leave; they stay on disk until `map clean`.
    pub bytes_out: u64,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Of this format.
    pub version: u32,
    /// The cluster.
    pub cluster: String,
    /// Of the map that it was made from.
    pub map: String,
    /// Moves, in order.
    pub moves: Vec<PlannedMove>,
    /// By instance, those that have or get tables.
    pub instances: BTreeMap<String, InstanceChange>,
    /// Bytes a second that moves of large tables were measured at; `None`: none were made yet.
    pub measured_rate: Option<u64>,
    /// Milliseconds that a small table took.
    #[serde(default)]
    pub measured_each_ms: Option<u64>,
    /// How long it will take about, with as many moves at once as the settings say.
    pub seconds: u64,
    /// What was found on the way.
    pub findings: Vec<PlanFinding>,
}

/// The format of saved plans.
pub(crate) const VERSION: u32 = 1;

/// What the map wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// 16 digits.
    pub fingerprint: String,
    /// Wanted instance of each table, by feed.
    pub placement: BTreeMap<FeedName, Vec<InstanceName>>,
    /// Bytes that the database of an instance may take, where that is told.
    pub disk: BTreeMap<InstanceName, u64>,
}

impl Wish {
    /// Names the places that are wanted, in 16 digits: equal for files that differ in anything else,
    /// such as the addresses of instances.
    pub fn places(&self) -> String {
        let mut text = String::new();
        for (feed, placement) in &self.placement {
            text.push_str(feed.as_str());
            for instance in placement {
                text.push(' ');
                text.push_str(&instance.to_string());
            }
            text.push('\n');
        }
        format!("{:016x}", hash::bytes(text.as_bytes()))
    }

    /// Where a table is wanted.
    pub fn of(&self, feed: &FeedName, table: TableId) -> Option<InstanceName> {
        self.placement
            .get(feed)?
            .get(table.index() as usize)
            .copied()
    }
}

/// Draws up a plan.
pub fn draw(wish: &Wish, seen: &Survey, settings: &MoveSettings) -> Plan {
    let mut plan = Plan {
        version: VERSION,
        cluster: seen.cluster.to_string(),
        map: wish.fingerprint.clone(),
        moves: Vec::new(),
        instances: BTreeMap::new(),
        measured_rate: seen.pace.bytes_per_second,
        measured_each_ms: seen.pace.each.map(|each| each.as_millis() as u64),
        seconds: 0,
        findings: Vec::new(),
    };
    let mut unowned = 0;
    for (feed, wanted) in &wish.placement {
        let nothing = Vec::new();
        let owners = seen.owners.get(feed).unwrap_or(&nothing);
        unowned += tables(&mut plan, feed, wanted, owners, seen);
    }
    for (instance, tables) in &seen.claims {
        let known = |name: &InstanceName| name.to_string() == *instance;
        if !seen.by_instance.keys().chain(seen.silent.keys()).any(known) {
            plan.error(
                None,
                format!(
                    "{instance} holds {tables} tables, but is not in the shard map: put it back \
                     with weight = 0 and no pins, apply that, and take it out afterwards"
                ),
            );
        }
    }
    // That nothing is planned does not mean that all is well.
    if plan.moves.is_empty() && unowned > 0 && !seen.silent.is_empty() {
        plan.error(
            None,
            "where these tables are can't be known before the instances answer".into(),
        );
    }
    plan.seconds = estimate::seconds(&plan.moves, settings, seen.pace);
    let mut findings = preflight(&plan, seen, &wish.disk);
    plan.findings.append(&mut findings);
    plan.findings.sort_by_key(|finding| finding.level);
    plan
}

/// Plans a feed's moves. Returns how many tables nobody is known to own.
fn tables(
    plan: &mut Plan,
    feed: &FeedName,
    wanted: &[InstanceName],
    owners: &[TableOwner],
    seen: &Survey,
) -> u32 {
    let under_way: BTreeMap<TableId, &MoveRecord> = (seen.open.iter())
        .filter(|record| record.feed == *feed)
        .map(|record| (record.table, record))
        .collect();
    let now: Vec<Option<InstanceName>> = owners.iter().map(TableOwner::instance).collect();
    for (number, owner) in owners.iter().enumerate() {
        if let Some(instance) = owner.instance() {
            plan.instances
                .entry(instance.to_string())
                .or_default()
                .tables
                .0 += 1;
        }
        if let Some(instance) = wanted.get(number) {
            plan.instances
                .entry(instance.to_string())
                .or_default()
                .tables
                .1 += 1;
        }
        if let TableOwner::Conflict(names) = owner {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            plan.error(
                None,
                format!(
                    "tbl{number} of feed {feed} is owned by {} at once, and written nowhere: \
                     compare them with `pgbraid map verify`, and take it from one of them",
                    names.join(" and ")
                ),
            );
        }
    }
    let (mut unowned, mut to_move) = (0, BTreeMap::new());
    for one in drift(wanted, &now) {
        match one {
            Drift::Unowned { .. } => unowned += 1,
            Drift::Elsewhere {
                table,
                wanted,
                owner,
            } => {
                to_move.insert(table, (owner, wanted));
            }
        }
    }
    if unowned > 0 {
        plan.findings.push(PlanFinding {
            level: Level::Warning,
            instance: None,
            message: format!(
                "{unowned} tables of feed {feed} have no owner that answers: they are not moved"
            ),
        });
    }
    for (table, record) in &under_way {
        let wish = wanted.get(table.index() as usize);
        if wish != Some(&record.target) {
            let wish = wish.map_or_else(|| "nowhere".to_owned(), ToString::to_string);
            plan.error(
                None,
                format!(
                    "{table} of feed {feed} is on its way from {} to {}, but the map wants it on \
                     {wish}: undo that with `pgbraid map abort --table {feed}/{table}` first",
                    record.source, record.target
                ),
            );
        }
        // Decided, but not finished: the new owner is the wanted one already.
        to_move
            .entry(*table)
            .or_insert((record.source, record.target));
    }
    for (table, (from, to)) in to_move {
        let record = under_way.get(&table);
        if record.is_some_and(|record| record.target != to) {
            continue;
        }
        let (from, epoch) = match (record, owners.get(table.index() as usize)) {
            (Some(record), _) => (record.source, record.epoch),
            (None, Some(TableOwner::One { epoch, .. })) => (from, *epoch),
            (None, _) => {
                plan.error(
                    Some(from),
                    format!(
                        "{table} of feed {feed} is in the last step of a move that the home does \
                         not know: look at pgbraid.ownership"
                    ),
                );
                continue;
            }
        };
        let size = seen.size(feed, from, table);
        let (rows, bytes) = size.map_or((0, 0), |size| (size.rows, size.bytes));
        plan.instances
            .entry(from.to_string())
            .or_default()
            .bytes_out += bytes;
        plan.instances.entry(to.to_string()).or_default().bytes_in += bytes;
        plan.moves.push(PlannedMove {
            feed: feed.to_string(),
            table: table.index(),
            from: from.to_string(),
            to: to.to_string(),
            epoch: epoch.0,
            rows,
            bytes,
            begun: record.map(|record| record.phase.clone()),
        });
    }
    unowned
}

impl Plan {
    pub(crate) fn error(&mut self, instance: Option<InstanceName>, message: String) {
        self.findings.push(PlanFinding {
            level: Level::Error,
            instance: instance.map(|name| name.to_string()),
            message,
        });
    }

    /// Whether it can be carried out.
    pub fn is_possible(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.level != Level::Error)
    }

    /// Bytes to be moved.
    pub fn bytes(&self) -> u64 {
        self.moves.iter().map(|one| one.bytes).sum()
    }

    /// Reads a saved plan.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(text: &str) -> Result<Self, MoveError> {
        let refused = |why: String| MoveError::Refused(format!("this is no saved plan: {why}"));
        let plan: Self = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        match plan.version {
            VERSION => Ok(plan),
            other => Err(refused(format!(
                "it is of version {other}, this pgbraid reads {VERSION}"
            ))),
        }
    }

    /// Whether a saved plan is still the one that `now` would be. Moves that were done or begun
    /// since, by carrying out this very plan, are no difference: it is gone on with.
    ///
    /// # Errors
    /// [`MoveError::Stale`] if not.
    pub fn check_against(&self, now: &Self, seen: &Survey) -> Result<(), MoveError> {
        let stale = |why: String| Err(MoveError::Stale(why));
        if self.cluster != now.cluster {
            return stale(format!("it is for cluster {}", self.cluster));
        }
        if self.map != now.map {
            return stale(format!(
                "it was made from map {}, the file is {} now",
                self.map, now.map
            ));
        }
        let mut known = BTreeSet::new();
        for one in &self.moves {
            known.insert((one.feed.clone(), one.table));
            let same = |other: &&PlannedMove| {
                (
                    &other.feed,
                    other.table,
                    &other.from,
                    &other.to,
                    other.epoch,
                ) == (&one.feed, one.table, &one.from, &one.to, one.epoch)
            };
            if now.moves.iter().any(|other| same(&other)) {
                continue;
            }
            let owner = FeedName::parse(&one.feed)
                .ok()
                .and_then(|feed| seen.owners.get(&feed))
                .and_then(|owners| owners.get(one.table as usize));
            let done = matches!(owner, Some(TableOwner::One { instance, epoch })
                if instance.to_string() == one.to && epoch.0 == one.epoch + 1);
            if !done {
                return stale(format!(
                    "tbl{} of feed {} is not owned by {} at epoch {} any more",
                    one.table, one.feed, one.from, one.epoch
                ));
            }
        }
        let new = |one: &&PlannedMove| !known.contains(&(one.feed.clone(), one.table));
        match now.moves.iter().find(new) {
            Some(one) => stale(format!(
                "tbl{} of feed {} has to be moved too by now",
                one.table, one.feed
            )),
            None => Ok(()),
        }
    }
}

/// The claims that a plan asks for, those that were begun first.
pub(crate) fn records(plan: &Plan) -> Result<Vec<MoveRecord>, MoveError> {
    let bad = |error: pgbraid_shardmap::NameError| {
        MoveError::Refused(format!("the plan is damaged: {error}"))
    };
    let (begun, others): (Vec<_>, Vec<_>) =
        (plan.moves.iter()).partition(|one| one.begun.is_some());
    begun
        .into_iter()
        .chain(others)
        .map(|one| {
            Ok(MoveRecord {
                id: Uuid::new_v4(),
                feed: FeedName::parse(&one.feed).map_err(bad)?,
                table: TableId::new(one.table),
                source: one.from.parse().map_err(bad)?,
                target: one.to.parse().map_err(bad)?,
                epoch: Epoch(one.epoch),
                abort_requested: false,
                outcome: None,
                phase: "claimed".into(),
                bytes: one.bytes,
                copy_ms: 0,
                pause_us: None,
                took: None,
                trouble: None,
                age: std::time::Duration::ZERO,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
