//! Sets of rules that never match.

use std::time::Duration;

use pgbraid_proto::v1;

use crate::scenarios::fixture::FEED;

/// Rules of the articles' table: comparisons of two columns with different constants. The load's
/// values are below 10000.
pub fn alike(count: usize) -> Vec<v1::RulePut> {
    (0..count)
        .map(|n| put(n, &format!("c{} > {}", 1 + n % 2, 20_000 + n), Kind::Edge))
        .collect()
}

/// A hundred rules of orders as people write them, four of each form.
pub fn mixed() -> Vec<v1::RulePut> {
    (0..4)
        .flat_map(four_times)
        .enumerate()
        .map(|(at, (kind, text))| put(at, &text, kind))
        .collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Edge,
    Level,
    Resolving,
    Cooling,
}

fn four_times(n: usize) -> Vec<(Kind, String)> {
    let gone = ["lost", "returned", "fraud", "stolen"][n % 4];
    let country = ["US", "FR", "GB", "JP"][n % 4];
    let day = format!("2020-01-0{}", n + 1);
    let edge = |text: String| (Kind::Edge, text);
    vec![
        edge(format!("c1 > {}", 20_000 + n)),
        edge(format!("c2 < -{}", 1 + n)),
        edge(format!("total > {}", 1000 * (n + 1))),
        edge(format!("price between {0}00 and {0}50", n + 1)),
        edge(format!("status = '{gone}'")),
        edge(format!(
            "status in ('cancelled', 'refunded_{n}') and total > 100"
        )),
        edge(format!("country = '{country}' and total > {}", 500 + n)),
        edge(format!("customer = {} and quantity > 10", 1000 + n)),
        edge(format!("quantity > {}", 50 + n)),
        edge(format!("quantity * price > {}", 5000 + n)),
        edge(format!("coalesce(note, '') like '%urgent{n}%'")),
        edge(format!("note is not null and c1 > {}", 15_000 + n)),
        edge(format!("old.status = 'paid' and status = 'returned{n}'")),
        edge(format!(
            "old.total < total and total > {}",
            10_000 * n + 2000
        )),
        edge(format!("c1 + c2 > {}", 50_000 + n)),
        edge(format!("c1 > {0} and c2 > {0}", 12_000 + n)),
        edge(format!("weight > {}.5", 100 + n)),
        edge(format!("shipped < date '{day}'")),
        edge(format!(
            "shipped is null and created < timestamptz '{day} 00:00+00'"
        )),
        edge(format!("lower(country) = 'x{n}'")),
        edge(format!("abs(c1 - c2) > {}", 20_000 + n)),
        edge(format!("not paid and total > {}", 100 + n)),
        (Kind::Level, format!("status = 'blocked{n}'")),
        (Kind::Resolving, format!("c2 > {}", 30_000 + n)),
        (Kind::Cooling, format!("c1 > {}", 40_000 + n)),
    ]
}

fn put(number: usize, expression: &str, kind: Kind) -> v1::RulePut {
    let cooldown = Duration::from_secs(60).try_into().ok();
    let mode = match kind {
        Kind::Level => v1::RuleMode::Level,
        _ => v1::RuleMode::Edge,
    };
    let rule = v1::Rule {
        name: format!("never_{number}"),
        feed: FEED.into(),
        expression: expression.into(),
        channel: format!("channel_{}", number % 10),
        reason: "never".into(),
        mode: mode.into(),
        resolve: matches!(kind, Kind::Resolving),
        cooldown: cooldown.filter(|_| matches!(kind, Kind::Cooling)),
        ..Default::default()
    };
    v1::RulePut {
        rule: Some(rule),
        expected_version: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_different_rules() {
        let mut texts: Vec<String> = mixed()
            .into_iter()
            .filter_map(|put| Some(put.rule?.expression))
            .collect();
        assert_eq!(texts.len(), 100);
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 100);
    }
}
