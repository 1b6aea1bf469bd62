//! The difference between the wish of the shard map and the truth of the instances.

use std::fmt;

use crate::{InstanceName, TableId};

/// One table that is not where the map wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drift {
    /// No instance owns it: it must be made on the wanted one.
    Unowned {
        /// The table.
        table: TableId,
        /// Where the map wants it.
        wanted: InstanceName,
    },
    /// Another instance owns it: it must be moved to the wanted one.
    Elsewhere {
        /// The table.
        table: TableId,
        /// Where the map wants it.
        wanted: InstanceName,
        /// Where it is, and where its rows go.
        owner: InstanceName,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unowned { table, wanted } => {
                write!(f, "{table}: wanted on {wanted}, owned by no instance")
            }
            Self::Elsewhere {
                table,
                wanted,
                owner,
            } => write!(f, "{table}: wanted on {wanted}, owned by {owner}"),
        }
    }
}

/// The tables whose owner is not the wanted one, in the order of their numbers.
///
/// Element `i` of both slices is for table `i`; a table beyond the end of `owned` counts as owned
/// by nobody.
pub fn drift(wanted: &[InstanceName], owned: &[Option<InstanceName>]) -> Vec<Drift> {
    let owners = owned.iter().copied().chain(std::iter::repeat(None));
    (0..)
        .map(TableId::new)
        .zip(wanted.iter().zip(owners))
        .filter_map(|(table, (&wanted, owner))| match owner {
            None => Some(Drift::Unowned { table, wanted }),
            Some(owner) if owner != wanted => Some(Drift::Elsewhere {
                table,
                wanted,
                owner,
            }),
            Some(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_missing_from_misplaced() {
        let db = InstanceName::new;
        let wanted = [db(0), db(1), db(2), db(3)];
        let owned = [Some(db(0)), Some(db(2)), None];
        let drift = drift(&wanted, &owned);
        let text: Vec<_> = drift.iter().map(Drift::to_string).collect();
        assert_eq!(
            text,
            [
                "tbl1: wanted on db1, owned by db2",
                "tbl2: wanted on db2, owned by no instance",
                "tbl3: wanted on db3, owned by no instance",
            ]
        );
    }
}
