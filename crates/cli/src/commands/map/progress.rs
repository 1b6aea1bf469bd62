//! How far moves are: lines, or a bar that stays in place.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{Signal, kill};
use pgbraid_moves::{Event, Happening, Progress};
use uuid::Uuid;

use super::table_name;
use crate::output;

/// How often one move says how far its copy is, where there is no terminal.
const EVERY: Duration = Duration::from_secs(2);

/// What is told of moves.
pub struct Screen {
    bar: Option<ProgressBar>,
    state: Mutex<State>,
    halt: Mutex<Option<Halt>>,
}

/// In builds for tests: a signal that the process sends to itself, once, after a step.
pub struct Halt {
    pub step: String,
    pub signal: Signal,
}

impl Halt {
    /// From the options: to die, or to stand still until it gets SIGCONT.
    pub fn of(stop_after: Option<String>, freeze_after: Option<String>) -> Option<Self> {
        let (step, signal) = match (stop_after, freeze_after) {
            (Some(step), _) => (step, Signal::SIGKILL),
            (None, Some(step)) => (step, Signal::SIGSTOP),
            (None, None) => return None,
        };
        Some(Self { step, signal })
    }
}

struct State {
    total: u64,
    started: Instant,
    /// Bytes of each move that are there.
    bytes: HashMap<Uuid, u64>,
    told: HashMap<Uuid, (Instant, String)>,
    moves: usize,
    done: usize,
}

impl Screen {
    /// For so many moves of so many bytes.
    pub fn new(moves: usize, total: u64, halt: Option<Halt>) -> Self {
        let bar = output::stderr_width().map(|_| {
            let bar = ProgressBar::new(total.max(1));
            let template = "{bar:20} {binary_bytes}/{binary_total_bytes} {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            state: Mutex::new(State {
                total,
                started: Instant::now(),
                bytes: HashMap::new(),
                told: HashMap::new(),
                moves,
                done: 0,
            }),
            halt: Mutex::new(halt),
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Something that goes on: on the bar, or as a line now and then.
    fn going(&self, state: &mut State, event: &Event, text: String) {
        let (name, id) = (table_name(&event.record), event.record.id);
        if let Some(bar) = &self.bar {
            let all: u64 = state.bytes.values().sum();
            bar.set_position(all.min(state.total));
            let rate = all as f64 / state.started.elapsed().as_secs_f64().max(0.001);
            let left = match rate > 1.0 {
                true => format!(
                    "{:.0} s left",
                    state.total.saturating_sub(all) as f64 / rate
                ),
                false => String::new(),
            };
            bar.set_message(format!(
                "{}/s {left}, {}/{} moves, {name}: {text}",
                output::bytes(rate as u64),
                state.done,
                state.moves
            ));
            return;
        }
        let now = Instant::now();
        let due = match state.told.get(&id) {
            Some((at, old)) => *old != text && now.duration_since(*at) >= EVERY,
            None => true,
        };
        if due {
            state.told.insert(id, (now, text.clone()));
            output::note(format!("{name}: {text}"));
        }
    }
}

impl Progress for Screen {
    fn event(&self, event: Event) {
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        let record = &event.record;
        let name = table_name(record);
        match &event.what {
            Happening::Started => {
                self.line(&format!("{name}: {} → {}", record.source, record.target));
            }
            Happening::Did(_) => {}
            Happening::Copying { rows, bytes } => {
                state.bytes.insert(record.id, *bytes);
                let rows = rows.map(|rows| format!("{} rows, ", output::grouped(rows)));
                let rows = rows.unwrap_or_default();
                let text = format!("copying, {rows}{}", output::bytes(*bytes));
                self.going(&mut state, &event, text);
            }
            Happening::Following { lag } => {
                let text = match lag {
                    Some(lag) => format!("copied, catching up: {} behind", output::bytes(*lag)),
                    None => "copied, catching up: how far behind is not known".to_owned(),
                };
                self.going(&mut state, &event, text);
            }
            Happening::Paused => {
                self.going(
                    &mut state,
                    &event,
                    "paused, see `pgbraid map resume`".into(),
                );
            }
            Happening::NotYet { why, again } => self.line(&format!(
                "{name}: cut-over put off, {why}; again in {:.1} s",
                again.as_secs_f64()
            )),
            Happening::Trouble { why } | Happening::Failing { why } => {
                self.line(&format!("{name}: {why}"))
            }
            Happening::CutOver { pause } => {
                state.bytes.insert(record.id, record.bytes);
                let ms = |time: Duration| output::short_ms(time.as_secs_f64() * 1000.0);
                self.line(&format!(
                    "{name}: {} owns it, writers waited {} ms (lock {}, copy {}, hand-over {})",
                    record.target,
                    ms(pause.total()),
                    ms(pause.lock),
                    ms(pause.catch_up),
                    ms(pause.hand_over)
                ));
            }
            Happening::Done => {
                state.done += 1;
                let (done, moves) = (state.done, state.moves);
                self.line(&format!("{name}: done ({done}/{moves})"));
            }
            Happening::Aborted => self.line(&format!("{name}: undone, {} keeps it", record.source)),
            Happening::GaveUp { why } => self.line(&format!("{name}: left as it is: {why}")),
        }
    }

    fn point(&self, name: &'static str) {
        // Only builds for tests know the options.
        let Ok(mut halt) = self.halt.lock() else {
            return;
        };
        if let Some(halt) = halt.take_if(|halt| halt.step == name) {
            output::note(format!("stopped after {name}"));
            let _ = kill(nix::unistd::getpid(), halt.signal);
        }
    }
}
