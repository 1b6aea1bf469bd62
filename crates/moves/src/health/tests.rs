use super::*;

fn workers(errors: u64, alive: bool) -> Workers {
    Workers {
        enabled: true,
        applying: alive,
        copying: alive,
        errors,
    }
}

/// Looks every second; returns what was found at each.
fn watch(looks: impl IntoIterator<Item = (Workers, bool)>) -> Vec<Option<Ailment>> {
    let (mut health, mut now) = (Health::default(), Instant::now());
    looks
        .into_iter()
        .map(|(workers, progress)| {
            now += Duration::from_secs(1);
            health.look(&workers, progress, now)
        })
        .collect()
}

#[test]
fn errors_are_told_until_there_are_none_for_a_while() {
    let looks = (0..60).map(|at| {
        (
            workers(u64::from(at >= 5) + u64::from(at >= 10), true),
            true,
        )
    });
    let found = watch(looks);
    assert_eq!(found[4], None);
    assert_eq!(found[5], Some(Ailment::Failing(1)));
    assert_eq!(found[10], Some(Ailment::Failing(2)));
    assert_eq!(found[39], Some(Ailment::Failing(2)));
    assert_eq!(found[40], None);
}

#[test]
fn a_worker_that_does_not_come_is_missed_but_not_one_that_is_started_anew() {
    // Before PostgreSQL 15 nobody counts errors.
    let found = watch((0..20).map(|_| (workers(0, false), false)));
    assert_eq!(found[9], None);
    assert_eq!(found[10], Some(Ailment::NoWorker));
    let found = watch((0..40).map(|at| (workers(0, at % 6 == 0), false)));
    assert!(found.iter().all(Option::is_none), "{found:?}");
    let found = watch((0..40).map(|_| (workers(0, false), true)));
    assert!(found.iter().all(Option::is_none), "{found:?}");
}

#[test]
fn a_disabled_subscription_is_told_at_once_and_for_how_long() {
    let mut health = Health::default();
    let now = Instant::now();
    let off = Workers {
        enabled: false,
        ..workers(0, false)
    };
    assert_eq!(health.look(&off, false, now), Some(Ailment::Disabled));
    let later = now + Duration::from_secs(90);
    health.look(&off, false, later);
    assert_eq!(health.ill_for(later), Duration::from_secs(90));
    health.look(&workers(0, true), true, later);
    assert_eq!(health.ill_for(later), Duration::ZERO);
}

#[test]
fn columns_that_differ_are_named() {
    let column = |name: &str, sql_type: &str, not_null| ColumnShape {
        name: name.into(),
        sql_type: sql_type.into(),
        not_null,
        collation: None,
    };
    let both = [column("id", "bigint", true), column("a", "integer", false)];
    let said = |source: &[ColumnShape], target: &[ColumnShape]| difference(source, target);
    assert_eq!(said(&both, &both), None);
    assert_eq!(said(&both, &both[..1]).as_deref(), Some("it lacks a"));
    let other = [both[0].clone(), column("a", "text", false)];
    assert_eq!(said(&both, &other).as_deref(), Some("a differ there"));
    let more = [both[0].clone(), both[1].clone(), column("b", "text", true)];
    let asks = "it asks for b, which is not sent";
    assert_eq!(said(&both, &more).as_deref(), Some(asks));
    let wide: Vec<_> = (0..9)
        .map(|at| column(&format!("c{at}"), "text", false))
        .collect();
    let lacks = "it lacks c0, c1, c2 and 6 more";
    assert_eq!(said(&wide, &both).as_deref(), Some(lacks));
}
