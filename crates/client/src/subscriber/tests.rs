use tonic::Status;

use super::*;
use crate::fake_alerts::Fake;
use crate::{MemoryTokenStore, StoredSubscriber, TokenStore};

fn alert(seq: i64, token: &str) -> Result<v1::SubscribeResponse, Status> {
    Ok(v1::SubscribeResponse {
        event: Some(WireEvent::Alert(v1::Alert {
            instance: "db0".into(),
            seq,
            ..Default::default()
        })),
        token: token.into(),
    })
}

#[tokio::test]
async fn it_resumes_after_the_last_token_without_repeats() {
    let fake = Fake::new(|_, _, _| false);
    fake.script.lock().unwrap().extend([
        vec![
            alert(1, ""),
            alert(2, "t2"),
            alert(3, ""),
            Err(Status::unavailable("lost")),
        ],
        // From t2: 3 again, then new ones.
        vec![alert(3, ""), alert(4, "t4"), alert(5, "t5")],
    ]);
    let client = fake.client().await;
    let options = SubscribeOptions {
        start: Start::Earliest,
        backoff: Backoff {
            min: Duration::from_millis(1),
            max: Duration::from_millis(2),
        },
        ..SubscribeOptions::default()
    };
    let mut subscriber = Subscriber::start(client, options).await.unwrap();
    let (mut seqs, mut lost) = (Vec::new(), 0);
    let error = loop {
        match subscriber.next().await.map(|received| received.event) {
            Ok(Event::Alert(alert)) => seqs.push(alert.seq),
            Ok(Event::Disconnected { .. }) => lost += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!((seqs, lost), (vec![1, 2, 3, 4, 5], 2));
    assert_eq!(error.to_string(), "the script has ended");
    assert_eq!(subscriber.token(), Some("t5"));
    let starts = fake.starts.lock().unwrap().clone();
    let token = |text: &str| Some(WireStart::Token(text.into()));
    assert_eq!(starts[1..], [token("t2"), token("t5")]);
    assert!(matches!(subscriber.next().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_position_is_saved_only_after_it_was_handled() {
    let fake = Fake::new(|_, _, _| false);
    let script = vec![alert(1, "t1"), alert(2, "t2"), alert(3, "t3")];
    fake.script.lock().unwrap().push_back(script);
    let store = MemoryTokenStore::default();
    store.save("t0").await.unwrap();
    let client = fake.client().await;
    let options = SubscribeOptions::default();
    let started = StoredSubscriber::start(client.clone(), options.clone(), store.clone()).await;
    let mut subscriber = started.unwrap().save_every(Duration::ZERO);
    for (seen, saved) in [("t1", "t0"), ("t2", "t1"), ("t3", "t2")] {
        let received = subscriber.next().await.unwrap();
        assert_eq!(received.token.as_deref(), Some(seen));
        // What is being handled now is not saved yet.
        assert_eq!(store.token().as_deref(), Some(saved));
    }
    subscriber.flush().await.unwrap();
    assert_eq!(store.token().as_deref(), Some("t3"));
    drop(subscriber);
    let again = StoredSubscriber::start(client, options, store).await;
    assert!(again.is_err(), "the script has ended");
    let token = |text: &str| Some(WireStart::Token(text.into()));
    assert_eq!(*fake.starts.lock().unwrap(), [token("t0"), token("t3")]);
}
