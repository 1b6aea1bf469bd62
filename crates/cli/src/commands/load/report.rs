//! What a load came to.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::json;

use super::Args;
use super::generate::Shape;
use super::keys::Choice;
use super::pace::Behind;
use crate::failure::Result;
use crate::meter::Meter;
use crate::output::{self, grouped};

/// CPU time of this process so far; zero where the system does not say.
pub fn cpu_time() -> Duration {
    let of = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| of(usage.user_time()) + of(usage.system_time()))
        .unwrap_or_default()
}

/// What was measured.
pub struct Outcome<'a> {
    pub args: &'a Args,
    pub shape: &'a Shape,
    pub meter: &'a Meter,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// Of this process, which is what the load itself costs.
    pub cpu: Duration,
    /// The sum of requests, the longest time.
    pub behind: Behind,
}

impl Outcome<'_> {
    pub fn json(&self) -> Result<()> {
        let (args, shape, meter) = (self.args, self.shape, self.meter);
        let (keys, run_length, exponent) = match shape.keys {
            Choice::Random => ("random", None, None),
            Choice::Runs(length) => ("runs", Some(length), None),
            Choice::Sequential => ("sequential", None, None),
            Choice::Zipf(exponent) => ("zipf", None, Some(exponent)),
        };
        let (acks, late) = (meter.acks(), meter.late());
        let open = args.rate.map(|rate| {
            json!({
                "rate": rate,
                "late_ms": {
                    "p50": late.quantile_ms(0.5), "p99": late.quantile_ms(0.99),
                    "max": late.max_ms(),
                },
                "behind_rows": self.behind_rows(),
                "behind_seconds": self.behind.time.as_secs_f64(),
            })
        });
        output::json(&json!({
            "feed": shape.feed, "columns": shape.columns, "batch_rows": shape.batch_rows,
            "form": args.form.name(), "keys": keys, "key_space": shape.key_space,
            "run_length": run_length, "zipf_exponent": exponent,
            "alert_one_in": shape.alert_one_in,
            "producers": args.producers, "in_flight": args.in_flight, "rate": args.rate,
            "seconds": self.elapsed.as_secs_f64(),
            "requests": meter.requests(), "rows_acked": meter.rows_acked(),
            "rows_refused": self.refused(), "rows_per_second": self.rate(),
            "ack_ms": {
                "p50": acks.quantile_ms(0.5), "p90": acks.quantile_ms(0.9),
                "p99": acks.quantile_ms(0.99), "p999": acks.quantile_ms(0.999),
                "max": acks.max_ms(),
            },
            "open_loop": open,
            "cpu_seconds": self.cpu.as_secs_f64(), "cpu_ns_per_row": self.cpu_ns_per_row(),
            "errors": meter.refused(), "first_error": meter.example(),
        }))
    }

    pub fn text(&self) -> Result<()> {
        let meter = self.meter;
        let (acks, late) = (meter.acks(), meter.late());
        output::line(&format!(
            "{} rows acked in {:.1} s ({} requests): {} rows/s",
            grouped(meter.rows_acked()),
            self.elapsed.as_secs_f64(),
            grouped(meter.requests()),
            grouped(self.rate() as u64)
        ))?;
        output::line(&format!(
            "ack ms: p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}",
            acks.quantile_ms(0.5),
            acks.quantile_ms(0.9),
            acks.quantile_ms(0.99),
            acks.quantile_ms(0.999),
            acks.max_ms()
        ))?;
        if let Some(rate) = self.args.rate {
            output::line(&format!(
                "{:.1} % of the intended {} rows/s; sent late by ms: p50 {:.2}  p99 {:.2}  max {:.2}",
                100.0 * self.rate() / rate as f64,
                grouped(rate),
                late.quantile_ms(0.5),
                late.quantile_ms(0.99),
                late.max_ms()
            ))?;
            // What came due in the last moment is not worth a line.
            if self.behind.time >= Duration::from_millis(10) {
                output::line(&format!(
                    "behind at the end: {:.2} s, {} rows were due and not sent",
                    self.behind.time.as_secs_f64(),
                    grouped(self.behind_rows())
                ))?;
            }
        }
        if let Some(ns) = self.cpu_ns_per_row() {
            output::line(&format!(
                "CPU of the load itself: {:.2} s, {ns:.0} ns a row",
                self.cpu.as_secs_f64()
            ))?;
        }
        for (code, rows) in &meter.refused() {
            output::line(&format!("refused {code}: {} rows", grouped(*rows)))?;
        }
        if let Some(example) = meter.example() {
            output::note(format!("the first refusal: {example}"));
        }
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.meter.rows_acked() as f64 / self.elapsed.as_secs_f64()
    }

    fn refused(&self) -> u64 {
        self.meter.refused().values().sum()
    }

    fn behind_rows(&self) -> u64 {
        self.behind
            .requests
            .saturating_mul(self.shape.batch_rows.into())
    }

    /// Of all rows that were answered.
    fn cpu_ns_per_row(&self) -> Option<f64> {
        let rows = self.meter.rows_acked() + self.refused();
        (rows > 0).then(|| self.cpu.as_nanos() as f64 / rows as f64)
    }
}
