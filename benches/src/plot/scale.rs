//! From values to places, and where ticks stand.

/// What an axis shows, and how.
#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    logarithmic: bool,
}

impl Axis {
    /// From 0.
    pub fn linear(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            logarithmic: false,
        }
    }

    /// By powers of ten; values must be more than 0.
    pub fn logarithmic(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            logarithmic: true,
        }
    }

    /// A scale that has room for all values.
    pub fn scale(&self, values: impl Iterator<Item = f64>) -> Scale {
        let usable = |value: &f64| value.is_finite() && (!self.logarithmic || *value > 0.0);
        let values: Vec<f64> = values.filter(usable).collect();
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        match (values.is_empty(), self.logarithmic) {
            (true, _) => Scale::linear(1.0),
            (false, true) => Scale::logarithmic(least, most),
            (false, false) => Scale::linear(most),
        }
    }
}

/// A range of values with ticks.
#[derive(Clone, Debug)]
pub struct Scale {
    from: f64,
    to: f64,
    logarithmic: bool,
    pub ticks: Vec<f64>,
}

impl Scale {
    /// From 0 to at least `most`, with about six ticks at 1, 2 or 5 times a power of ten.
    fn linear(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        // The last is more than rough, so one is always found.
        let step = step.into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        let count = (most / step - 0.001).ceil().max(1.0);
        Self {
            from: 0.0,
            to: count * step,
            logarithmic: false,
            ticks: (0..=count as u32).map(|at| f64::from(at) * step).collect(),
        }
    }

    /// Ticks at powers of ten; at 2 and 5 times of them too where there are few.
    fn logarithmic(least: f64, most: f64) -> Self {
        let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        let last = last.max(first + 1);
        let factors: &[f64] = if last - first <= 3 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let all =
            (first..last).flat_map(|power| factors.iter().map(move |f| f * 10f64.powi(power)));
        let all: Vec<f64> = all.chain([10f64.powi(last)]).collect();
        // From the tick below the least value to the one above the most.
        let from = all.iter().rposition(|tick| *tick <= least * 1.001);
        let to = all.iter().position(|tick| *tick >= most * 0.999);
        let ticks = &all[from.unwrap_or(0)..=to.unwrap_or(all.len() - 1)];
        let ticks = if ticks.len() > 1 { ticks } else { &all };
        Self {
            from: ticks[0],
            to: ticks[ticks.len() - 1],
            logarithmic: true,
            ticks: ticks.to_vec(),
        }
    }

    /// Its place from 0 (the axis' start) to 1.
    pub fn place(&self, value: f64) -> f64 {
        let at = |value: f64| {
            if self.logarithmic {
                value.max(f64::MIN_POSITIVE).ln()
            } else {
                value
            }
        };
        let place = (at(value) - at(self.from)) / (at(self.to) - at(self.from));
        place.clamp(0.0, 1.0)
    }
}

/// A number as a tick shows it: `1.5M`, `200k`, `0.05`.
pub fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 999_500_000.0 => (value / 1e9, "G"),
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 1000.0 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size => (1.0 - size.log10().floor()) as usize,
    };
    let text = format!("{scaled:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}
