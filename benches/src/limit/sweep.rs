//! Finds the best statement, batch and number of connections.

use std::time::Duration;

use anyhow::Result;

use super::{Choice, Form, Limit};
use crate::{case::Measure, stage::Stage};

/// Rows of a batch that are tried.
const ROWS: [usize; 4] = [1000, 4000, 8000, 16_000];

/// Where nothing is tried: the best on 2 cores with as few rows as a quick run stores.
pub const USUAL: Choice = Choice {
    form: Form::Update,
    rows: 4000,
    connections: 3,
};

/// Statements and batches on two connections, then the best on three and four.
pub async fn sweep(limit: &Limit, stage: &Stage, time: Duration) -> Result<Vec<(Choice, Measure)>> {
    let mut tried = Vec::new();
    for form in [Form::Upsert, Form::Update] {
        for rows in ROWS {
            let choice = Choice {
                form,
                rows,
                connections: 2,
            };
            tried.push((choice, attempt(limit, stage, choice, time).await?));
        }
    }
    let fewest = best(&tried).unwrap_or(USUAL);
    for connections in [3, 4] {
        let choice = Choice {
            connections,
            ..fewest
        };
        tried.push((choice, attempt(limit, stage, choice, time).await?));
    }
    Ok(tried)
}

async fn attempt(limit: &Limit, stage: &Stage, choice: Choice, time: Duration) -> Result<Measure> {
    let mut writers = limit.prepare(stage.cluster(), choice).await?;
    let measure = stage.take(writers.run(time)).await?;
    eprintln!("limit, {choice}: {:.0} rows/s", measure.rows_per_second);
    Ok(measure)
}

/// The one with the most rows a second.
pub fn best(tried: &[(Choice, Measure)]) -> Option<Choice> {
    let rate = |one: &&(Choice, Measure)| one.1.rows_per_second;
    let best = tried
        .iter()
        .max_by(|one, other| rate(one).total_cmp(&rate(other)));
    best.map(|(choice, _)| *choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_is_the_best() {
        let tried = [(1000, 5.0), (4000, 9.0), (8000, 7.0)].map(|(rows, rows_per_second)| {
            let choice = Choice { rows, ..USUAL };
            let measure = Measure {
                rows_per_second,
                ..Measure::default()
            };
            (choice, measure)
        });
        assert_eq!(best(&tried).map(|choice| choice.rows), Some(4000));
        assert_eq!(best(&[]), None);
    }
}
