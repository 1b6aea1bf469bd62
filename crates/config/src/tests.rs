//! Every refusal with its exact text, every default, and the committed examples.

mod accepted;
mod refused_feeds;
mod refused_map;
mod refused_router;

use crate::ConfigError;

/// The error's text without the lines of the snippet.
fn brief(error: &ConfigError) -> String {
    let text = error.to_string();
    let lines = text.lines().filter(|line| {
        let margin = line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit());
        !margin.starts_with('|')
    });
    lines.collect::<Vec<_>>().join("\n")
}
