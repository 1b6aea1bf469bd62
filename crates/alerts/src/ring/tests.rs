use pgbraid_shardmap::InstanceName;

use super::*;

fn alert(xid: u64, seq: i64) -> Arc<Alert> {
    Arc::new(Alert {
        instance: InstanceName::new(0),
        seq,
        xid,
        feed: "orders".into(),
        rule: "late".into(),
        rule_version: 1,
        channel: "late".into(),
        reason: "late".into(),
        key: "k".into(),
        row: "{}".into(),
        raised_at_us: 0,
        resolved: false,
    })
}

fn at(text: &str) -> Cursor {
    Cursor::at(text.parse().unwrap())
}

fn paged(base: &str, upper: &str, after_seq: i64) -> Cursor {
    at(base).inside(&upper.parse().unwrap(), after_seq)
}

fn batch(from: &Cursor, to: &Cursor, alerts: &[(u64, i64)]) -> Batch {
    Batch {
        from: from.clone(),
        to: to.clone(),
        alerts: alerts.iter().map(|(xid, seq)| alert(*xid, *seq)).collect(),
    }
}

fn ring(max_alerts: usize, chain: &[(Cursor, &[(u64, i64)])]) -> Ring {
    let mut ring = Ring::new(max_alerts, 1 << 20);
    let mut from = at("10:10:");
    ring.restart(from.clone());
    for (to, alerts) in chain {
        ring.push(batch(&from, to, alerts));
        from = to.clone();
    }
    ring
}

fn first_seq(found: Found) -> Option<i64> {
    match found {
        Found::Batch(batch) => batch.alerts.first().map(|alert| alert.seq),
        _ => None,
    }
}

#[test]
fn a_ring_that_was_never_read_knows_nothing() {
    assert!(matches!(Ring::new(1, 1).find(&at("5:5:")), Found::Unknown));
}

#[test]
fn finds_the_batch_that_continues_a_cursor_even_inside_one() {
    let ring = ring(
        9,
        &[
            (at("12:14:12"), &[(11, 1), (13, 2)]),
            (at("20:20:"), &[(12, 3)]),
        ],
    );
    assert!(matches!(ring.find(&at("9:9:")), Found::Behind));
    assert_eq!(first_seq(ring.find(&at("10:10:"))), Some(1));
    assert_eq!(
        first_seq(ring.find(&at("12:12:"))),
        Some(1),
        "inside the first"
    );
    assert_eq!(first_seq(ring.find(&at("12:14:12"))), Some(3));
    assert_eq!(
        first_seq(ring.find(&at("12:16:12"))),
        Some(3),
        "inside the second"
    );
    assert!(matches!(ring.find(&at("20:20:")), Found::CaughtUp));
    assert!(
        matches!(ring.find(&at("25:25:")), Found::CaughtUp),
        "ahead of it"
    );
}

#[test]
fn a_window_in_pages_is_taken_from_its_first_page_or_inside_it() {
    let (one, two) = (paged("10:10:", "20:20:", 2), paged("10:10:", "20:20:", 4));
    let chain: [(Cursor, &[(u64, i64)]); 3] = [
        (one.clone(), &[(11, 1), (12, 2)]),
        (two.clone(), &[(11, 3), (12, 4)]),
        (at("20:20:"), &[(15, 5)]),
    ];
    let whole = ring(9, &chain);
    assert_eq!(first_seq(whole.find(&at("11:11:"))), Some(1));
    assert_eq!(first_seq(whole.find(&one)), Some(3));
    assert_eq!(
        first_seq(whole.find(&paged("11:11:", "20:20:", 3))),
        Some(3)
    );
    assert_eq!(first_seq(whole.find(&two)), Some(5));
    assert!(
        matches!(whole.find(&paged("10:10:", "21:21:", 2)), Found::Behind),
        "own window"
    );
    // Without its first page, only those inside the window can go on.
    let cut = ring(3, &chain);
    assert!(matches!(cut.find(&at("11:11:")), Found::Behind));
    assert_eq!(first_seq(cut.find(&one)), Some(3));
    // While the window is still being read, its reader's own position has everything.
    let open = ring(9, &chain[..2]);
    assert!(matches!(open.find(&two), Found::CaughtUp));
    assert!(matches!(
        open.find(&paged("20:20:", "30:30:", 9)),
        Found::Behind
    ));
}

#[test]
fn the_oldest_make_room_and_the_end_stays() {
    let small = ring(1, &[(at("12:12:"), &[(10, 1)]), (at("14:14:"), &[(13, 2)])]);
    assert!(matches!(small.find(&at("10:10:")), Found::Behind));
    assert_eq!(first_seq(small.find(&at("12:12:"))), Some(2));
    let none = ring(1, &[(at("12:12:"), &[(10, 1), (11, 2)])]);
    assert!(
        matches!(none.find(&at("10:10:")), Found::Behind),
        "too big to keep"
    );
    assert!(matches!(none.find(&at("12:12:")), Found::CaughtUp));
    assert_eq!((none.alerts, none.bytes, none.batches.len()), (0, 0, 0));
}

#[test]
fn bytes_are_bounded_too() {
    let mut ring = Ring::new(1000, 3 * (ALERT_OVERHEAD_BYTES + 3));
    ring.restart(at("10:10:"));
    for xid in 10..30 {
        let (from, to) = (
            Cursor::at(Snapshot::below(xid)),
            Cursor::at(Snapshot::below(xid + 1)),
        );
        ring.push(batch(&from, &to, &[(xid, xid as i64)]));
    }
    assert_eq!(ring.alerts, 3);
}

#[test]
fn idle_reads_do_not_pile_up() {
    let mut ring = ring(9, &[(at("12:12:"), &[(10, 1)])]);
    for xid in 12..1000 {
        let (from, to) = (
            Cursor::at(Snapshot::below(xid)),
            Cursor::at(Snapshot::below(xid + 1)),
        );
        ring.push(batch(&from, &to, &[]));
    }
    assert_eq!(ring.batches.len(), 2);
    let Found::Batch(batch) = ring.find(&at("50:50:")) else {
        panic!("the empty batch reaches from 12 to the end");
    };
    assert_eq!(batch.to, at("1000:1000:"));
}

#[test]
fn an_empty_last_page_stays_in_its_window() {
    let page = paged("10:10:", "20:20:", 2);
    let chain: [(Cursor, &[(u64, i64)]); 3] = [
        (page.clone(), &[(11, 2)]),
        (at("20:20:"), &[]),
        (at("25:25:"), &[]),
    ];
    let ring = ring(9, &chain);
    let Found::Batch(batch) = ring.find(&page) else {
        panic!("the window's last page");
    };
    assert_eq!(batch.to, at("20:20:"));
}
