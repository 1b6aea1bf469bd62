//! Which writes the function is called for: the WHEN of a trigger.
//!
//! It is the disjunction of all rules' conditions, and PostgreSQL evaluates all of them for each
//! row that concerns no rule. So conditions that have something in common are looked at only for
//! rows that pass it:
//!
//! - *change*: an edge rule starts to match only by a change in the columns that it mentions;
//! - *need*: tests of one column that several conditions need, widened to one ([`crate::needs`]).
//!
//! Both are true whenever one of the conditions behind them is, so `(test and (a or b or ..))` is
//! the same as `(a or b or ..)`, whatever is grouped how; what remains is a guess at what saves
//! most. Conditions that are nothing but such a test become one. A test never raises an error, and
//! what stands behind it is evaluated for fewer rows than without it.

use std::collections::{BTreeMap, BTreeSet};

use crate::column::ColumnKind;
use crate::decimal::Decimal;
use crate::needs::{Against, Kind, Needs, Place};
use crate::print::View;
use crate::quote;
use crate::steps::Steps;

/// A condition of one rule: what to call the function for.
#[derive(Debug, Clone)]
pub(super) struct Term {
    /// True for the writes that it is about, and for no others.
    pub sql: String,
    /// What the row must pass, as the view sees it.
    pub needs: Needs,
    pub of: Of,
    /// The columns of which one must have changed, if that is known.
    pub changed: Option<BTreeSet<String>>,
}

/// Which rows [`Term::needs`] speaks of, and when all of the condition is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    /// The new row matches.
    New,
    /// The new row matches and the old one did not.
    Start,
    /// One of the two rows matches, and the other does not.
    Turn,
    /// One of the two rows matches, or both.
    Either,
    /// The old row matched.
    Old,
}

/// What several conditions have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Guard {
    Change(BTreeSet<String>),
    Need(Rows, Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rows {
    New,
    Old,
    Either,
}

/// Fewer conditions than this are not worth a test before them.
const FEWEST: usize = 3;
/// Tests before one another, at most.
const DEEPEST: usize = 3;

/// The terms as one disjunction, a line for each of its parts.
pub(super) fn disjunction(terms: Vec<Term>, kind: &impl Fn(&str) -> ColumnKind) -> Vec<String> {
    grouped(merged(terms, kind), &BTreeSet::new(), kind)
}

impl Of {
    fn rows(self) -> Rows {
        match self {
            Of::New | Of::Start => Rows::New,
            Of::Turn | Of::Either => Rows::Either,
            Of::Old => Rows::Old,
        }
    }
}

impl Rows {
    /// True or not, but not null: then PostgreSQL would go on behind it.
    fn test(self, place: &Place, against: &Against) -> String {
        let of = |view| format!("({}) is true", place.sql(against, view));
        match self {
            Rows::New => of(View::AsWritten),
            Rows::Old => of(View::AllOld),
            Rows::Either => format!("({} or {})", of(View::AsWritten), of(View::AllOld)),
        }
    }
}

/// Makes one term of those that are nothing but a test of one place; equal ones stand once.
fn merged(terms: Vec<Term>, kind: &impl Fn(&str) -> ColumnKind) -> Vec<Term> {
    let mut seen = BTreeSet::new();
    let mut all: Vec<Option<Term>> = terms
        .into_iter()
        .filter(|term| seen.insert(term.sql.clone()))
        .map(Some)
        .collect();
    let mut alike: BTreeMap<(Of, Place), Vec<usize>> = BTreeMap::new();
    for (index, term) in all.iter().flatten().enumerate() {
        if let Some(place) = single(term) {
            alike.entry((term.of, place)).or_default().push(index);
        }
    }
    for ((of, place), members) in alike {
        let tests: Vec<Against> = members
            .iter()
            .filter_map(|index| all.get(*index)?.as_ref()?.needs.tests.get(&place).cloned())
            .collect();
        let Some((sql, against)) = one_of_all(of, &place, tests, kind) else {
            continue;
        };
        let mut members = members.into_iter();
        let first = members
            .next()
            .and_then(|index| all.get_mut(index)?.as_mut());
        if let Some(first) = first {
            first.sql = sql;
            first.needs.tests.insert(place, against);
        }
        for index in members {
            if let Some(term) = all.get_mut(index) {
                *term = None;
            }
        }
    }
    all.into_iter().flatten().collect()
}

/// The place of the test that is all of a term, if several of them can be one.
fn single(term: &Term) -> Option<Place> {
    let (place, against) = term.needs.tests.first_key_value()?;
    let exact = term.needs.exact
        && match (term.of, place.kind(), against) {
            (Of::New | Of::Old | Of::Either, _, _) => true,
            (_, Kind::Beyond(_), _) => true,
            (_, Kind::OneOf(_), Against::Values(values)) => values.len() == 1,
            _ => false,
        };
    exact.then(|| place.clone())
}

/// What is true if one of several tests of a place says so, and what it needs.
fn one_of_all(
    of: Of,
    place: &Place,
    tests: Vec<Against>,
    kind: &impl Fn(&str) -> ColumnKind,
) -> Option<(String, Against)> {
    let bounds: BTreeSet<Decimal> = tests
        .iter()
        .filter_map(|against| match against {
            Against::Bound(at) => Some(at.clone()),
            _ => None,
        })
        .collect();
    let count = tests.len();
    let widest = tests.into_iter().reduce(|a, b| place.widened(a, b))?;
    let test = of.rows().test(place, &widest);
    let (new, old) = (place.column(View::AsWritten), place.column(View::AllOld));
    let sql = match (of, place.kind()) {
        _ if count < 2 => return None,
        (Of::Start | Of::Turn, Kind::Beyond(_)) if count < FEWEST => return None,
        (Of::Start | Of::Turn, Kind::Beyond(bound)) => {
            let steps = Steps::of(bound, &bounds, kind(place.name()))?;
            let crossed = match of {
                Of::Start => steps.entered(&new, &old),
                _ => steps.crossed(&new, &old),
            };
            format!("({test} and {crossed})")
        }
        // Each has one value: it is another one that the row starts to match by.
        (Of::Start | Of::Turn, _) => format!("({test} and {new} is distinct from {old})"),
        _ => format!("({test})"),
    };
    Some((sql, widest))
}

/// Puts what several terms have in common in front of them.
fn grouped(
    terms: Vec<Term>,
    passed: &BTreeSet<Guard>,
    kind: &impl Fn(&str) -> ColumnKind,
) -> Vec<String> {
    let mut candidates: Vec<(Guard, Vec<usize>)> = candidates(&terms)
        .into_iter()
        .filter(|(guard, of)| !passed.contains(guard) && guard.gain(of.len(), kind) > 0)
        .filter(|_| passed.len() < DEEPEST)
        .collect();
    candidates.sort_by(|(a, of_a), (b, of_b)| {
        let gain = b.gain(of_b.len(), kind).cmp(&a.gain(of_a.len(), kind));
        gain.then_with(|| a.cmp(b))
    });
    let mut left: Vec<Option<Term>> = terms.into_iter().map(Some).collect();
    let mut out = Vec::new();
    for (guard, members) in candidates {
        let is_left = |index: &&usize| left.get(**index).is_some_and(Option::is_some);
        if guard.gain(members.iter().filter(is_left).count(), kind) <= 0 {
            continue;
        }
        let members: Vec<Term> = members
            .into_iter()
            .filter_map(|index| left.get_mut(index).and_then(Option::take))
            .collect();
        let test = guard.sql(&members, kind);
        let mut passed = passed.clone();
        passed.insert(guard);
        let behind = grouped(members, &passed, kind);
        let behind = behind.join("\n     or ");
        out.push(format!("({test}\n    and ({behind}))"));
    }
    out.extend(left.into_iter().flatten().map(|term| term.sql));
    out
}

/// All that terms have in common, with those terms.
fn candidates(terms: &[Term]) -> BTreeMap<Guard, Vec<usize>> {
    let mut all: BTreeMap<Guard, Vec<usize>> = BTreeMap::new();
    for term in terms {
        if let Some(columns) = &term.changed {
            all.entry(Guard::Change(columns.clone())).or_default();
        }
    }
    for (guard, members) in &mut all {
        if let Guard::Change(columns) = guard {
            let within = |term: &Term| term.changed.as_ref().is_some_and(|c| c.is_subset(columns));
            members.extend((0..terms.len()).filter(|index| terms.get(*index).is_some_and(within)));
        }
    }
    for (index, term) in terms.iter().enumerate() {
        for place in term.needs.tests.keys() {
            let guard = Guard::Need(term.of.rows(), place.clone());
            all.entry(guard).or_default().push(index);
        }
    }
    all
}

impl Guard {
    /// What it saves with so many conditions behind it, a condition being 10; negative if it costs
    /// more. How often rows pass is a guess: a write changes few columns, and few rows have any one
    /// of some values or are beyond a bound.
    fn gain(&self, members: usize, kind: &impl Fn(&str) -> ColumnKind) -> isize {
        if members < FEWEST {
            return -1;
        }
        let look = |column: &str| match kind(column) {
            ColumnKind::Text | ColumnKind::Numeric { .. } | ColumnKind::Other => 20,
            _ => 10,
        };
        let (cost, pass): (isize, isize) = match self {
            Guard::Change(columns) => (
                columns.iter().map(|column| look(column)).sum(),
                columns.iter().map(|_| 2).sum(),
            ),
            Guard::Need(rows, place) => {
                let once = match place.kind() {
                    Kind::OneOf(_) => (10 + look(place.name()), 3),
                    Kind::Beyond(_) | Kind::Null => (5 + look(place.name()), 4),
                };
                match rows {
                    Rows::Either => (2 * once.0, once.1 + 1),
                    _ => once,
                }
            }
        };
        let members = isize::try_from(members).unwrap_or(isize::MAX / 10);
        members * (10 - pass) - cost
    }

    fn sql(&self, members: &[Term], kind: &impl Fn(&str) -> ColumnKind) -> String {
        match self {
            Guard::Change(columns) => {
                let tests: Vec<String> = columns
                    .iter()
                    .map(|column| has_changed(column, kind(column)))
                    .collect();
                match tests.as_slice() {
                    [test] => test.clone(),
                    tests => format!("({})", tests.join(" or ")),
                }
            }
            Guard::Need(rows, place) => {
                let tests = members
                    .iter()
                    .filter_map(|term| term.needs.tests.get(place).cloned());
                let widest = tests.reduce(|a, b| place.widened(a, b));
                rows.test(place, &widest.unwrap_or(Against::Nothing))
            }
        }
    }
}

/// True if a column has another value; for texts, if it has other bytes: their collation may say
/// that different texts are equal.
fn has_changed(column: &str, kind: ColumnKind) -> String {
    let column = quote::ident(column);
    match kind {
        ColumnKind::Text => {
            format!("(new.{column} collate pg_catalog.\"C\") is distinct from old.{column}")
        }
        _ => format!("new.{column} is distinct from old.{column}"),
    }
}
