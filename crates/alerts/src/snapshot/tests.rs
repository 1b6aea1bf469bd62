use proptest::prelude::*;

use super::Snapshot;

fn snapshot(text: &str) -> Snapshot {
    text.parse().unwrap()
}

#[test]
fn reads_and_writes_postgresql_text() {
    for text in ["1:1:", "10:20:10,14,15", "3:4:3", "7:18446744073709551615:"] {
        assert_eq!(snapshot(text).to_string(), text);
    }
    assert_eq!(snapshot("10:20:10,10,14").to_string(), "10:20:10,14");
}

#[test]
fn refuses_what_postgresql_refuses() {
    for bad in [
        "",
        "10",
        "10:20",
        "0:1:",
        "20:10:",
        "10:20:9",
        "10:20:20",
        "10:20:15,14",
        "10:20:,",
        "10:20:11,",
        "a:b:c",
        "1:2:3:4",
        "-1:5:",
        "10:20:99999999999999999999",
    ] {
        let error = bad.parse::<Snapshot>().unwrap_err();
        assert!(error.to_string().contains("is not a snapshot"), "{bad}");
    }
}

#[test]
fn sees_what_had_ended() {
    let snapshot = snapshot("10:20:10,14");
    let seen: Vec<u64> = (8..22).filter(|xid| snapshot.sees(*xid)).collect();
    assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
    assert!((0..3).all(|xid| !Snapshot::NOTHING.sees(xid) || xid == 0));
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    (1u64..12, 0u64..8, any::<u16>()).prop_map(|(xmin, width, running)| {
        let xip = (xmin..xmin + width).filter(|xid| running >> (xid - xmin) & 1 == 1);
        Snapshot::new(xmin, xmin + width, xip.collect()).unwrap()
    })
}

proptest! {
    #[test]
    fn covers_is_inclusion_of_what_is_seen(a in any_snapshot(), b in any_snapshot()) {
        let included = (0..24).all(|xid| !b.sees(xid) || a.sees(xid));
        prop_assert_eq!(a.covers(&b), included);
    }

    #[test]
    fn text_round_trips(a in any_snapshot()) {
        prop_assert_eq!(a.to_string().parse::<Snapshot>().unwrap(), a);
    }

    #[test]
    fn no_text_panics(text in "[0-9:,]{0,40}") {
        let _ = text.parse::<Snapshot>();
    }
}

#[test]
fn capped_it_sees_the_same_below_and_nothing_beyond() {
    let whole: Snapshot = "10:20:10,14,17".parse().unwrap();
    for cap in 0..25 {
        let capped = whole.clone().capped(cap);
        assert_eq!(capped.to_string().parse(), Ok(capped.clone()));
        assert!(whole.covers(&capped));
        for xid in 1..25 {
            let seen = xid < cap && whole.sees(xid);
            assert_eq!(capped.sees(xid), seen, "{xid} at {cap}");
        }
    }
}
