//! What the demo says at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::meter::{Latencies, Meter};
use crate::output::grouped;

#[derive(Debug, Serialize)]
pub struct Summary {
    pub seconds: f64,
    pub rows_acked: u64,
    pub rows_per_second: f64,
    pub alerts_raised: u64,
    pub alerts_received: u64,
    /// From sending a request to its ack.
    pub ack_ms: Quantiles,
    /// From raised to received.
    pub alert_ms: Quantiles,
    /// Rows by the code of their refusal.
    pub refused: BTreeMap<String, u64>,
    pub first_refusal: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
}

impl Summary {
    pub fn new(
        meter: &Meter,
        elapsed: Duration,
        alerts_raised: u64,
        alerts_received: u64,
        alerts: &Latencies,
    ) -> Self {
        let rows_acked = meter.rows_acked();
        Self {
            seconds: elapsed.as_secs_f64(),
            rows_acked,
            rows_per_second: (rows_acked as f64 / elapsed.as_secs_f64().max(1e-3)).round(),
            alerts_raised,
            alerts_received,
            ack_ms: quantiles(meter.acks()),
            alert_ms: quantiles(alerts),
            refused: meter.refused(),
            first_refusal: meter.example(),
        }
    }

    /// Every alert arrived, and none twice.
    pub fn is_complete(&self) -> bool {
        self.alerts_raised == self.alerts_received
    }

    pub fn lines(&self) -> Vec<String> {
        let rate = grouped(self.rows_per_second as u64);
        let (ack, alert) = (&self.ack_ms, &self.alert_ms);
        let acked = grouped(self.rows_acked);
        let mut lines = vec![
            format!("rows acked       {acked} in {:.1} s", self.seconds),
            format!("rows per second  {rate}"),
            format!(
                "ack              p50 {:.1} ms, p99 {:.1} ms",
                ack.p50, ack.p99
            ),
            format!(
                "alerts raised    {} (counted in the instances)",
                grouped(self.alerts_raised)
            ),
            format!("alerts received  {}", grouped(self.alerts_received)),
            format!(
                "alert            p50 {:.1} ms, p99 {:.1} ms (raised to received)",
                alert.p50, alert.p99
            ),
        ];
        for (code, rows) in &self.refused {
            lines.push(format!("refused          {} rows, {code}", grouped(*rows)));
        }
        if let Some(first) = &self.first_refusal {
            lines.push(format!("first refusal    {first}"));
        }
        lines
    }
}

fn quantiles(latencies: &Latencies) -> Quantiles {
    Quantiles {
        p50: latencies.quantile_ms(0.5),
        p99: latencies.quantile_ms(0.99),
    }
}
