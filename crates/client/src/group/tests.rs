//! Members against a router from a script.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::SystemTime;

use pgbraid_proto::v1::consume_request::Request as Ask;
use pgbraid_proto::v1::consume_response::Response as Told;
use pgbraid_proto::v1::settle_result::Outcome as Wire;
use pgbraid_proto::v1::settlement::How;
use tokio::time::timeout;
use tonic::Status;

use super::*;
use crate::fake_alerts::{Answers, Fake};

const LIMIT: Duration = Duration::from_secs(20);

async fn limited<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it happens in time")
}

fn tell(answers: &Answers, told: Told) {
    let response = v1::ConsumeResponse {
        response: Some(told),
    };
    answers.try_send(Ok(response)).unwrap();
}

fn deliver(answers: &Answers, ids: &[(&str, i64)], visible: Duration) {
    let one = |(id, seq): &(&str, i64)| v1::Delivery {
        alert: Some(v1::Alert {
            instance: "db0".into(),
            seq: *seq,
            ..Default::default()
        }),
        id: (*id).into(),
        delivery: 1,
        deadline: Some((SystemTime::now() + visible).into()),
    };
    let deliveries = ids.iter().map(one).collect();
    tell(answers, Told::Deliveries(v1::Deliveries { deliveries }));
}

fn confirm(answers: &Answers, settlement: &v1::Settlement, outcome: Wire) {
    let result = |id: &String| v1::SettleResult {
        id: id.clone(),
        outcome: outcome.into(),
        reason: String::new(),
    };
    let results = settlement.ids.iter().map(result).collect();
    tell(answers, Told::Settled(v1::Settled { results }));
}

fn options() -> ConsumeOptions {
    ConsumeOptions {
        backoff: Backoff {
            min: Duration::from_millis(1),
            max: Duration::from_millis(5),
        },
        ..ConsumeOptions::new("g")
    }
}

/// Settlements seen, by session.
type Seen = Arc<Mutex<Vec<(usize, v1::Settlement)>>>;

#[tokio::test]
async fn an_unconfirmed_ack_is_sent_again_over_the_next_connection() {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let fake = Fake::new(move |session, asked, answers| match asked {
        Ask::Join(join) => {
            assert_eq!((join.group.as_str(), join.max_in_flight), ("g", 100));
            if session == 0 {
                deliver(answers, &[("a", 1), ("b", 2), ("c", 3)], LIMIT);
            }
            true
        }
        Ask::Settlement(settlement) => {
            noted.lock().unwrap().push((session, settlement.clone()));
            match session {
                0 if settlement.ids == ["a"] => confirm(answers, &settlement, Wire::Settled),
                0 => return false, // breaks with the ack of b under way
                _ => confirm(answers, &settlement, Wire::Settled),
            }
            true
        }
    });
    let client = fake.client().await;
    let mut consumer = GroupConsumer::join(client, options()).await.unwrap();
    let first = limited(consumer.next_delivery()).await.unwrap();
    assert_eq!((first.id.as_str(), first.delivery), ("a", 1));
    assert_eq!(limited(first.ack()).await.unwrap(), Outcome::Settled);
    let second = limited(consumer.next_delivery()).await.unwrap();
    assert_eq!(limited(second.ack()).await.unwrap(), Outcome::Settled);
    // Nobody had looked at c: it was given back. The consumer is told of the loss.
    let lost = limited(consumer.next()).await.unwrap();
    assert!(matches!(lost, GroupEvent::Disconnected { .. }), "{lost:?}");
    limited(consumer.leave()).await.unwrap();
    let seen = seen.lock().unwrap();
    let later: BTreeMap<&str, &How> = seen
        .iter()
        .filter(|(session, _)| *session == 1)
        .flat_map(|(_, one)| {
            one.ids
                .iter()
                .map(|id| (id.as_str(), one.how.as_ref().unwrap()))
        })
        .collect();
    assert_eq!(later.keys().copied().collect::<Vec<_>>(), ["b", "c"]);
    assert!(matches!(later["b"], How::Ack(_)), "{later:?}");
    assert!(matches!(later["c"], How::Nack(_)), "{later:?}");
}

#[tokio::test]
async fn outcomes_are_told_and_a_removed_group_ends_it() {
    let fake = Fake::new(move |_, asked, answers| match asked {
        Ask::Join(_) => {
            deliver(answers, &[("a", 1), ("b", 2)], LIMIT);
            true
        }
        Ask::Settlement(settlement) if settlement.ids == ["a"] => {
            confirm(answers, &settlement, Wire::Stale);
            true
        }
        Ask::Settlement(_) => {
            let gone = Status::not_found("the group \"g\" was removed");
            answers.try_send(Err(gone)).unwrap();
            true
        }
    });
    let client = fake.client().await;
    let mut consumer = GroupConsumer::join(client, options()).await.unwrap();
    let a = limited(consumer.next_delivery()).await.unwrap();
    let b = limited(consumer.next_delivery()).await.unwrap();
    let late = limited(a.nack(Duration::ZERO, "no")).await.unwrap();
    assert_eq!(late, Outcome::Stale);
    let error = limited(b.terminate("never")).await.unwrap_err();
    assert!(error.to_string().contains("was removed"), "{error}");
    let error = limited(consumer.next()).await.unwrap_err();
    assert!(error.to_string().contains("was removed"), "{error}");
}

#[tokio::test]
async fn a_run_extends_acks_nacks_and_handles_nothing_twice_at_once() {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let again = Mutex::new(false);
    let fake = Fake::new(move |session, asked, answers| match asked {
        Ask::Join(_) => {
            let some = [("slow", 1), ("bad", 2), ("panics", 3), ("never", 4)];
            deliver(answers, &some, Duration::from_millis(600));
            true
        }
        Ask::Settlement(settlement) => {
            noted.lock().unwrap().push((session, settlement.clone()));
            let extends = matches!(settlement.how, Some(How::Extend(_)));
            let slow = settlement.ids.iter().any(|id| id == "slow");
            let mut again = again.lock().unwrap();
            // The slow one comes a second time while its handler runs, and its old id is stale.
            if extends && slow && !std::mem::replace(&mut *again, true) {
                deliver(answers, &[("slow again", 1)], LIMIT);
            }
            let outcome = if slow { Wire::Stale } else { Wire::Settled };
            confirm(answers, &settlement, outcome);
            true
        }
    });
    let client = fake.client().await;
    let consumer = GroupConsumer::join(client, options()).await.unwrap();
    let handlers = Arc::new(Mutex::new(Vec::new()));
    let (started, acked) = (Arc::clone(&handlers), Arc::clone(&seen));
    let of = |seen: &Seen, wanted: &str| {
        let seen = seen.lock().unwrap();
        let mut found = seen
            .iter()
            .filter(|(_, one)| one.ids.iter().any(|id| id == wanted));
        found.rfind(|_| true).and_then(|(_, one)| one.how.clone())
    };
    let stop = async move {
        while !matches!(of(&acked, "slow again"), Some(How::Ack(_))) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let until = Arc::clone(&seen);
    let handler = move |message: Arc<Message>| {
        let (started, until) = (Arc::clone(&started), Arc::clone(&until));
        async move {
            started.lock().unwrap().push(message.alert.seq);
            match message.alert.seq {
                1 => {
                    // Until the second delivery was extended in place of the first.
                    while of(&until, "slow again").is_none() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Ok(())
                }
                2 => Err("x".parse::<i32>().unwrap_err())?,
                3 => panic!("on purpose"),
                _ => Err(Nack::terminate("hopeless")),
            }
        }
    };
    let handled = consumer.run_until(RunOptions::default(), stop, handler);
    let handled = limited(handled).await.unwrap();
    let mut handlers = handlers.lock().unwrap().clone();
    handlers.sort_unstable();
    assert_eq!(handlers, [1, 2, 3, 4], "each was handled once");
    let all = Handled {
        acked: 1,
        nacked: 2,
        terminated: 1,
        unconfirmed: 0,
    };
    assert_eq!(handled, all);
    let reason = |id| match of(&seen, id) {
        Some(How::Nack(nack)) => nack.reason,
        Some(How::Terminate(terminate)) => terminate.reason,
        how => panic!("{how:?}"),
    };
    assert!(reason("bad").contains("invalid digit"), "{}", reason("bad"));
    assert_eq!(reason("panics"), "the handler panicked");
    assert_eq!(reason("never"), "hopeless");
}
