//! Elements of an SVG document.

use std::fmt::Write as _;

/// Told apart with every common kind of colour blindness (Okabe and Ito).
pub const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

const INK: &str = "#222";

/// Where a text begins, or ends, or has its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A document in the making. Places are in pixels from the upper left corner.
pub struct Svg {
    text: String,
}

impl Svg {
    /// With its title, on a white ground.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" \
             fill=\"{INK}\" role=\"img\">\n<title>{}</title>\n",
            escaped(title)
        );
        let _ = writeln!(
            text,
            "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>"
        );
        let mut svg = Self { text };
        svg.element(
            "text",
            "x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\"",
            title,
        );
        svg
    }

    fn element(&mut self, name: &str, attributes: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(self.text, "<{name} {attributes}>{text}</{name}>");
    }

    pub fn words(&mut self, x: f64, y: f64, anchor: Anchor, text: &str) {
        let anchor = anchor.name();
        let place = format!("x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"");
        self.element("text", &place, text);
    }

    /// White, for a dark ground.
    pub fn words_inside(&mut self, x: f64, y: f64, text: &str) {
        let place = format!("x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"#fff\"");
        self.element("text", &place, text);
    }

    /// Read from the bottom to the top.
    pub fn words_upward(&mut self, x: f64, y: f64, text: &str) {
        let place =
            format!("transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\"");
        self.element("text", &place, text);
    }

    /// A line of the grid.
    pub fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.segment(from, to, "#ddd");
    }

    /// A line of the frame.
    pub fn frame(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.segment(from, to, INK);
    }

    fn segment(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        let _ = writeln!(
            self.text,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             stroke=\"{colour}\"/>"
        );
    }

    pub fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        let _ = writeln!(
            self.text,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{colour}\"/>"
        );
    }

    /// A line through points, with a dot on each.
    pub fn line(&mut self, points: &[(f64, f64)], colour: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let separator = if path.is_empty() { "" } else { " " };
            let _ = write!(path, "{separator}{x:.1},{y:.1}");
        }
        let _ = writeln!(
            self.text,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        for (x, y) in points {
            let _ = writeln!(
                self.text,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
            );
        }
    }

    /// Names with their colours, side by side.
    pub fn legend(&mut self, x: f64, y: f64, names: &[&str]) {
        let mut x = x;
        for (name, colour) in names.iter().zip(COLOURS.iter().cycle()) {
            self.rectangle((x, y - 10.0), (12.0, 12.0), colour);
            self.words(x + 18.0, y, Anchor::Start, name);
            // About the width of a letter of this font.
            x += 18.0 + 7.0 * name.chars().count() as f64 + 16.0;
        }
    }

    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
