//! Subscribers that note when each probe's alert arrives.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pgbraid_proto::v1::{
    self, alerts_client::AlertsClient, subscribe_request::Start, subscribe_response::Event,
};
use tokio::{sync::watch, task::JoinSet};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use super::{
    latencies::Latencies,
    probe::{CHANNEL, Written},
};

/// How long alerts may still be under way after the last commit.
const LATEST: Duration = Duration::from_secs(20);

/// The smallest that HTTP/2 lets a connection begin with: so little is buffered for a subscriber
/// that reads nothing.
const SMALLEST_WINDOW: u32 = 65_535;

/// Connects for subscribers.
pub async fn connect(grpc: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(grpc.to_owned())?;
    Ok(endpoint.connect().await?)
}

/// Opens a stream of all probes' alerts that are kept, and reads nothing, for as long as the
/// stream lives.
pub async fn stopped_reader(grpc: &str) -> Result<Streaming<v1::SubscribeResponse>> {
    let endpoint = Endpoint::from_shared(grpc.to_owned())?
        .initial_stream_window_size(SMALLEST_WINDOW)
        .initial_connection_window_size(SMALLEST_WINDOW);
    subscribe(endpoint.connect().await?, Start::Earliest(v1::Earliest {})).await
}

async fn subscribe(channel: Channel, start: Start) -> Result<Streaming<v1::SubscribeResponse>> {
    let filter = v1::Filter {
        channels: vec![CHANNEL.into()],
        ..Default::default()
    };
    let request = v1::SubscribeRequest {
        filter: Some(filter),
        start: Some(start),
        heartbeat: None,
    };
    let stream = AlertsClient::new(channel).subscribe(request).await;
    Ok(stream.context("subscribing")?.into_inner())
}

/// How far a subscriber shall go on.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// There may be more.
    Told,
    /// So many probes were written.
    Received(usize),
    /// Not any longer.
    Now,
}

/// Subscribers of the probes from a key on.
pub struct Listeners {
    until: watch::Sender<Until>,
    tasks: JoinSet<Result<Arrivals>>,
}

/// What has reached the subscribers.
pub struct Heard {
    /// From the commit's return to the arrival; an alert that came before counts as 0.
    pub latencies: Latencies,
    /// Alerts that did not reach a subscriber.
    pub lost: u64,
}

impl Listeners {
    /// Subscribes so many times over the connections, from now on.
    pub async fn start(channels: &[Channel], count: usize, first_key: i64) -> Result<Self> {
        let (until, watched) = watch::channel(Until::Told);
        let mut tasks = JoinSet::new();
        for channel in channels.iter().cycle().take(count) {
            let stream = subscribe(channel.clone(), Start::Now(v1::Now {})).await?;
            let arrivals = Arrivals::from(first_key);
            tasks.spawn(arrivals.collect(stream, watched.clone()));
        }
        if tasks.len() != count {
            bail!("no connection for {count} subscribers");
        }
        Ok(Self { until, tasks })
    }

    /// Waits until all have received everything that was written, or for 20 seconds.
    pub async fn finish(mut self, written: &Written) -> Result<Heard> {
        let probes = written.committed.len();
        self.until.send_replace(Until::Received(probes));
        let until = self.until.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(LATEST).await;
            until.send_replace(Until::Now);
        });
        let mut heard = Heard {
            latencies: Latencies::new()?,
            lost: 0,
        };
        while let Some(arrivals) = self.tasks.join_next().await {
            heard.take(&arrivals??, written);
        }
        timer.abort();
        Ok(heard)
    }
}

impl Heard {
    fn take(&mut self, arrivals: &Arrivals, written: &Written) {
        for (index, committed) in written.committed.iter().enumerate() {
            match arrivals.at.get(index).copied().flatten() {
                Some(at) => self
                    .latencies
                    .record(at.saturating_duration_since(*committed)),
                None => self.lost += 1,
            }
        }
    }

    /// Alerts that arrived, over all subscribers.
    pub fn delivered(&self) -> u64 {
        self.latencies.count()
    }
}

/// When the alert of each key arrived first.
struct Arrivals {
    first_key: i64,
    at: Vec<Option<Instant>>,
    received: usize,
}

impl Arrivals {
    fn from(first_key: i64) -> Self {
        Self {
            first_key,
            at: Vec::new(),
            received: 0,
        }
    }

    fn note(&mut self, key: &str, now: Instant) -> Result<()> {
        let key: i64 = key
            .parse()
            .with_context(|| format!("an alert for the key {key:?}, which is no probe's"))?;
        // Probes of an earlier measurement may still be on their way.
        let Some(index) = key
            .checked_sub(self.first_key)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return Ok(());
        };
        if index >= self.at.len() {
            self.at.resize(index + 1, None);
        }
        let at = &mut self.at[index];
        if at.is_none() {
            *at = Some(now);
            self.received += 1;
        }
        Ok(())
    }

    async fn collect(
        mut self,
        mut stream: Streaming<v1::SubscribeResponse>,
        mut until: watch::Receiver<Until>,
    ) -> Result<Self> {
        loop {
            let enough = match *until.borrow_and_update() {
                Until::Told => false,
                Until::Received(probes) => self.received >= probes,
                Until::Now => true,
            };
            if enough {
                return Ok(self);
            }
            tokio::select! {
                message = stream.message() => {
                    let message = message.context("a subscriber's stream broke")?;
                    let message = message.context("the router ended a subscriber's stream")?;
                    if let Some(Event::Alert(alert)) = message.event {
                        self.note(&alert.key, Instant::now())?;
                    }
                }
                changed = until.changed() => changed.context("nobody waits for it any more")?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_matched_with_commits() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut arrivals = Arrivals::from(100);
        arrivals.note("101", at(13)).unwrap();
        arrivals.note("101", at(99)).unwrap();
        arrivals.note("100", at(8)).unwrap();
        arrivals.note("99", at(9)).unwrap();
        assert!(arrivals.note("x", at(9)).is_err());
        assert_eq!(arrivals.received, 2);
        let mut heard = Heard {
            latencies: Latencies::new().unwrap(),
            lost: 0,
        };
        // The first arrived before its commit had returned, the last never.
        let written = Written {
            committed: vec![at(9), at(10), at(11)],
        };
        heard.take(&arrivals, &written);
        assert_eq!((heard.delivered(), heard.lost), (2, 1));
        assert!((heard.latencies.max_ms() - 3.0).abs() < 0.01);
        assert!(heard.latencies.quantile_ms(0.5) < 0.01);
    }
}
