//! Followers of changes, over an instance that tells what the test says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pgbraid_alerts::{
    Change, ChangeEvent, ChangeFollower, ChangeOp, ChangeOptions, Cursor, Hub, HubConfig, Identity,
    Listener, Page, Source, SourceError, Wake,
};
use pgbraid_shardmap::InstanceName;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

#[derive(Clone, Default)]
struct Told {
    tracked: Arc<Mutex<Vec<Arc<str>>>>,
    listener: Arc<Mutex<Option<UnboundedSender<Wake>>>>,
}

impl Told {
    fn tell(&self, wake: Wake) {
        let listener = self.listener.lock();
        let told = listener.as_ref().map(|listener| listener.send(wake));
        told.expect("the hub listens").expect("the hub listens");
    }

    fn changed(&self, feed: &str, key: &str) {
        self.tell(Wake::Changed(vec![Change {
            feed: feed.into(),
            op: ChangeOp::Update,
            columns: None,
            keys: [key].into_iter().collect(),
        }]));
    }
}

struct Heard(UnboundedReceiver<Wake>);

#[async_trait]
impl Listener for Heard {
    async fn next(&mut self, idle: Duration) -> Result<Wake, SourceError> {
        match timeout(idle, self.0.recv()).await {
            Ok(Some(wake)) => Ok(wake),
            Ok(None) => Err(SourceError::new("closed")),
            Err(_) => Ok(Wake::Idle),
        }
    }
}

#[async_trait]
impl Source for Told {
    fn instance(&self) -> InstanceName {
        InstanceName::new(0)
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

    async fn read(&self, cursor: &Cursor, _limit: u32) -> Result<Page, SourceError> {
        Ok(Page {
            alerts: Vec::new(),
            next: cursor.clone(),
            more: false,
            dropped: None,
        })
    }

    async fn cursor_at_time(&self, _at_us: i64) -> Result<Cursor, SourceError> {
        Ok(Cursor::earliest())
    }

    async fn tracked_feeds(&self) -> Result<Vec<Arc<str>>, SourceError> {
        Ok(self.tracked.lock().clone())
    }

    async fn listen(&self, _channels: &[String]) -> Result<Box<dyn Listener>, SourceError> {
        let (tell, heard) = unbounded_channel();
        *self.listener.lock() = Some(tell);
        Ok(Box::new(Heard(heard)))
    }
}

fn hub(told: &Told, ring_bytes: usize) -> Hub {
    let config = HubConfig {
        ring_bytes,
        reconnect_min: Duration::from_millis(1),
        ..HubConfig::default()
    };
    Hub::new(config, [0; 16], vec![Arc::new(told.clone())])
}

fn follow(hub: &Hub) -> ChangeFollower {
    let options = ChangeOptions {
        feeds: ["orders".to_owned()].into(),
        heartbeat: Duration::from_secs(60),
    };
    hub.follow_changes(options).expect("a place")
}

/// The next event but heartbeats, in short.
async fn next(follower: &mut ChangeFollower) -> String {
    loop {
        let event = timeout(Duration::from_secs(10), follower.next()).await;
        match event.expect("an event") {
            ChangeEvent::Heartbeat { .. } => {}
            ChangeEvent::Live { .. } => return "live".into(),
            ChangeEvent::Reset { reason, .. } => return format!("reset: {reason}"),
            ChangeEvent::Changes { changes, .. } => {
                let keys = changes.iter().flat_map(|change| change.keys.iter());
                return keys.collect::<Vec<_>>().join(",");
            }
        }
    }
}

async fn live(follower: &mut ChangeFollower) {
    while next(follower).await != "live" {}
}

#[tokio::test]
async fn who_is_too_slow_is_told_and_goes_on() {
    let told = Told::default();
    told.tracked.lock().push("orders".into());
    let hub = hub(&told, 2000);
    let (mut fast, mut slow) = (follow(&hub), follow(&hub));
    live(&mut fast).await;
    live(&mut slow).await;
    for number in 0..1000 {
        let key = number.to_string();
        told.changed("orders", &key);
        assert_eq!(next(&mut fast).await, key);
    }
    let behind = next(&mut slow).await;
    assert!(behind.contains("faster than they were taken"), "{behind}");
    assert_eq!(next(&mut slow).await, "live");
    told.changed("others", "0");
    told.changed("orders", "x");
    assert_eq!(next(&mut slow).await, "x");
}

#[tokio::test]
async fn an_instance_is_live_only_for_what_it_tells() {
    let told = Told::default();
    let hub = hub(&told, 1 << 20);
    let mut follower = follow(&hub);
    assert!(next(&mut follower).await.starts_with("reset"));
    told_when_listening(&told).await;
    told.tracked.lock().push("orders".into());
    told.tell(Wake::Ownership);
    live(&mut follower).await;
    told.changed("orders", "1");
    assert_eq!(next(&mut follower).await, "1");
    // The instance tells it no more.
    told.tracked.lock().clear();
    told.tell(Wake::Ownership);
    assert!(next(&mut follower).await.starts_with("reset"));
    told.tracked.lock().push("orders".into());
    told.tell(Wake::Ownership);
    live(&mut follower).await;
    // The connection is lost, and comes back.
    *told.listener.lock() = None;
    assert_eq!(next(&mut follower).await, "reset: closed");
    live(&mut follower).await;
    // The instance leaves the map.
    hub.set_sources(Vec::new());
    assert!(next(&mut follower).await.starts_with("reset"));
}

async fn told_when_listening(told: &Told) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while told.listener.lock().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "nobody listens");
        tokio::task::yield_now().await;
    }
}
