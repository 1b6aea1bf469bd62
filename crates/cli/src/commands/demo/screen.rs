//! What the demo shows while it runs, on stderr: a live line on a terminal, a line a second elsewhere.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use pgbraid_client::proto;

use crate::commands::alerts::render;
use crate::meter::Meter;
use crate::output::{grouped, note, short_ms, shorten, stderr_width};

pub struct Screen {
    bar: Option<ProgressBar>,
    last: Mutex<(Instant, u64)>,
}

impl Screen {
    pub fn new() -> Self {
        let bar = stderr_width().map(|_| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            last: Mutex::new((Instant::now(), 0)),
        }
    }

    pub fn interval(&self) -> Duration {
        Duration::from_millis(if self.bar.is_some() { 500 } else { 1000 })
    }

    pub fn progress(&self, meter: &Meter, alerts: u64, elapsed: Duration) {
        let (now, acked) = (Instant::now(), meter.rows_acked());
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        let (then, before) = std::mem::replace(&mut *last, (now, acked));
        let since = now.duration_since(then).as_secs_f64();
        if since < 0.05 {
            return; // The first tick: nothing has happened yet.
        }
        let rate = (acked.saturating_sub(before)) as f64 / since;
        let acks = meter.acks();
        let numbers = Numbers {
            seconds: elapsed.as_secs(),
            rate: rate as u64,
            acked,
            p50_ms: acks.quantile_ms(0.5),
            p99_ms: acks.quantile_ms(0.99),
            alerts,
        };
        self.show(numbers.line(), true);
    }

    pub fn alert(&self, alert: &proto::Alert) {
        let width = stderr_width().unwrap_or(80);
        self.show(render::alert(alert, Some(width)), false);
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self, line: String, live: bool) {
        match &self.bar {
            Some(bar) if live => bar.set_message(shorten(&line, stderr_width().unwrap_or(80))),
            Some(bar) => bar.println(line),
            None => note(line),
        }
    }
}

struct Numbers {
    seconds: u64,
    rate: u64,
    acked: u64,
    p50_ms: f64,
    p99_ms: f64,
    alerts: u64,
}

impl Numbers {
    fn line(&self) -> String {
        format!(
            "{:>4} s  {} rows/s  {} acked  p50 {} p99 {} ms  {} alerts",
            self.seconds,
            grouped(self.rate),
            grouped(self.acked),
            short_ms(self.p50_ms),
            short_ms(self.p99_ms),
            self.alerts
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_high_rates_fits_80_columns() {
        let numbers = Numbers {
            seconds: 3600,
            rate: 400_000,
            acked: 1_440_000_000,
            p50_ms: 123.4,
            p99_ms: 999.9,
            alerts: 144_000,
        };
        assert!(numbers.line().len() <= 80, "{}", numbers.line());
    }
}
