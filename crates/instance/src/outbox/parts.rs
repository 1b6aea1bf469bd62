//! Which parts of the outbox a read can leave out.
//!
//! The facts used here stay true once they are: the transactions of a closed part end below a known
//! id, and nothing is added to a sealed one. A session may keep them for a while (older ones leave
//! out less, never too much), but no longer than its connection: a server that was restored from a
//! backup has other parts.

use std::time::{Duration, Instant as StdInstant};

use tokio_postgres::{Client, types::Type};

use crate::{DbError, Session};

/// How long a session goes by the facts it has.
const KEPT: Duration = Duration::from_secs(5);

/// So many parts are read one few after the other, and so few at a time.
const MANY: usize = 16;
const FEW: usize = 8;

const FACTS: &str = "select part, closed_xid::text, last_seq, last_xid::text, sealed_at is not null, first_seq \
     from pgbraid.alert_part order by part";

/// A part, as far as it is certain for good.
#[derive(Clone, Debug)]
struct Fact {
    part: i32,
    /// Its transactions are below this one.
    closed_xid: Option<u64>,
    sealed: bool,
    first_seq: Option<i64>,
    last_seq: Option<i64>,
    last_xid: Option<u64>,
}

/// The parts that a session knows of.
#[derive(Clone, Debug)]
pub(crate) struct PartFacts {
    facts: Vec<Fact>,
    asked_at: StdInstant,
}

impl PartFacts {
    /// The first part that may have alerts which are new to a snapshot: of transactions from `xmin`
    /// on, and numbered beyond `after_seq`. It and all after it are to be read, those made since too.
    pub(crate) fn first_needed(&self, xmin: u64, after_seq: Option<i64>) -> i32 {
        let done = |fact: &Fact| {
            let seen = fact.closed_xid.is_some_and(|xid| xid <= xmin);
            let passed = after_seq
                .is_some_and(|after| fact.sealed && fact.last_seq.is_none_or(|last| last <= after));
            seen || passed
        };
        let first = self.facts.iter().find(|fact| !done(fact));
        first.map_or(1, |fact| fact.part)
    }

    /// If there are many parts from `first` on: the last of the next few, and the lowest number of
    /// the sealed ones behind it. What lies below that number, and below those of the parts that
    /// are still open, is all in the few. A statement that could read hundreds of parts is planned
    /// for each of them.
    pub(crate) fn next_few(&self, first: i32, after_seq: i64) -> Option<(i32, i64)> {
        let open = self.first_open();
        let rest = |fact: &&Fact| fact.part >= first && fact.part < open;
        let rest: Vec<&Fact> = self.facts.iter().filter(rest).collect();
        if rest.len() <= MANY {
            return None;
        }
        (FEW..rest.len()).find_map(|next| {
            let below = rest[next..]
                .iter()
                .filter_map(|fact| fact.first_seq)
                .min()?;
            (below > after_seq.saturating_add(1)).then(|| (rest[next - 1].part, below))
        })
    }

    /// The first part that may still be written to.
    pub(crate) fn first_open(&self) -> i32 {
        let first = self.facts.iter().find(|fact| !fact.sealed);
        first.map_or(1, |fact| fact.part)
    }

    fn newest_sealed(&self) -> u64 {
        let newest = self.facts.iter().filter_map(|fact| fact.last_xid).max();
        newest.unwrap_or(0)
    }
}

/// The columns `snap`, the statement's snapshot, and `newest`, the highest transaction id of the
/// alerts that it sees, those dropped included. A plain `order by xid` would sort by the output
/// column, which is text: 999 after 1000.
pub(crate) fn seen_sql(facts: &PartFacts) -> String {
    format!(
        "select pg_current_snapshot()::text as snap, greatest(\
         (select n.xid from pgbraid.alert n where n.part >= {} order by n.xid desc limit 1), \
         nullif('{}', '0')::xid8, \
         (select d.last_xid from pgbraid.outbox_dropped d order by d.last_xid desc limit 1)\
         )::text as newest",
        facts.first_open(),
        facts.newest_sealed(),
    )
}

pub(crate) fn xid(text: Option<&str>) -> Result<Option<u64>, DbError> {
    text.map(super::xid8).transpose()
}

async fn ask(client: &Client) -> Result<PartFacts, DbError> {
    let asked_at = StdInstant::now();
    let rows = client
        .query_typed(FACTS, &[] as &[(&(dyn postgres_types::ToSql + Sync), Type)])
        .await?;
    let facts = rows
        .iter()
        .map(|row| {
            Ok(Fact {
                part: row.get(0),
                closed_xid: xid(row.get(1))?,
                last_seq: row.get(2),
                last_xid: xid(row.get(3))?,
                sealed: row.get(4),
                first_seq: row.get(5),
            })
        })
        .collect::<Result<_, DbError>>()?;
    Ok(PartFacts { facts, asked_at })
}

impl Session {
    /// The parts, as they were a few seconds ago at most.
    pub(crate) async fn parts(&mut self) -> Result<PartFacts, DbError> {
        if let Some(facts) = &self.parts
            && facts.asked_at.elapsed() < KEPT
        {
            return Ok(facts.clone());
        }
        let facts = ask(&self.client).await?;
        self.parts = Some(facts.clone());
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(part: i32, closed_xid: Option<u64>, last_seq: Option<i64>) -> Fact {
        Fact {
            part,
            closed_xid,
            sealed: last_seq.is_some(),
            first_seq: last_seq.map(|last| last - 9),
            last_seq,
            last_xid: None,
        }
    }

    #[test]
    fn only_parts_without_anything_new_are_left_out() {
        let facts = PartFacts {
            facts: vec![
                fact(3, Some(100), Some(10)),
                fact(4, Some(200), Some(20)),
                fact(5, Some(300), None),
                fact(6, None, None),
                fact(7, None, None),
            ],
            asked_at: StdInstant::now(),
        };
        assert_eq!(facts.first_needed(1, None), 3);
        assert_eq!(facts.first_needed(99, None), 3);
        // The transactions of part 3 are below 100, and all of these were seen.
        assert_eq!(facts.first_needed(100, None), 4);
        assert_eq!(facts.first_needed(299, None), 5);
        assert_eq!(facts.first_needed(300, None), 6);
        assert_eq!(facts.first_needed(9999, None), 6);
        assert_eq!(facts.first_needed(1, Some(9)), 3);
        assert_eq!(facts.first_needed(1, Some(10)), 4);
        // Part 5 is not sealed: an alert with a lower number may still come.
        assert_eq!(facts.first_needed(1, Some(9999)), 5);
        assert_eq!(facts.first_open(), 5);
    }

    #[test]
    fn many_parts_are_read_a_few_at_a_time() {
        let facts = |count: i32| PartFacts {
            facts: (1..=count)
                .map(|part| fact(part, Some(1), Some(i64::from(part) * 10)))
                .chain([fact(count + 1, None, None)])
                .collect(),
            asked_at: StdInstant::now(),
        };
        assert_eq!(facts(16).next_few(1, 0), None);
        assert_eq!(facts(17).next_few(2, 0), None);
        // Part 9 begins with number 81.
        assert_eq!(facts(17).next_few(1, 0), Some((8, 81)));
        assert_eq!(facts(17).next_few(1, 79), Some((8, 81)));
        // All below 81 was read: the few reach further, for there must be something in them.
        assert_eq!(facts(17).next_few(1, 80), Some((9, 91)));
        // A part in which an old number lies.
        let mut mixed = facts(17);
        mixed.facts[12].first_seq = Some(5);
        assert_eq!(mixed.next_few(1, 0), Some((8, 5)));
        assert_eq!(mixed.next_few(1, 4), Some((13, 131)));
        assert_eq!(mixed.next_few(1, 160), None);
    }
}
