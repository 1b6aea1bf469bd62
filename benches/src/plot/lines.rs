//! Lines over two axes.

use super::{
    Axis,
    scale::{Scale, short},
    svg::{Anchor, COLOURS, Svg},
};

/// A line with its name.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A plot of several lines.
#[derive(Clone, Debug)]
pub struct LineChart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// The frame's edges.
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 28.0;
const TOP: f64 = 72.0;
const BOTTOM: f64 = HEIGHT - 62.0;

impl LineChart {
    pub fn svg(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT, &self.title);
        let all = || self.series.iter().flat_map(|series| &series.points);
        let x = self.x.scale(all().map(|point| point.0));
        let y = self.y.scale(all().map(|point| point.1));
        let names: Vec<&str> = self.series.iter().map(|one| one.name.as_str()).collect();
        svg.legend(16.0, 52.0, &names);
        for tick in &x.ticks {
            let at = across(&x, *tick);
            svg.grid((at, TOP), (at, BOTTOM));
            svg.words(at, BOTTOM + 20.0, Anchor::Middle, &short(*tick));
        }
        for tick in &y.ticks {
            let at = up(&y, *tick);
            svg.grid((LEFT, at), (RIGHT, at));
            svg.words(LEFT - 8.0, at + 4.5, Anchor::End, &short(*tick));
        }
        svg.frame((LEFT, BOTTOM), (RIGHT, BOTTOM));
        svg.frame((LEFT, TOP), (LEFT, BOTTOM));
        let middle = f64::midpoint(LEFT, RIGHT);
        svg.words(middle, HEIGHT - 14.0, Anchor::Middle, &self.x.label);
        svg.words_upward(24.0, f64::midpoint(TOP, BOTTOM), &self.y.label);
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let place = |point: &(f64, f64)| (across(&x, point.0), up(&y, point.1));
            let points: Vec<(f64, f64)> = series.points.iter().map(place).collect();
            svg.line(&points, colour);
        }
        svg.finish()
    }
}

fn across(scale: &Scale, value: f64) -> f64 {
    LEFT + scale.place(value) * (RIGHT - LEFT)
}

fn up(scale: &Scale, value: f64) -> f64 {
    BOTTOM - scale.place(value) * (BOTTOM - TOP)
}
