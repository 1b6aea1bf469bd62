//! The truth: which instance owns a table now, from what all instances report.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Epoch, InstanceName, TableId};

/// What one instance says about one table, a row of its `pgbraid.ownership`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ownership {
    /// The instance that says it.
    pub instance: InstanceName,
    /// The epoch of that row.
    pub epoch: Epoch,
    /// What the instance is to the table.
    pub state: OwnershipState,
}

/// What an instance is to a table. Displayed and parsed as `owned`, `moving_out`, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnershipState {
    /// It owns the table and takes writes.
    Owned,
    /// It owned the table and has fenced it; the target has not taken over yet.
    MovingOut,
    /// It receives a copy of the table and takes no writes yet.
    MovingIn,
    /// It owned the table once; what is left of it is fenced.
    Moved,
}

impl OwnershipState {
    /// The name in the database and in outputs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::MovingOut => "moving_out",
            Self::MovingIn => "moving_in",
            Self::Moved => "moved",
        }
    }
}

impl fmt::Display for OwnershipState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no [`OwnershipState`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no state of a table: expected owned, moving_out, moving_in or moved")]
pub struct UnknownState(String);

impl FromStr for OwnershipState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        [Self::Owned, Self::MovingOut, Self::MovingIn, Self::Moved]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// Who owns a table now, after all reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableOwner {
    /// No instance says anything of it: it was never made, or its owner has not reported.
    Nobody,
    /// It was owned once, and who owns it now has not reported: it must not be made anew.
    Away,
    /// The usual case.
    One {
        /// The owner.
        instance: InstanceName,
        /// Since this epoch.
        epoch: Epoch,
    },
    /// In the last step of a move: writes wait until the target owns it, or the old owner again.
    MovingOut {
        /// The old owner, which has all its rows until then.
        from: InstanceName,
        /// The old owner's epoch.
        epoch: Epoch,
    },
    /// Several instances claim it, in order of their names: it must be written nowhere.
    Conflict(Vec<InstanceName>),
}

impl TableOwner {
    /// The instance that holds the table's rows: the owner, or the one it is moving out of.
    pub fn instance(&self) -> Option<InstanceName> {
        match self {
            Self::One { instance, .. } => Some(*instance),
            Self::MovingOut { from, .. } => Some(*from),
            Self::Nobody | Self::Away | Self::Conflict(_) => None,
        }
    }
}

/// The owner of every table of a feed, from the reports of all instances: element `i` is for
/// table `i`.
///
/// `moved` and `moving_in` claim nothing, but where nobody claims a table, a `moving_in` of the same
/// epoch as the latest `moved` is the target of a move that is decided and not carried out yet. Where one instance says `owned` and others say
/// `moving_out` with lower epochs, the cut-over has just happened, and the former owns the table.
/// Two that say `owned` are a conflict whatever their epochs: an owner gives up before the next one
/// starts, so one of the two was restored or edited by hand. If an instance reports a table twice,
/// the greatest epoch counts. Reports of tables beyond `tables` are ignored.
pub fn resolve(
    reports: impl IntoIterator<Item = (InstanceName, TableId, OwnershipState, Epoch)>,
    tables: u32,
) -> Vec<TableOwner> {
    let mut latest = vec![BTreeMap::new(); tables as usize];
    for (instance, table, state, epoch) in reports {
        let Some(claims) = latest.get_mut(table.index() as usize) else {
            continue;
        };
        let (_, known) = claims.entry(instance).or_insert((state, epoch));
        if epoch > *known {
            claims.insert(instance, (state, epoch));
        }
    }
    latest.iter().map(owner_of).collect()
}

fn owner_of(claims: &BTreeMap<InstanceName, (OwnershipState, Epoch)>) -> TableOwner {
    let in_state = |wanted| {
        let claims = claims.iter();
        claims.filter_map(move |(&instance, &(state, epoch))| {
            (state == wanted).then_some((instance, epoch))
        })
    };
    let owned: Vec<_> = in_state(OwnershipState::Owned).collect();
    let leaving: Vec<_> = in_state(OwnershipState::MovingOut).collect();
    match (owned.as_slice(), leaving.as_slice()) {
        ([], []) => {
            let latest = in_state(OwnershipState::Moved).max_by_key(|&(_, epoch)| epoch);
            match latest {
                Some((from, epoch))
                    if in_state(OwnershipState::MovingIn).any(|(_, other)| other == epoch) =>
                {
                    TableOwner::MovingOut { from, epoch }
                }
                _ if claims.is_empty() => TableOwner::Nobody,
                _ => TableOwner::Away,
            }
        }
        (&[(instance, epoch)], leaving) if leaving.iter().all(|&(_, old)| old < epoch) => {
            TableOwner::One { instance, epoch }
        }
        ([], &[(from, epoch)]) => TableOwner::MovingOut { from, epoch },
        _ => {
            let all = owned.iter().chain(&leaving);
            let mut instances: Vec<_> = all.map(|&(instance, _)| instance).collect();
            instances.sort_unstable();
            TableOwner::Conflict(instances)
        }
    }
}

#[cfg(test)]
mod tests;
