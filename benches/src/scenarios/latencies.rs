//! A histogram of latencies.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

const LONGEST_US: u64 = 600_000_000;

/// Latencies from 1 µs to 10 minutes, with 3 digits. What is shorter or longer counts as these.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST_US, 3)?))
    }

    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
        self.0.saturating_record(us.clamp(1, LONGEST_US));
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds; 0 when nothing was recorded.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// In milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!((latencies.count(), latencies.quantile_ms(0.5)), (0, 0.0));
        for ms in 1..=1000 {
            latencies.record(Duration::from_millis(ms));
        }
        assert!((latencies.quantile_ms(0.5) - 500.0).abs() < 1.0);
        assert!((latencies.quantile_ms(0.99) - 990.0).abs() < 1.0);
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(100_000));
        assert_eq!(latencies.count(), 1002);
        assert!((latencies.max_ms() - 600_000.0).abs() < 600.0);
    }
}
