use super::OwnershipState::*;
use super::*;

fn db(index: u8) -> InstanceName {
    InstanceName::new(index)
}

/// The owner of table 0 from reports of (instance, state, epoch).
fn owner(reports: &[(u8, OwnershipState, u64)]) -> TableOwner {
    let reports = reports
        .iter()
        .map(|&(instance, state, epoch)| (db(instance), TableId::new(0), state, Epoch(epoch)));
    resolve(reports, 1).remove(0)
}

fn one(instance: u8, epoch: u64) -> TableOwner {
    TableOwner::One {
        instance: db(instance),
        epoch: Epoch(epoch),
    }
}

#[test]
fn a_move_from_start_to_end() {
    assert_eq!(owner(&[]), TableOwner::Nobody);
    assert_eq!(owner(&[(0, Owned, 1)]), one(0, 1));
    assert_eq!(owner(&[(0, Owned, 1), (4, MovingIn, 1)]), one(0, 1));
    let leaving = TableOwner::MovingOut {
        from: db(0),
        epoch: Epoch(1),
    };
    assert_eq!(owner(&[(0, MovingOut, 1), (4, MovingIn, 1)]), leaving);
    assert_eq!(leaving.instance(), Some(db(0)));
    // The source has decided, the target has not taken over yet.
    assert_eq!(owner(&[(0, Moved, 1), (4, MovingIn, 1)]), leaving);
    assert_eq!(owner(&[(0, MovingOut, 1), (4, Owned, 2)]), one(4, 2));
    assert_eq!(owner(&[(0, Moved, 1), (4, Owned, 2)]), one(4, 2));
    assert_eq!(one(4, 2).instance(), Some(db(4)));
}

#[test]
fn leftovers_own_nothing() {
    assert_eq!(owner(&[(0, Moved, 9)]), TableOwner::Away);
    assert_eq!(owner(&[(0, Moved, 9), (1, Moved, 8)]), TableOwner::Away);
    // A copy from an owner that has not reported.
    assert_eq!(owner(&[(0, Moved, 8), (1, MovingIn, 9)]), TableOwner::Away);
    assert_eq!(owner(&[(1, MovingIn, 9)]), TableOwner::Away);
    assert_eq!(TableOwner::Away.instance(), None);
}

#[test]
fn double_ownership_is_a_conflict() {
    let both = TableOwner::Conflict(vec![db(0), db(4)]);
    assert_eq!(owner(&[(4, Owned, 1), (0, Owned, 1)]), both);
    assert_eq!(owner(&[(4, Owned, 2), (0, Owned, 1)]), both);
    assert_eq!(owner(&[(4, MovingOut, 2), (0, MovingOut, 1)]), both);
    // The fence cannot be newer than the owner that came after it.
    assert_eq!(owner(&[(4, Owned, 2), (0, MovingOut, 2)]), both);
    assert_eq!(both.instance(), None);
}

#[test]
fn a_repeated_report_counts_by_epoch() {
    assert_eq!(owner(&[(0, Owned, 3), (0, Moved, 2)]), one(0, 3));
    assert_eq!(owner(&[(0, Owned, 3), (0, Moved, 4)]), TableOwner::Away);
}

#[test]
fn tables_out_of_range_are_ignored() {
    let reports = [(db(0), TableId::new(7), Owned, Epoch(1))];
    assert_eq!(resolve(reports, 2), vec![TableOwner::Nobody; 2]);
}

#[test]
fn states_have_names() {
    for state in [Owned, MovingOut, MovingIn, Moved] {
        assert_eq!(state.to_string().parse(), Ok(state));
    }
    assert_eq!(
        "Owned".parse::<OwnershipState>().unwrap_err().to_string(),
        "'Owned' is no state of a table: expected owned, moving_out, moving_in or moved"
    );
}
