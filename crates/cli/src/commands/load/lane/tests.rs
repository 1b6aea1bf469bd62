use std::sync::Arc;

use pgbraid_client::proto;
use prost::Message;

use super::super::generate::{KeyType, Shape};
use super::super::keys::Choice;
use super::*;

fn lane(pace: Pace, in_flight: usize) -> Lane {
    let shape = Shape {
        feed: "orders".into(),
        key_type: KeyType::Int8,
        columns: vec!["c1".into()],
        columnar: false,
        batch_rows: 1,
        keys: Choice::Sequential,
        key_space: 1000,
        alert_one_in: None,
    };
    Lane::new(Generator::new(Arc::new(shape), 0, 1), pace, in_flight)
}

fn send(lane: &mut Lane, now: Instant) -> u64 {
    match lane.next(now) {
        Next::Send(request) => request.sequence,
        other => panic!("not sent: {other:?}"),
    }
}

#[test]
fn the_window_is_a_bound_and_answers_come_in_any_order() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut lane = lane(Pace::closed(start, at(1000)), 3);
    let sent: Vec<u64> = (0..3).map(|ms| send(&mut lane, at(ms))).collect();
    assert!(matches!(lane.next(at(3)), Next::Full));
    let took = lane.answered(sent[1], at(11));
    let ms = Duration::from_millis;
    let (latency, late) = (ms(10), Duration::ZERO);
    assert_eq!(took, Some(Took { latency, late }));
    assert_eq!(lane.answered(sent[1], at(12)), None, "answered twice");
    assert_eq!(lane.answered(u64::MAX, at(12)), None, "never sent");
    let fourth = send(&mut lane, at(20));
    assert_eq!(
        lane.answered(sent[1], at(21)),
        None,
        "its slot is another's"
    );
    for sequence in [fourth, sent[2], sent[0]] {
        assert!(lane.answered(sequence, at(30)).is_some());
    }
    assert!(!lane.is_done(at(999)) && lane.is_done(at(1000)));
    assert!(matches!(lane.next(at(1000)), Next::Over));
}

/// A router that stands still for half a second: all that were due meanwhile waited.
#[test]
fn latency_counts_from_the_intended_time() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut lane = lane(Pace::open(start, at(1000), 1000.0, 0, 1), 10);
    let mut stuck: Vec<u64> = (0..10).map(|ms| send(&mut lane, at(ms))).collect();
    assert!(matches!(lane.next(at(10)), Next::Full));
    for sequence in stuck.drain(..) {
        assert!(lane.answered(sequence, at(510)).is_some());
    }
    // All that are due go out at once, none of them waits for a timer.
    let mut latencies = Vec::new();
    for _ in 0..501 {
        let sequence = send(&mut lane, at(510));
        latencies.extend(lane.answered(sequence, at(511)));
    }
    assert!(matches!(lane.next(at(510)), Next::Wait(next) if next == at(511)));
    let ms = Duration::from_millis;
    assert_eq!(
        (latencies[0].latency, latencies[0].late),
        (ms(501), ms(500))
    );
    assert_eq!(
        (latencies[500].latency, latencies[500].late),
        (ms(1), ms(0))
    );
    assert_eq!(lane.behind().requests, 489, "the rest is still to come");
}

#[test]
fn what_was_on_a_lost_stream_goes_again_in_order() {
    let start = Instant::now();
    let end = start + Duration::from_secs(1);
    let mut lane = lane(Pace::closed(start, end), 4);
    let sent: Vec<u64> = (0..4).map(|_| send(&mut lane, start)).collect();
    assert!(lane.answered(sent[1], start).is_some());
    lane.lost();
    let late = end + Duration::from_secs(1);
    let again: Vec<u64> = (0..3).map(|_| send(&mut lane, late)).collect();
    assert_eq!(again, [sent[0], sent[2], sent[3]]);
    assert!(matches!(lane.next(late), Next::Over));
    assert!(!lane.is_done(late));
    for sequence in again {
        assert!(lane.answered(sequence, late).is_some());
    }
    assert!(lane.is_done(late));
}

#[test]
fn requests_are_what_they_should_be() {
    let start = Instant::now();
    let end = start + Duration::from_secs(1);
    let mut lane = lane(Pace::closed(start, end), 4);
    for key in 0..3 {
        let Next::Send(request) = lane.next(start) else {
            panic!("not sent")
        };
        let request = proto::WriteRequest::decode(request.body).unwrap();
        let Some(proto::write_request::Form::Rows(batch)) = request.form else {
            panic!("not rows")
        };
        let key = proto::value::Kind::Int(key);
        assert_eq!(batch.rows[0].key.as_ref().unwrap().kind, Some(key));
    }
}
