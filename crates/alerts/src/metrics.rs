//! Every metric of this crate, and nothing else.
//!
//! Install the recorder before the first [`Hub`](crate::Hub) is made: handles are kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use metrics::{
    Counter, Gauge, Histogram, SharedString, Unit, counter, describe_counter, describe_gauge,
    describe_histogram, gauge, histogram,
};
use parking_lot::RwLock;
use pgbraid_shardmap::InstanceName;

use crate::{Alert, Delivery, Settle};

const ALERTS_READ: &str = "pgbraid_alerts_read_total";
const ALERTS_DELIVERED: &str = "pgbraid_alerts_delivered_total";
const ALERT_LATENCY: &str = "pgbraid_alert_latency_seconds";
const NOTIFICATIONS: &str = "pgbraid_notifications_total";
const GAPS: &str = "pgbraid_gaps_total";
const RECONNECTS: &str = "pgbraid_listen_reconnects_total";
const READABLE: &str = "pgbraid_instance_readable";
const CURSOR_LAG: &str = "pgbraid_cursor_lag_seconds";
const BUFFERED: &str = "pgbraid_alert_buffered_bytes";
const SUBSCRIBERS: &str = "pgbraid_subscribers";
const CATCHUP_READS: &str = "pgbraid_catchup_reads_total";
const GROUP_DELIVERIES: &str = "pgbraid_group_deliveries_total";
const GROUP_REDELIVERIES: &str = "pgbraid_group_redeliveries_total";
const GROUP_SETTLED: &str = "pgbraid_group_settled_total";

/// Channels are named by users: beyond this many, the label says `other`.
const MAX_CHANNEL_LABELS: usize = 100;
const OTHER_CHANNEL: &str = "other";

/// Describes every metric of this crate to the installed recorder, and exports the zeros of those
/// that have no instance.
pub fn describe() {
    let count = |name, text| describe_counter!(name, Unit::Count, text);
    count(
        ALERTS_READ,
        "Alerts read from the instances' outboxes, once per router.",
    );
    count(
        ALERTS_DELIVERED,
        "Alerts handed to subscribers, once per subscriber.",
    );
    count(NOTIFICATIONS, "Messages received on plain channels.");
    count(
        GAPS,
        "Times that messages on plain channels may have been lost.",
    );
    count(
        RECONNECTS,
        "Attempts to listen on an instance again after a failure.",
    );
    count(
        CATCHUP_READS,
        "Outbox reads for subscribers that the ring no longer reaches.",
    );
    count(GROUP_DELIVERIES, "Alerts delivered to members of groups.");
    count(
        GROUP_REDELIVERIES,
        "Of these, those that had been delivered before.",
    );
    count(
        GROUP_SETTLED,
        "Deliveries settled, by how: ack, nack, release, terminate, extend, or stale where it came too late.",
    );
    describe_histogram!(
        ALERT_LATENCY,
        Unit::Seconds,
        "From an alert being raised (the instance's clock) to a live subscriber (the router's)."
    );
    describe_gauge!(
        READABLE,
        Unit::Count,
        "1 while the instance's outbox is followed, 0 while it cannot be read, NaN once removed."
    );
    describe_gauge!(
        CURSOR_LAG,
        Unit::Seconds,
        "Time since the outbox was last read to its end."
    );
    describe_gauge!(
        BUFFERED,
        Unit::Bytes,
        "Alerts of the instance kept in memory for all subscribers."
    );
    describe_gauge!(SUBSCRIBERS, Unit::Count, "Subscriptions that are open.");
    crate::changes::metrics::describe();
    gauge!(SUBSCRIBERS).set(0.0);
    counter!(ALERTS_DELIVERED, "channel" => OTHER_CHANNEL).increment(0);
}

/// The channel labels in use, a closed set once it is full.
#[derive(Debug, Default)]
pub(crate) struct ChannelLabels(RwLock<HashSet<Arc<str>>>);

impl ChannelLabels {
    fn label(&self, channel: &Arc<str>) -> SharedString {
        if self.0.read().contains(channel) {
            return channel.clone().into();
        }
        let mut labels = self.0.write();
        if labels.len() >= MAX_CHANNEL_LABELS && !labels.contains(channel) {
            return SharedString::const_str(OTHER_CHANNEL);
        }
        labels.insert(channel.clone());
        channel.clone().into()
    }
}

/// The metrics of one group. There are as many groups as users make: few.
pub(crate) struct GroupMetrics {
    deliveries: Counter,
    redeliveries: Counter,
    settled: [Counter; 6],
}

impl GroupMetrics {
    pub(crate) fn new(group: &str) -> Self {
        let group: SharedString = group.to_owned().into();
        let zero = |name: &'static str| {
            let counter = counter!(name, "group" => group.clone());
            counter.increment(0);
            counter
        };
        let how = ["ack", "nack", "release", "terminate", "extend", "stale"];
        Self {
            deliveries: zero(GROUP_DELIVERIES),
            redeliveries: zero(GROUP_REDELIVERIES),
            settled: how.map(|how| {
                let counter = counter!(GROUP_SETTLED, "group" => group.clone(), "how" => how);
                counter.increment(0);
                counter
            }),
        }
    }

    pub(crate) fn delivered(&self, deliveries: &[Delivery]) {
        let again = deliveries.iter().filter(|one| one.delivery > 1).count();
        self.deliveries.increment(deliveries.len() as u64);
        self.redeliveries.increment(again as u64);
    }

    pub(crate) fn settled(&self, settle: &Settle, open: bool) {
        let at = match settle {
            _ if !open => 5,
            Settle::Ack => 0,
            Settle::Nack { .. } => 1,
            Settle::Release { .. } => 2,
            Settle::Terminate { .. } => 3,
            Settle::Extend { .. } => 4,
        };
        self.settled[at].increment(1);
    }
}

/// The metrics of one instance.
pub(crate) struct InstanceMetrics {
    instance: SharedString,
    pub(crate) notifications: Counter,
    pub(crate) gaps: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) catchup_reads: Counter,
    pub(crate) readable: Gauge,
    pub(crate) cursor_lag: Gauge,
    pub(crate) buffered: Gauge,
}

impl InstanceMetrics {
    pub(crate) fn new(instance: InstanceName) -> Self {
        let instance: SharedString = instance.to_string().into();
        let zero = |name| {
            let counter = counter!(name, "instance" => instance.clone());
            counter.increment(0);
            counter
        };
        let metrics = Self {
            notifications: zero(NOTIFICATIONS),
            gaps: zero(GAPS),
            reconnects: zero(RECONNECTS),
            catchup_reads: zero(CATCHUP_READS),
            readable: gauge!(READABLE, "instance" => instance.clone()),
            cursor_lag: gauge!(CURSOR_LAG, "instance" => instance.clone()),
            buffered: gauge!(BUFFERED, "instance" => instance.clone()),
            instance,
        };
        counter!(ALERTS_READ, "instance" => metrics.instance.clone(), "channel" => OTHER_CHANNEL)
            .increment(0);
        metrics.readable.set(0.0);
        metrics.cursor_lag.set(0.0);
        metrics.buffered.set(0.0);
        metrics
    }

    /// Counts a batch, with one look-up per run of alerts of one channel.
    pub(crate) fn alerts_read(&self, labels: &ChannelLabels, alerts: &[Arc<Alert>]) {
        for run in alerts.chunk_by(|a, b| a.channel == b.channel) {
            let channel = labels.label(&run[0].channel);
            counter!(ALERTS_READ, "instance" => self.instance.clone(), "channel" => channel)
                .increment(run.len() as u64);
        }
    }

    /// A gauge cannot be withdrawn, but NaN raises no alarm.
    pub(crate) fn retire(&self) {
        self.readable.set(f64::NAN);
        self.cursor_lag.set(f64::NAN);
        self.buffered.set(f64::NAN);
    }
}

/// What one subscription counts. Its handles are its own, so that subscribers share no lock.
pub(crate) struct DeliveryMetrics {
    delivered: HashMap<Arc<str>, Counter>,
    latency: Histogram,
}

impl DeliveryMetrics {
    pub(crate) fn new() -> Self {
        Self {
            delivered: HashMap::new(),
            latency: histogram!(ALERT_LATENCY),
        }
    }

    pub(crate) fn delivered(
        &mut self,
        labels: &ChannelLabels,
        alert: &Alert,
        live_at_us: Option<i64>,
    ) {
        match self.delivered.get(&alert.channel) {
            Some(counter) => counter.increment(1),
            None => {
                let label = labels.label(&alert.channel);
                let counter = counter!(ALERTS_DELIVERED, "channel" => label);
                counter.increment(1);
                // Bounded as the labels are; the channels beyond them are looked up each time.
                if self.delivered.len() < MAX_CHANNEL_LABELS {
                    self.delivered.insert(alert.channel.clone(), counter);
                }
            }
        }
        if let Some(now_us) = live_at_us {
            // The two clocks may differ; a negative time would be nonsense.
            let latency_us = now_us.saturating_sub(alert.raised_at_us).max(0);
            self.latency.record(latency_us as f64 / 1e6);
        }
    }
}

pub(crate) fn set_subscribers(count: usize) {
    gauge!(SUBSCRIBERS).set(count as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_labels_are_bounded() {
        let labels = ChannelLabels::default();
        for number in 0..MAX_CHANNEL_LABELS {
            let channel: Arc<str> = format!("c{number}").into();
            assert_eq!(labels.label(&channel), SharedString::from(channel.clone()));
        }
        assert_eq!(labels.label(&"more".into()).as_ref(), OTHER_CHANNEL);
        assert_eq!(labels.label(&"c7".into()).as_ref(), "c7");
    }
}
