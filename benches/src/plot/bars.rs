//! Stacked bars, one below the other.

use super::{
    Axis,
    scale::short,
    svg::{Anchor, COLOURS, Svg},
};

/// One bar: a value for each part of the plot.
#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    pub parts: Vec<f64>,
}

/// A plot of bars that have the same parts.
#[derive(Clone, Debug)]
pub struct StackedBars {
    pub title: String,
    /// What the values are, with their unit.
    pub axis: String,
    pub parts: Vec<&'static str>,
    pub bars: Vec<Bar>,
}

const WIDTH: f64 = 760.0;
/// The frame's edges; names stand left of it, sums right of the bars.
const LEFT: f64 = 210.0;
const RIGHT: f64 = WIDTH - 60.0;
const TOP: f64 = 72.0;
const EACH: f64 = 34.0;
const THICK: f64 = 22.0;

impl StackedBars {
    pub fn svg(&self) -> String {
        let bottom = TOP + EACH * self.bars.len() as f64;
        let mut svg = Svg::new(WIDTH, bottom + 62.0, &self.title);
        svg.legend(16.0, 52.0, &self.parts);
        let sum = |bar: &Bar| bar.parts.iter().sum::<f64>();
        let scale = Axis::linear(&self.axis).scale(self.bars.iter().map(sum));
        let wide = |value: f64| scale.place(value) * (RIGHT - LEFT);
        for tick in &scale.ticks {
            let at = LEFT + wide(*tick);
            svg.grid((at, TOP), (at, bottom));
            svg.words(at, bottom + 20.0, Anchor::Middle, &short(*tick));
        }
        for (number, bar) in self.bars.iter().enumerate() {
            let top = TOP + EACH * number as f64 + (EACH - THICK) / 2.0;
            let base = top + THICK / 2.0 + 4.5;
            svg.words(LEFT - 10.0, base, Anchor::End, &bar.name);
            let mut x = LEFT;
            for (value, colour) in bar.parts.iter().zip(COLOURS.iter().cycle()) {
                svg.rectangle((x, top), (wide(*value), THICK), colour);
                // Narrower ones have no room for their number.
                if wide(*value) > 40.0 {
                    svg.words_inside(x + wide(*value) / 2.0, base, &short(*value));
                }
                x += wide(*value);
            }
            svg.words(x + 6.0, base, Anchor::Start, &short(sum(bar)));
        }
        svg.frame((LEFT, TOP), (LEFT, bottom));
        svg.frame((LEFT, bottom), (RIGHT, bottom));
        let middle = f64::midpoint(LEFT, RIGHT);
        svg.words(middle, bottom + 48.0, Anchor::Middle, &self.axis);
        svg.finish()
    }
}
