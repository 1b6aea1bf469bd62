use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn feed() -> FeedName {
    FeedName::parse("orders").unwrap()
}

fn db(index: u8) -> InstanceName {
    InstanceName::new(index)
}

fn equal_weights(count: u8) -> Vec<(InstanceName, u32)> {
    (0..count).map(|index| (db(index), 1)).collect()
}

fn counts(placement: &[InstanceName]) -> BTreeMap<InstanceName, u32> {
    let mut counts = BTreeMap::new();
    for &instance in placement {
        *counts.entry(instance).or_insert(0) += 1;
    }
    counts
}

/// Part of the promise that a map means the same after an upgrade. Never change it.
#[test]
fn golden_placement() {
    let placement = place(&feed(), 64, &equal_weights(4), &BTreeMap::new()).unwrap();
    let digits: String = placement.iter().map(|db| db.index().to_string()).collect();
    assert_eq!(
        digits,
        "0102101331012021223231221122131212130200000022230020100131312322"
    );
}

/// More tables than a feed may have, to see the shares of the ring rather than the dice.
const MANY: u32 = 200_000;

#[test]
fn shares_are_even() {
    let bounds = [
        (2, 1.02),
        (4, 1.06),
        (8, 1.06),
        (9, 1.07),
        (16, 1.1),
        (64, 1.2),
    ];
    for (instances, bound) in bounds {
        let placement = place(&feed(), MANY, &equal_weights(instances), &BTreeMap::new()).unwrap();
        let counts = counts(&placement);
        let mean = f64::from(MANY) / f64::from(instances);
        let max = f64::from(*counts.values().max().unwrap()) / mean;
        assert_eq!(counts.len(), usize::from(instances));
        assert!(max < bound, "{instances} instances: max/mean {max}");
    }
}

#[test]
fn weights_are_shares() {
    let instances = [(db(0), 1), (db(1), 3), (db(2), 0)];
    let counts = counts(&place(&feed(), MANY, &instances, &BTreeMap::new()).unwrap());
    let share = f64::from(counts[&db(1)]) / f64::from(MANY);
    assert!((0.70..0.80).contains(&share), "share {share}");
    assert_eq!(counts.get(&db(2)), None);
}

#[test]
fn feeds_are_spread_differently() {
    let other = FeedName::parse("payments").unwrap();
    let instances = equal_weights(4);
    let orders = place(&feed(), 64, &instances, &BTreeMap::new()).unwrap();
    let payments = place(&other, 64, &instances, &BTreeMap::new()).unwrap();
    assert_ne!(orders, payments);
}

#[test]
fn pins_decide_and_may_use_weight_zero() {
    let pins: BTreeMap<_, _> = (0..64).map(|t| (TableId::new(t), db(1))).collect();
    let placement = place(&feed(), 64, &[(db(0), 0), (db(1), 0)], &pins).unwrap();
    assert_eq!(placement, vec![db(1); 64]);

    let one = BTreeMap::from([(TableId::new(5), db(1))]);
    let placement = place(&feed(), 64, &[(db(0), 1), (db(1), 0)], &one).unwrap();
    assert_eq!(counts(&placement)[&db(1)], 1);
    assert_eq!(placement[5], db(1));
}

#[test]
fn refusals() {
    let none = BTreeMap::new();
    let pin = |table, instance| BTreeMap::from([(TableId::new(table), db(instance))]);
    let text = |tables, instances: &[(InstanceName, u32)], pins: &BTreeMap<_, _>| {
        place(&feed(), tables, instances, pins)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        text(8, &[(db(0), 0)], &pin(1, 0)),
        "7 of 8 tables of feed orders are not pinned, and no instance has a weight above 0: \
         pin them, or give an instance a weight"
    );
    assert_eq!(
        text(8, &[(db(0), 1), (db(0), 2)], &none),
        "instance db0 is listed twice"
    );
    assert_eq!(
        text(8, &[(db(0), 101)], &none),
        "the weight of db0 is 101, and the greatest is 100: weights are relative, divide them all"
    );
    assert_eq!(
        text(8, &[(db(0), 1)], &pin(1, 3)),
        "tbl1 is pinned to db3, which is not among the instances"
    );
    assert_eq!(
        text(8, &[(db(0), 1)], &pin(8, 0)),
        "tbl8 is pinned, but feed orders has 8 tables"
    );
    assert_eq!(place(&feed(), 0, &[], &none), Ok(vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The reason for a ring: the new instance takes its share, nothing else moves.
    #[test]
    fn a_new_instance_takes_only_its_share(
        name in "[a-z_][a-z0-9_]{0,20}",
        indexes in proptest::collection::btree_set(any::<u8>(), 9),
        newcomer in 0usize..9,
    ) {
        let feed = FeedName::parse(&name).unwrap();
        let after: Vec<_> = indexes.iter().map(|&index| (db(index), 1)).collect();
        let mut before = after.clone();
        let (new, _) = before.remove(newcomer);
        let before = place(&feed, 20_000, &before, &BTreeMap::new()).unwrap();
        let after = place(&feed, 20_000, &after, &BTreeMap::new()).unwrap();
        let moved: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b != a).collect();
        prop_assert!(moved.iter().all(|&(_, &to)| to == new));
        let share = moved.len() as f64 / 20_000.0 * 9.0;
        prop_assert!((0.7..1.3).contains(&share), "{share} of a ninth moved");
    }

    #[test]
    fn the_order_of_instances_does_not_matter(
        tables in 1u32..200,
        instances in Just(equal_weights(6)).prop_shuffle(),
    ) {
        let sorted = place(&feed(), tables, &equal_weights(6), &BTreeMap::new()).unwrap();
        prop_assert_eq!(place(&feed(), tables, &instances, &BTreeMap::new()).unwrap(), sorted);
    }
}
