use super::*;

fn at(text: &str) -> Cursor {
    Cursor::at(text.parse().unwrap())
}

fn paged(base: &str, upper: &str, after_seq: i64) -> Cursor {
    at(base).inside(&upper.parse().unwrap(), after_seq)
}

#[test]
fn earliest_takes_every_transaction_as_new() {
    assert!((1..100).all(|xid| Cursor::earliest().is_new(xid, 1)));
}

#[test]
fn a_page_mark_delivers_the_rest_of_its_window_and_everything_after() {
    let cursor = paged("5:5:", "10:20:12", 7);
    assert!(!cursor.is_new(4, 9), "before the window");
    assert!(!cursor.is_new(11, 7), "in the window, delivered");
    assert!(cursor.is_new(11, 8), "in the window, to come");
    assert!(cursor.is_new(12, 3), "running when the window was fixed");
    assert!(cursor.is_new(25, 1), "after the window");
}

#[test]
fn covers_orders_positions() {
    let window = |after| paged("5:5:", "20:20:", after);
    assert!(at("20:20:").covers(&window(9)));
    assert!(window(9).covers(&window(8)));
    assert!(!window(8).covers(&window(9)));
    assert!(window(8).covers(&at("5:5:")));
    assert!(!window(8).covers(&at("6:6:")));
    assert!(!paged("5:5:", "21:21:", 9).covers(&window(8)));
    assert!(at("5:5:").covers(&Cursor::earliest()));
}

#[test]
fn advancing_to_a_page_keeps_the_own_base() {
    let to = paged("5:5:", "20:20:", 9);
    let advanced = at("8:8:").advanced_to(&to);
    assert_eq!(advanced, paged("8:8:", "20:20:", 9));
    assert_eq!(advanced.advanced_to(&at("20:20:")), at("20:20:"));
    assert_eq!(
        paged("8:8:", "20:20:", 12).advanced_to(&to),
        paged("8:8:", "20:20:", 12)
    );
}

#[test]
fn within_one_window_the_one_that_began_later_has_more() {
    let (early, late) = (paged("5:5:", "20:20:", 3), paged("8:8:", "20:20:", 3));
    // An alert of transaction 6, numbered beyond the mark: the later one had it before the window.
    assert!(early.is_new(6, 4) && !late.is_new(6, 4));
    assert!(late.covers(&early) && !early.covers(&late));
    assert!(!paged("5:5:", "20:20:", 9).covers(&late));
    assert!(paged("8:8:", "20:20:", 9).covers(&late));
}

#[test]
fn rewinds_as_far_as_the_new_history_asks() {
    let id = |system_id, timeline| Identity {
        system_id,
        timeline,
    };
    let margin = |margin_xids| Rewinds {
        margin_xids,
        ..Rewinds::default()
    };
    let cursor = paged("500:600:500,501", "700:700:", 3);
    assert_eq!(
        rewind(&cursor, id(1, 1), id(1, 2), &margin(0)),
        at("500:500:")
    );
    assert_eq!(
        rewind(&cursor, id(1, 1), id(1, 2), &margin(100)),
        at("400:400:")
    );
    assert_eq!(
        rewind(&cursor, id(1, 1), id(1, 2), &margin(1000)),
        Cursor::earliest()
    );
    assert_eq!(
        rewind(&cursor, id(1, 2), id(1, 1), &margin(0)),
        Cursor::earliest()
    );
    assert_eq!(
        rewind(&cursor, id(1, 1), id(2, 2), &margin(0)),
        Cursor::earliest()
    );
}

#[test]
fn rewinds_to_where_the_timelines_since_began() {
    let id = |timeline| Identity {
        system_id: 1,
        timeline,
    };
    let start = |timeline, first_xid| TimelineStart {
        timeline,
        first_xid,
    };
    let rewinds = Rewinds {
        timelines: vec![start(1, 3), start(3, 450), start(4, 480), start(6, 900)],
        margin_xids: 1000,
    };
    let cursor = at("500:600:500,501");
    let from = |timeline| rewind(&cursor, id(timeline), id(6), &rewinds);
    assert_eq!(from(1), at("450:450:"));
    assert_eq!(from(3), at("480:480:"));
    // What it had not seen comes as well.
    assert_eq!(from(5), at("500:500:"));
    assert_eq!(rewind(&cursor, id(6), id(7), &rewinds), Cursor::earliest());
}

#[test]
fn a_part_may_be_needed_unless_all_of_it_was_delivered() {
    let at = |text: &str| Cursor::at(text.parse().unwrap());
    // Transactions 10 to 20, alerts up to 50.
    let needs = |cursor: &Cursor| cursor.may_need(10, 20, 50);
    assert!(needs(&at("5:5:")));
    assert!(needs(&at("20:20:")));
    assert!(!needs(&at("21:21:")));
    // One that was running then may have been in it, and may have come since.
    assert!(needs(&at("15:30:15")));
    assert!(!needs(&at("9:30:9,25")));
    // Within a window, what is numbered lower was delivered.
    let upper: Snapshot = "40:40:".parse().unwrap();
    assert!(needs(&at("5:5:").inside(&upper, 49)));
    assert!(!needs(&at("5:5:").inside(&upper, 50)));
    let upper: Snapshot = "15:15:".parse().unwrap();
    assert!(needs(&at("5:5:").inside(&upper, 50)));
}
