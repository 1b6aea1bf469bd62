//! What stands in a plan's way.

use std::collections::BTreeMap;

use pgbraid_shardmap::{FeedName, InstanceName, TableId};

use crate::{
    Level, Plan, PlanFinding,
    survey::{Facts, Survey},
};

/// The oldest server with `detach partition concurrently` and progress of copies.
const OLDEST: i32 = 140_000;

/// Workers that one copy takes on its target.
const WORKERS: i64 = 2;

/// Checks a plan against what the instances say.
pub(crate) fn preflight(
    plan: &Plan,
    seen: &Survey,
    disk: &BTreeMap<InstanceName, u64>,
) -> Vec<PlanFinding> {
    let mut check = Check {
        plan,
        seen,
        findings: Vec::new(),
    };
    for (name, why) in &seen.silent {
        let moves = check.of(&name.to_string(), true) + check.of(&name.to_string(), false);
        match moves {
            0 => check.add(
                Level::Warning,
                Some(*name),
                format!("does not answer ({why}): what it owns is not in this plan"),
            ),
            moves => check.add(
                Level::Error,
                Some(*name),
                format!("takes part in {moves} moves, but does not answer: {why}"),
            ),
        }
    }
    for (name, facts) in &seen.by_instance {
        let text = name.to_string();
        let (out, into) = (check.of(&text, true), check.of(&text, false));
        if out > 0 {
            check.source(*name, facts, out);
        }
        if into > 0 {
            check.target(*name, facts, into);
            if let Some(disk) = disk.get(name) {
                let comes = plan
                    .instances
                    .get(&text)
                    .map_or(0, |change| change.bytes_in);
                let there = facts.facts.database_bytes;
                check.findings.extend(room(*name, *disk, there, comes));
            }
        }
    }
    check.pairs();
    check.findings
}

/// Whether what comes has room beside what is there: what moved away is there until it is cleaned.
fn room(name: InstanceName, disk: u64, there: u64, comes: u64) -> Option<PlanFinding> {
    let then = there.saturating_add(comes);
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let level = match then {
        then if then > disk => Level::Error,
        then if then > disk / 10 * 9 => Level::Warning,
        _ => return None,
    };
    Some(PlanFinding {
        level,
        instance: Some(name.to_string()),
        message: format!(
            "its database has {} MiB and {} MiB come, of {} MiB that it may take: make room with \
             `pgbraid map clean`, or raise `disk` in the shard map",
            mib(there),
            mib(comes),
            mib(disk)
        ),
    })
}

struct Check<'a> {
    plan: &'a Plan,
    seen: &'a Survey,
    findings: Vec<PlanFinding>,
}

impl Check<'_> {
    fn add(&mut self, level: Level, instance: Option<InstanceName>, message: String) {
        self.findings.push(PlanFinding {
            level,
            instance: instance.map(|name| name.to_string()),
            message,
        });
    }

    /// Moves that an instance is the source (or target) of.
    fn of(&self, name: &str, source: bool) -> usize {
        let side = |one: &&crate::PlannedMove| match source {
            true => one.from == name,
            false => one.to == name,
        };
        self.plan.moves.iter().filter(side).count()
    }

    fn source(&mut self, name: InstanceName, facts: &Facts, moves: usize) {
        let server = &facts.facts;
        if server.wal_level != "logical" {
            self.add(
                Level::Error,
                Some(name),
                format!(
                    "wal_level is {}: {moves} tables leave it by logical replication, which \
                     needs `alter system set wal_level = logical` and a restart",
                    server.wal_level
                ),
            );
        }
        if !facts.may_replicate {
            self.add(
                Level::Error,
                Some(name),
                "the role of postgres.user may not replicate: `alter role <postgres.user> replication`".into(),
            );
        }
        for (what, free, setting) in [
            (
                "replication slot",
                server.slots_free,
                "max_replication_slots",
            ),
            ("WAL sender", server.walsenders_free, "max_wal_senders"),
        ] {
            // One for the move, one for its copy.
            match free {
                ..2 => self.add(
                    Level::Error,
                    Some(name),
                    format!("{free} {what}s are left, a move takes two: raise {setting}"),
                ),
                2..8 => self.add(
                    Level::Warning,
                    Some(name),
                    format!("{free} {what}s are left, a move takes two: raise {setting} for more moves at once"),
                ),
                _ => {}
            }
        }
    }

    fn target(&mut self, name: InstanceName, facts: &Facts, moves: usize) {
        let server = &facts.facts;
        if !server.may_subscribe {
            self.add(
                Level::Error,
                Some(name),
                format!(
                    "the role {} may not make subscriptions: before PostgreSQL 16 that takes a \
                     superuser, from 16 on `grant pg_create_subscription`; name such a role in \
                     moves.user of pgbraid.toml",
                    server.role
                ),
            );
        }
        match server.workers_free {
            ..WORKERS => self.add(
                Level::Error,
                Some(name),
                format!(
                    "{} workers of logical replication are left, a move takes {WORKERS}: raise \
                     max_logical_replication_workers, and max_worker_processes with it",
                    server.workers_free
                ),
            ),
            free if (free / WORKERS) < (moves as i64).min(2) => self.add(
                Level::Warning,
                Some(name),
                format!("{free} workers of logical replication are left, a move takes {WORKERS}"),
            ),
            _ => {}
        }
        let left: Vec<String> = (self.plan.moves.iter())
            .filter(|one| one.to == name.to_string() && one.begun.is_none())
            .filter(|one| {
                FeedName::parse(&one.feed)
                    .ok()
                    .and_then(|feed| facts.leftovers.get(&feed))
                    .is_some_and(|left| {
                        left.iter()
                            .any(|left| left.table == TableId::new(one.table))
                    })
            })
            .map(|one| format!("{}/tbl{}", one.feed, one.table))
            .collect();
        if !left.is_empty() {
            let shown = left.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
            self.add(
                Level::Error,
                Some(name),
                format!(
                    "still has what was left when {} of these tables moved away ({shown}{}): drop \
                     that with `pgbraid map clean` first",
                    left.len(),
                    if left.len() > 4 { ", .." } else { "" }
                ),
            );
        }
    }

    /// What must be alike on source and target.
    fn pairs(&mut self) {
        let mut pairs: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        for one in &self.plan.moves {
            let pair = (one.from.clone(), one.to.clone(), one.feed.clone());
            *pairs.entry(pair).or_default() += 1;
        }
        for (from, to, feed) in pairs.into_keys() {
            let (Ok(from), Ok(to), Ok(feed)) = (
                from.parse::<InstanceName>(),
                to.parse::<InstanceName>(),
                FeedName::parse(&feed),
            ) else {
                continue;
            };
            let both = (
                self.seen.by_instance.get(&from),
                self.seen.by_instance.get(&to),
            );
            let (Some(source), Some(target)) = both else {
                continue;
            };
            for (name, server) in [(from, &source.facts), (to, &target.facts)] {
                if server.server_version_num < OLDEST {
                    let major = server.server_version_num / 10_000;
                    self.add(
                        Level::Error,
                        Some(name),
                        format!("PostgreSQL {major} is too old for moves: 14 or newer is needed"),
                    );
                }
            }
            let major = |version: i32| version / 10_000;
            if major(source.facts.server_version_num) != major(target.facts.server_version_num) {
                self.add(
                    Level::Info,
                    Some(to),
                    format!(
                        "is PostgreSQL {}, {from} is {}: logical replication bridges that",
                        major(target.facts.server_version_num),
                        major(source.facts.server_version_num)
                    ),
                );
            }
            if source.facts.collation != target.facts.collation {
                self.add(
                    Level::Warning,
                    Some(to),
                    format!(
                        "its database has collation {}, that of {from} has {}: texts sort \
                         differently there",
                        target.facts.collation, source.facts.collation
                    ),
                );
            }
            let (here, there) = (source.shapes.get(&feed), target.shapes.get(&feed));
            if here != there {
                let missing: Vec<&str> = here
                    .into_iter()
                    .flatten()
                    .filter(|column| !there.is_some_and(|there| there.contains(column)))
                    .map(|column| column.name.as_str())
                    .collect();
                let of = match missing.as_slice() {
                    [] => format!("it has columns that {from} lacks"),
                    names => format!("{} differ from {from}'s", names.join(", ")),
                };
                self.add(
                    Level::Error,
                    Some(to),
                    format!(
                        "feed {feed} has other columns than on {from} ({of}): apply the same DDL \
                         everywhere with `pgbraid migrate`"
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_fills_a_disk_is_refused_and_one_that_nearly_does_is_warned_of() {
        let level = |there: u64, comes: u64| {
            let found = room(InstanceName::new(1), 100 << 20, there << 20, comes << 20);
            found.map(|found| found.level)
        };
        assert_eq!(level(50, 40), None);
        assert_eq!(level(50, 45), Some(Level::Warning));
        assert_eq!(level(95, 0), Some(Level::Warning));
        assert_eq!(level(50, 51), Some(Level::Error));
        let text = room(InstanceName::new(1), 1 << 20, 1 << 20, 3).map(|found| found.message);
        let text = text.unwrap_or_default();
        assert!(
            text.contains("has 1 MiB and 1 MiB come, of 1 MiB"),
            "{text}"
        );
    }
}
