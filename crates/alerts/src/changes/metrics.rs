//! What the change stream counts.

use metrics::{Counter, SharedString, Unit, counter, describe_counter, describe_gauge, gauge};
use pgbraid_shardmap::InstanceName;

use super::Cause;

const READ: &str = "pgbraid_changes_read_total";
const DELIVERED: &str = "pgbraid_changes_delivered_total";
const RESETS: &str = "pgbraid_change_resets_total";
const FOLLOWERS: &str = "pgbraid_change_subscribers";

/// Describes them, and exports the zeros of those that have no instance.
pub(crate) fn describe() {
    let text = "Changed keys told by the instances, once per router.";
    describe_counter!(READ, Unit::Count, text);
    let text = "Changed keys handed to subscribers, once per subscriber.";
    describe_counter!(DELIVERED, Unit::Count, text);
    let text = "Times that subscribers were told to forget what they know, once per subscriber.";
    describe_counter!(RESETS, Unit::Count, text);
    describe_gauge!(FOLLOWERS, Unit::Count, "Change streams that are open.");
    delivered().increment(0);
    Cause::ALL
        .iter()
        .for_each(|cause| resets(*cause).increment(0));
    set_followers(0);
}

pub(crate) fn delivered() -> Counter {
    counter!(DELIVERED)
}

pub(crate) fn resets(cause: Cause) -> Counter {
    counter!(RESETS, "cause" => cause.label())
}

pub(crate) fn read(instance: InstanceName) -> Counter {
    let instance: SharedString = instance.to_string().into();
    let counter = counter!(READ, "instance" => instance);
    counter.increment(0);
    counter
}

pub(crate) fn set_followers(count: usize) {
    gauge!(FOLLOWERS).set(count as f64);
}
