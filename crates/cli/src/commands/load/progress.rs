//! A line about how the load goes, once a second, on a terminal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::meter::Meter;
use crate::output::{grouped, short_ms, shorten, stderr_width};

const EVERY: Duration = Duration::from_secs(1);

/// Shown until it is dropped.
pub struct Progress {
    task: Option<JoinHandle<()>>,
    bar: ProgressBar,
}

impl Progress {
    /// Nothing where stderr is no terminal.
    pub fn show(meter: Arc<Meter>, start: Instant) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        let task = stderr_width().map(|_| tokio::spawn(tick(bar.clone(), meter, start)));
        Self { task, bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            self.bar.finish_and_clear();
        }
    }
}

async fn tick(bar: ProgressBar, meter: Arc<Meter>, start: Instant) {
    let (mut then, mut before) = (start, 0);
    for second in 1.. {
        tokio::time::sleep_until((start + EVERY * second).into()).await;
        let (now, acked) = (Instant::now(), meter.rows_acked());
        let since = now.duration_since(then).as_secs_f64();
        let line = line(
            now.duration_since(start).as_secs(),
            ((acked - before) as f64 / since.max(1e-3)) as u64,
            &meter,
        );
        (then, before) = (now, acked);
        bar.set_message(shorten(&line, stderr_width().unwrap_or(80)));
    }
}

fn line(seconds: u64, rate: u64, meter: &Meter) -> String {
    let acks = meter.acks();
    format!(
        "{seconds:>4} s  {} rows/s  {} acked  p50 {} p99 {} ms  {} refused",
        grouped(rate),
        grouped(meter.rows_acked()),
        short_ms(acks.quantile_ms(0.5)),
        short_ms(acks.quantile_ms(0.99)),
        grouped(meter.refused().values().sum())
    )
}
