//! Which alerts a subscriber wants.

use std::collections::BTreeSet;

use pgbraid_shardmap::InstanceName;

use crate::Alert;

/// Which alerts a subscriber wants: those that match every part. An empty part matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Feeds.
    pub feeds: BTreeSet<String>,
    /// Channels: of alerts, and plain ones.
    pub channels: BTreeSet<String>,
    /// Rules.
    pub rules: BTreeSet<String>,
    /// Instances.
    pub instances: BTreeSet<InstanceName>,
}

fn admits(part: &BTreeSet<String>, text: &str) -> bool {
    part.is_empty() || part.contains(text)
}

impl Filter {
    /// Whether it wants this alert, of an instance it wants.
    pub(crate) fn admits(&self, alert: &Alert) -> bool {
        admits(&self.channels, &alert.channel)
            && admits(&self.rules, &alert.rule)
            && admits(&self.feeds, &alert.feed)
    }

    pub(crate) fn admits_instance(&self, instance: InstanceName) -> bool {
        self.instances.is_empty() || self.instances.contains(&instance)
    }

    /// Whether it wants this plain channel. Its messages have neither feed nor rule, so who asks
    /// for those does not get them.
    pub(crate) fn admits_plain(&self, channel: &str) -> bool {
        self.feeds.is_empty() && self.rules.is_empty() && admits(&self.channels, channel)
    }
}
