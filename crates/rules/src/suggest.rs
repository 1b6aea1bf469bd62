//! "Did you mean": the known names nearest to one that is not known.

/// At most this many names are suggested.
const MAX_SUGGESTIONS: usize = 3;
/// Longer words are not compared: the cost is quadratic.
const MAX_CHARS: usize = 64;

/// The names of `known` within a third of `word`'s length in edits (at least 1), nearest first.
/// Letter case counts as no difference, so that a wrong case is always found.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(MAX_CHARS).collect();
    let limit = (word.len() / 3).max(1);
    let mut found: Vec<(usize, &str)> = known
        .filter_map(|name| {
            let other: Vec<char> = name.to_lowercase().chars().take(MAX_CHARS).collect();
            let distance = edits(&word, &other);
            // A word whose every letter must change is not near.
            let near = distance <= limit && distance < word.len().max(1);
            near.then_some((distance, name))
        })
        .collect();
    found.sort();
    found.truncate(MAX_SUGGESTIONS);
    found.into_iter().map(|(_, name)| name).collect()
}

/// "did you mean a, b or c?", or nothing if there is no name.
pub(crate) fn question(names: &[String]) -> Option<String> {
    let (last, rest) = names.split_last()?;
    Some(match rest.is_empty() {
        true => format!("did you mean {last}?"),
        false => format!("did you mean {} or {last}?", rest.join(", ")),
    })
}

/// Levenshtein distance with a swap of neighbours as one edit (optimal string alignment).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut two_ago: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(two_ago[j - 2] + 1);
            }
            row.push(best);
        }
        two_ago = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
