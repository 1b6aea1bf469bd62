//! What ingestion counts, in one place.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use pgbraid_shardmap::InstanceName;

use crate::Code;

/// Names and units of all metrics of this crate.
pub fn describe() {
    describe_counter!(
        "pgbraid_rows_total",
        "Rows by instance and outcome: committed, invalid, unavailable, exhausted"
    );
    describe_counter!(
        "pgbraid_batches_total",
        "Statements committed, by instance and target: table or parent"
    );
    describe_histogram!("pgbraid_batch_rows", "Rows a committed statement");
    describe_histogram!(
        "pgbraid_flush_seconds",
        Unit::Seconds,
        "Time from handing a batch to PostgreSQL to its answer"
    );
    describe_histogram!(
        "pgbraid_ack_seconds",
        Unit::Seconds,
        "Time from reading a request to its last row's answer; one-row requests of a stream that are answered together count once"
    );
    describe_counter!(
        "pgbraid_rows_expired_total",
        "Rows refused as UNAVAILABLE because their request's time was over"
    );
    counter!("pgbraid_rows_expired_total").increment(0);
    describe_gauge!(
        "pgbraid_queue_rows",
        "Rows queued and in flight, by instance"
    );
    describe_gauge!(
        "pgbraid_queue_bytes",
        Unit::Bytes,
        "Bytes queued and in flight, by instance"
    );
    describe_gauge!(
        "pgbraid_instance_writable",
        "1 while the instance takes writes, else 0"
    );
    describe_counter!(
        "pgbraid_retries_total",
        "Statements tried again, by instance and class of SQLSTATE"
    );
    describe_counter!(
        "pgbraid_rows_merged_total",
        "Writes merged into another write of the same key in their batch, by instance"
    );
    describe_counter!(
        "pgbraid_rows_deferred_total",
        "Writes that waited for a later batch because they overwrite a value, by instance"
    );
    describe_counter!(
        "pgbraid_poison_splits_total",
        "Batches halved to find a row that PostgreSQL refuses, by instance"
    );
}

/// The handles of one instance, made once: nothing is looked up on the hot path.
pub(crate) struct InstanceMetrics {
    name: String,
    pub committed: Counter,
    invalid: Counter,
    unavailable: Counter,
    exhausted: Counter,
    table_batches: Counter,
    parent_batches: Counter,
    pub merged: Counter,
    pub deferred: Counter,
    pub splits: Counter,
    pub queue_rows: Gauge,
    pub queue_bytes: Gauge,
    pub writable: Gauge,
    batch_rows: Histogram,
    flush: Histogram,
}

impl InstanceMetrics {
    pub fn new(instance: InstanceName) -> Self {
        let name = instance.to_string();
        let rows = |outcome: &'static str| {
            let counter =
                counter!("pgbraid_rows_total", "instance" => name.clone(), "outcome" => outcome);
            counter.increment(0);
            counter
        };
        let batches = |target: &'static str| {
            let counter =
                counter!("pgbraid_batches_total", "instance" => name.clone(), "target" => target);
            counter.increment(0);
            counter
        };
        let zero = |metric: &'static str| {
            let counter = counter!(metric, "instance" => name.clone());
            counter.increment(0);
            counter
        };
        for class in ["40", "55", "08", "53", "57", "58"] {
            counter!("pgbraid_retries_total", "instance" => name.clone(), "class" => class)
                .increment(0);
        }
        let writable = gauge!("pgbraid_instance_writable", "instance" => name.clone());
        writable.set(1.0);
        Self {
            committed: rows("committed"),
            invalid: rows("invalid"),
            unavailable: rows("unavailable"),
            exhausted: rows("exhausted"),
            table_batches: batches("table"),
            parent_batches: batches("parent"),
            merged: zero("pgbraid_rows_merged_total"),
            deferred: zero("pgbraid_rows_deferred_total"),
            splits: zero("pgbraid_poison_splits_total"),
            queue_rows: gauge!("pgbraid_queue_rows", "instance" => name.clone()),
            queue_bytes: gauge!("pgbraid_queue_bytes", "instance" => name.clone()),
            writable,
            batch_rows: histogram!("pgbraid_batch_rows"),
            flush: histogram!("pgbraid_flush_seconds"),
            name,
        }
    }

    pub fn refused(&self, code: Code, rows: u64) {
        match code {
            Code::Invalid => &self.invalid,
            Code::Unavailable => &self.unavailable,
            Code::Exhausted => &self.exhausted,
        }
        .increment(rows);
    }

    pub fn batch(&self, parent: bool, rows: usize) {
        if parent {
            self.parent_batches.increment(1);
        } else {
            self.table_batches.increment(1);
        }
        self.batch_rows.record(rows as f64);
    }

    pub fn flushed(&self, took: Duration) {
        self.flush.record(took.as_secs_f64());
    }

    pub fn retried(&self, sqlstate: Option<&str>) {
        // A connection that broke has no SQLSTATE: 08 is the class of connection exceptions.
        let class = match sqlstate.and_then(|code| code.get(..2)) {
            Some("40") => "40",
            Some("55") => "55",
            Some("53") => "53",
            Some("57") => "57",
            Some("58") => "58",
            Some("PB") => "PB",
            Some("42") => "42",
            Some("23") => "23",
            _ => "08",
        };
        counter!("pgbraid_retries_total", "instance" => self.name.clone(), "class" => class)
            .increment(1);
    }
}
