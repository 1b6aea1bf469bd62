use super::*;

fn one(from: &str, to: &str, bytes: u64) -> PlannedMove {
    PlannedMove {
        feed: "orders".into(),
        table: 0,
        from: from.into(),
        to: to.into(),
        epoch: 1,
        rows: 0,
        bytes,
        begun: None,
    }
}

fn pace(each: u64) -> Pace {
    Pace {
        bytes_per_second: Some(1 << 20),
        each: Some(Duration::from_secs(each)),
    }
}

#[test]
fn many_small_tables_take_their_time() {
    let settings = MoveSettings {
        per_instance: 2,
        ..MoveSettings::default()
    };
    // 4 at once, but 2 an instance: a single source is what limits.
    let drained: Vec<_> = (0..64)
        .map(|at| one("db0", ["db1", "db2", "db3"][at % 3], 0))
        .collect();
    assert_eq!(seconds(&drained, &settings, pace(3)), 32 * 3);
    let spread: Vec<_> = (0..64)
        .map(|at| [one("db0", "db1", 0), one("db2", "db3", 0)][at % 2].clone())
        .collect();
    assert_eq!(seconds(&spread, &settings, pace(3)), 16 * 3);
    assert_eq!(seconds(&[], &settings, pace(3)), 0);
}

#[test]
fn a_large_table_takes_what_its_bytes_take() {
    let mut settings = MoveSettings {
        per_instance: 2,
        ..MoveSettings::default()
    };
    let large = [one("db0", "db1", 100 << 20), one("db0", "db1", 0)];
    assert_eq!(seconds(&large, &settings, pace(3)), 103);
    settings.per_instance = 1;
    assert_eq!(seconds(&large, &settings, pace(3)), 106);
    settings.bytes_per_second = Some(1 << 18);
    assert_eq!(seconds(&large, &settings, pace(3)), 400);
}
