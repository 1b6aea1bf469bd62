use proptest::prelude::*;

use super::*;

fn db(index: u8) -> InstanceName {
    InstanceName::new(index)
}

fn feed() -> FeedName {
    FeedName::parse("orders").unwrap()
}

fn wish(placement: &[u8]) -> Wish {
    let placement = placement.iter().map(|index| db(*index)).collect();
    Wish {
        fingerprint: "0123456789abcdef".into(),
        placement: BTreeMap::from([(feed(), placement)]),
        disk: BTreeMap::new(),
    }
}

fn survey(owners: &[u8]) -> Survey {
    let owners = owners
        .iter()
        .map(|index| TableOwner::One {
            instance: db(*index),
            epoch: Epoch(1),
        })
        .collect();
    Survey {
        owners: BTreeMap::from([(feed(), owners)]),
        ..Survey::default()
    }
}

fn begun(table: u32, source: u8, target: u8) -> MoveRecord {
    MoveRecord {
        id: Uuid::nil(),
        feed: feed(),
        table: TableId::new(table),
        source: db(source),
        target: db(target),
        epoch: Epoch(1),
        abort_requested: false,
        outcome: None,
        phase: "copy".into(),
        bytes: 0,
        copy_ms: 0,
        pause_us: None,
        took: None,
        trouble: None,
        age: std::time::Duration::ZERO,
    }
}

proptest! {
    /// Carrying a plan out makes what is owned what is wanted, with no move too many.
    #[test]
    fn a_plan_leads_from_what_is_to_what_is_wanted(
        tables in proptest::collection::vec((0..6_u8, 0..6_u8), 1..64),
    ) {
        let (mut owned, wanted): (Vec<u8>, Vec<u8>) = tables.into_iter().unzip();
        let plan = draw(&wish(&wanted), &survey(&owned), &MoveSettings::default());
        prop_assert!(plan.is_possible());
        for one in &plan.moves {
            let owner = &mut owned[one.table as usize];
            prop_assert_eq!(&db(*owner).to_string(), &one.from);
            prop_assert_ne!(&one.from, &one.to);
            *owner = one.to[2..].parse().unwrap();
        }
        prop_assert_eq!(&owned, &wanted);
        let again = draw(&wish(&wanted), &survey(&owned), &MoveSettings::default());
        prop_assert!(again.moves.is_empty() && again.seconds == 0);
        let total = |after: bool| -> u32 {
            let tables = plan.instances.values().map(|change| change.tables);
            tables.map(|(before, then)| if after { then } else { before }).sum()
        };
        prop_assert_eq!(total(false), total(true));
    }
}

#[test]
fn a_saved_plan_is_the_same_and_knows_when_it_is_stale() {
    let seen = survey(&[0, 0, 1]);
    let plan = draw(&wish(&[0, 2, 2]), &seen, &MoveSettings::default());
    let saved = Plan::parse(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(saved, plan);
    assert!(saved.check_against(&plan, &seen).is_ok());

    // One of its moves is done: it goes on.
    let mut later = survey(&[0, 0, 1]);
    later.owners.get_mut(&feed()).unwrap()[1] = TableOwner::One {
        instance: db(2),
        epoch: Epoch(2),
    };
    let now = draw(&wish(&[0, 2, 2]), &later, &MoveSettings::default());
    assert_eq!(now.moves.len(), 1);
    assert!(saved.check_against(&now, &later).is_ok());

    let stale = |wish: Wish, seen: &Survey, part: &str| {
        let now = draw(&wish, seen, &MoveSettings::default());
        let error = saved.check_against(&now, seen).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    // Somebody else has moved a table, the file has changed, a table has been added to the wish.
    stale(
        wish(&[0, 2, 2]),
        &survey(&[0, 3, 1]),
        "tbl1 of feed orders is not owned by db0",
    );
    let mut other = wish(&[0, 2, 2]);
    other.fingerprint = "f".repeat(16);
    stale(other, &seen, "the file is ffffffffffffffff now");
    stale(
        wish(&[2, 2, 2]),
        &seen,
        "tbl0 of feed orders has to be moved too",
    );
    assert!(
        Plan::parse("{}")
            .unwrap_err()
            .to_string()
            .contains("no saved plan")
    );
}

#[test]
fn a_move_under_way_is_gone_on_with_or_refused() {
    let mut seen = survey(&[0, 0]);
    seen.open = vec![begun(1, 0, 2)];
    let plan = draw(&wish(&[0, 2]), &seen, &MoveSettings::default());
    assert_eq!(plan.moves[0].begun.as_deref(), Some("copy"));
    assert!(plan.is_possible());
    // The wish has changed meanwhile.
    let plan = draw(&wish(&[0, 1]), &seen, &MoveSettings::default());
    assert!(!plan.is_possible());
    assert!(
        plan.findings[0]
            .message
            .contains("pgbraid map abort --table orders/tbl1")
    );
    // Decided, but its mover died before it was finished.
    seen.owners.get_mut(&feed()).unwrap()[1] = TableOwner::One {
        instance: db(2),
        epoch: Epoch(2),
    };
    let plan = draw(&wish(&[0, 2]), &seen, &MoveSettings::default());
    assert_eq!((plan.moves.len(), plan.moves[0].from.as_str()), (1, "db0"));
}

#[test]
fn double_ownership_and_tables_without_owner_are_said() {
    let mut seen = survey(&[0, 0]);
    *seen.owners.get_mut(&feed()).unwrap() =
        vec![TableOwner::Conflict(vec![db(0), db(1)]), TableOwner::Away];
    let plan = draw(&wish(&[0, 1]), &seen, &MoveSettings::default());
    assert!(plan.moves.is_empty() && !plan.is_possible());
    let text = format!("{:?}", plan.findings);
    assert!(
        text.contains("db0 and db1 at once") && text.contains("2 tables of feed"),
        "{text}"
    );
}

#[test]
fn nothing_to_do_is_not_said_of_tables_that_nobody_knows() {
    let mut seen = survey(&[0, 1]);
    seen.owners.get_mut(&feed()).unwrap()[1] = TableOwner::Nobody;
    let drawn = |seen: &Survey, wanted: &[u8]| draw(&wish(wanted), seen, &MoveSettings::default());
    // It was never made: that is for routers to do.
    assert!(drawn(&seen, &[0, 1]).is_possible());
    seen.silent.insert(db(1), "it is down".into());
    let plan = drawn(&seen, &[0, 1]);
    assert!(plan.moves.is_empty() && !plan.is_possible());
}
