//! Small plots as SVG text: lines over two axes, and stacked bars.
//!
//! Written by hand because two kinds of plots are all that is needed. The text is laid out with
//! the browser's own sans-serif font, on a white ground, so that it reads on dark pages too.

mod bars;
mod lines;
mod scale;
mod svg;
#[cfg(test)]
mod tests;

pub use bars::{Bar, StackedBars};
pub use lines::{LineChart, Series};
pub use scale::Axis;
