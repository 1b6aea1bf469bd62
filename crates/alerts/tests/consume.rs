//! A member of a group, over instances that keep their alerts in memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use pgbraid_alerts::{
    Alert, Claim, Consumer, ConsumerEvent, ConsumerOptions, Cursor, Delivery, DeliveryId,
    GroupStore, Hub, HubConfig, Identity, Listener, Page, Settle, Settled, Source, SourceError,
    Wake,
};
use pgbraid_shardmap::InstanceName;
use tokio::time::timeout;

/// How long a delivery lasts.
const VISIBLE: Duration = Duration::from_secs(30);

fn alert(instance: InstanceName, seq: i64) -> Alert {
    Alert {
        instance,
        seq,
        xid: 10,
        feed: "orders".into(),
        rule: "r".into(),
        rule_version: 1,
        channel: "c".into(),
        reason: "why".into(),
        key: "1".into(),
        row: "{}".into(),
        raised_at_us: 0,
        resolved: false,
    }
}

struct Shop {
    instance: InstanceName,
    queue: Mutex<VecDeque<i64>>,
    /// What each claim asked for.
    claims: Mutex<Vec<u32>>,
    settled: Mutex<Vec<(i64, Settle)>>,
    /// Seqs that were settled before by somebody else.
    stale: Mutex<BTreeSet<i64>>,
    numbers: AtomicI64,
    down: AtomicBool,
}

impl Shop {
    fn new(instance: u8, alerts: i64) -> Arc<Self> {
        Arc::new(Self {
            instance: InstanceName::new(instance),
            queue: Mutex::new((1..=alerts).collect()),
            claims: Mutex::default(),
            settled: Mutex::default(),
            stale: Mutex::default(),
            numbers: AtomicI64::new(0),
            down: AtomicBool::new(false),
        })
    }

    fn check(&self) -> Result<(), SourceError> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(SourceError::new("it is down")),
            false => Ok(()),
        }
    }

    fn settled(&self) -> Vec<(i64, Settle)> {
        std::mem::take(&mut self.settled.lock())
    }
}

struct Stock(Arc<Shop>);

struct Silent;

#[async_trait]
impl Listener for Silent {
    async fn next(&mut self, idle: Duration) -> Result<Wake, SourceError> {
        tokio::time::sleep(idle).await;
        Ok(Wake::Idle)
    }
}

#[async_trait]
impl Source for Stock {
    fn instance(&self) -> InstanceName {
        self.0.instance
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        Some(&*self.0)
    }

    async fn identity(&self) -> Result<Identity, SourceError> {
        Ok(Identity {
            system_id: 1,
            timeline: 1,
        })
    }

    async fn now(&self) -> Result<Cursor, SourceError> {
        Ok(Cursor::earliest())
    }

    async fn cursor_at_time(&self, _at_us: i64) -> Result<Cursor, SourceError> {
        Ok(Cursor::earliest())
    }

    async fn read(&self, cursor: &Cursor, _limit: u32) -> Result<Page, SourceError> {
        Ok(Page {
            alerts: Vec::new(),
            next: cursor.clone(),
            more: false,
            dropped: None,
        })
    }

    async fn tracked_feeds(&self) -> Result<Vec<Arc<str>>, SourceError> {
        Ok(Vec::new())
    }

    async fn listen(&self, _channels: &[String]) -> Result<Box<dyn Listener>, SourceError> {
        Ok(Box::new(Silent))
    }
}

#[async_trait]
impl GroupStore for Shop {
    async fn claim(
        &self,
        _group: &str,
        _member: &str,
        limit: u32,
        _max_bytes: u64,
    ) -> Result<Claim, SourceError> {
        self.check()?;
        self.claims.lock().push(limit);
        let claim = self.numbers.fetch_add(1, Ordering::SeqCst);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let deadline = wall.expect("a time after 1970") + VISIBLE;
        let mut queue = self.queue.lock();
        let count = queue.len().min(limit as usize);
        let deliveries = queue.drain(..count).map(|seq| Delivery {
            id: DeliveryId {
                instance: self.instance,
                claim,
                seq,
            },
            alert: Arc::new(alert(self.instance, seq)),
            delivery: 1,
            deadline_us: deadline.as_micros() as i64,
        });
        Ok(Claim {
            deliveries: deliveries.collect(),
            more: !queue.is_empty(),
            next_in: None,
        })
    }

    async fn settle(
        &self,
        _group: &str,
        settlements: &[(DeliveryId, Settle)],
    ) -> Result<Vec<bool>, SourceError> {
        self.check()?;
        let stale = self.stale.lock();
        let open = settlements.iter().map(|(id, settle)| {
            self.settled.lock().push((id.seq, settle.clone()));
            !stale.contains(&id.seq)
        });
        Ok(open.collect())
    }
}

fn member(shops: &[&Arc<Shop>], max_in_flight: u32) -> (Hub, Consumer) {
    let config = HubConfig {
        reconnect_min: Duration::from_millis(1),
        reconnect_max: Duration::from_millis(1),
        ..HubConfig::default()
    };
    let sources = shops.iter().map(|shop| {
        let source: Arc<dyn Source> = Arc::new(Stock((*shop).clone()));
        source
    });
    let hub = Hub::new(config, [0; 16], sources.collect());
    let options = ConsumerOptions {
        group: "g".into(),
        member: "m".into(),
        max_in_flight,
        instances: Vec::new(),
    };
    let consumer = hub.consume(options).expect("a place");
    (hub, consumer)
}

/// The next event, or none within some seconds.
async fn event(consumer: &mut Consumer) -> Option<ConsumerEvent> {
    timeout(Duration::from_secs(5), consumer.next()).await.ok()
}

/// Deliveries until nothing comes for some seconds.
async fn all(consumer: &mut Consumer) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    while let Some(event) = event(consumer).await {
        if let ConsumerEvent::Deliveries(some) = event {
            ids.extend(some.iter().map(|delivery| delivery.id));
        }
    }
    ids
}

async fn answer(consumer: &mut Consumer) -> Vec<(DeliveryId, Settled)> {
    loop {
        match event(consumer).await.expect("an answer") {
            ConsumerEvent::Settled(results) => return results,
            _ => continue,
        }
    }
}

fn seqs(ids: &[DeliveryId]) -> BTreeSet<i64> {
    ids.iter().map(|id| id.seq).collect()
}

#[tokio::test(start_paused = true)]
async fn a_member_holds_no_more_than_it_may_and_gets_more_as_it_settles() {
    let (one, two) = (Shop::new(0, 100), Shop::new(1, 100));
    let (_hub, mut consumer) = member(&[&one, &two], 10);
    let held = all(&mut consumer).await;
    assert_eq!((held.len(), consumer.in_flight()), (10, 10));
    // Each instance has a fair share, and none ever more than half.
    let of = |shop: &Arc<Shop>| {
        held.iter()
            .filter(|id| id.instance == shop.instance)
            .count()
    };
    assert_eq!((of(&one), of(&two)), (5, 5));
    let asked = |shop: &Arc<Shop>| shop.claims.lock().iter().copied().max();
    assert!(asked(&one) <= Some(5) && asked(&two) <= Some(5));
    for id in &held[..3] {
        consumer.settle(*id, Settle::Ack);
    }
    let more = all(&mut consumer).await;
    assert_eq!((more.len(), consumer.in_flight()), (3, 10));
    assert_eq!(consumer.unsettled(), 0);
    // None of what is held comes twice.
    let distinct: BTreeSet<_> = held.iter().chain(&more).collect();
    assert_eq!(distinct.len(), 13);
}

#[tokio::test(start_paused = true)]
async fn an_instance_alone_gives_all_that_there_is_room_for() {
    let shop = Shop::new(0, 7);
    let (_hub, mut consumer) = member(&[&shop], 20);
    assert_eq!(seqs(&all(&mut consumer).await), (1..=7).collect());
    // If it did not answer, there would be room for others.
    assert_eq!(shop.claims.lock().iter().max(), Some(&10));
    // What comes later is found without news of it.
    shop.queue.lock().push_back(8);
    assert_eq!(seqs(&all(&mut consumer).await), [8].into());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_settled_in_time_makes_room() {
    let shop = Shop::new(0, 6);
    let (_hub, mut consumer) = member(&[&shop], 2);
    let held = all(&mut consumer).await;
    assert_eq!(held.len(), 2);
    consumer.settle(held[0], Settle::Extend { by: VISIBLE * 3 });
    assert_eq!(answer(&mut consumer).await, [(held[0], Settled::Done)]);
    tokio::time::advance(VISIBLE).await;
    // The one was extended and is held, the other is over.
    let more = all(&mut consumer).await;
    assert_eq!((more.len(), consumer.in_flight()), (1, 2));
    tokio::time::advance(VISIBLE * 3).await;
    assert_eq!(all(&mut consumer).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_is_answered_and_its_place_is_free() {
    let (one, two) = (Shop::new(0, 9), Shop::new(1, 0));
    let (_hub, mut consumer) = member(&[&one, &two], 3);
    let held = all(&mut consumer).await;
    assert_eq!(held.len(), 3);
    one.stale.lock().insert(held[0].seq);
    consumer.settle(held[0], Settle::Ack);
    assert_eq!(answer(&mut consumer).await, [(held[0], Settled::Stale)]);
    let reason = "no".to_owned();
    let nack = Settle::Nack {
        delay: Duration::from_secs(1),
        reason,
    };
    consumer.settle(held[1], nack.clone());
    assert_eq!(answer(&mut consumer).await, [(held[1], Settled::Done)]);
    let expected = [(held[0].seq, Settle::Ack), (held[1].seq, nack)];
    assert_eq!(one.settled(), expected);
    all(&mut consumer).await;
    assert_eq!(consumer.in_flight(), 3);
    // An extension of what is over gives it no place back.
    one.stale.lock().insert(held[2].seq);
    consumer.settle(held[2], Settle::Extend { by: VISIBLE });
    assert_eq!(answer(&mut consumer).await, [(held[2], Settled::Stale)]);
    // While the instance is down it may hold or not: it stays held, to be said again.
    let held = all(&mut consumer).await;
    one.down.store(true, Ordering::SeqCst);
    consumer.settle(held[0], Settle::Ack);
    let answers = answer(&mut consumer).await;
    assert!(matches!(&answers[..], [(id, Settled::Unavailable(_))] if *id == held[0]));
    assert_eq!(consumer.in_flight(), 3);
    let elsewhere = DeliveryId {
        instance: InstanceName::new(9),
        ..held[0]
    };
    consumer.settle(elsewhere, Settle::Ack);
    let answers = answer(&mut consumer).await;
    assert!(matches!(&answers[..], [(id, Settled::Unavailable(_))] if *id == elsewhere));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_down_is_told_once_and_keeps_nobody_from_the_others() {
    let (one, two) = (Shop::new(0, 5), Shop::new(1, 5));
    one.down.store(true, Ordering::SeqCst);
    let (_hub, mut consumer) = member(&[&one, &two], 100);
    let mut told = Vec::new();
    let mut delivered = 0;
    for _ in 0..2 {
        while let Some(event) = event(&mut consumer).await {
            match event {
                ConsumerEvent::Deliveries(some) => delivered += some.len(),
                ConsumerEvent::InstanceDown(instance, _) => told.push((instance, false)),
                ConsumerEvent::InstanceUp(instance) => told.push((instance, true)),
                ConsumerEvent::Settled(_) => {}
            }
        }
        one.down.store(false, Ordering::SeqCst);
    }
    assert_eq!(told, [(one.instance, false), (one.instance, true)]);
    assert_eq!(delivered, 10);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_gives_back_what_it_holds() {
    for lost in [false, true] {
        let shop = Shop::new(0, 4);
        let (_hub, mut consumer) = member(&[&shop], 3);
        let held = all(&mut consumer).await;
        consumer.settle(held[0], Settle::Ack);
        answer(&mut consumer).await;
        let held = consumer.in_flight();
        shop.settled();
        consumer.leave(Duration::from_secs(5), "gone", lost).await;
        let given = shop.settled();
        assert!(given.len() >= held, "{given:?}");
        assert!(given.iter().all(|(_, settle)| match settle {
            Settle::Release { reason } => !lost && reason == "gone",
            Settle::Nack { delay, reason } => lost && delay.is_zero() && reason == "gone",
            _ => false,
        }));
        // What is detached others will settle.
        let shop = Shop::new(0, 4);
        let (_hub, mut consumer) = member(&[&shop], 3);
        all(&mut consumer).await;
        consumer.detach();
        assert_eq!(shop.settled(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pull_waits_no_longer_than_it_should() {
    let (one, two) = (Shop::new(0, 0), Shop::new(1, 3));
    let (_hub, mut consumer) = member(&[&one, &two], 10);
    let started = tokio::time::Instant::now();
    assert_eq!(consumer.pull(Duration::ZERO).await.len(), 3);
    assert_eq!(started.elapsed(), Duration::ZERO);
    let wait = Duration::from_secs(2);
    assert_eq!(consumer.pull(wait).await, []);
    assert!(started.elapsed() >= wait && started.elapsed() < wait * 2);
    one.queue.lock().push_back(9);
    assert_eq!(consumer.pull(wait).await.len(), 1);
}
