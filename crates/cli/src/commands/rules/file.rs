//! A file of rules, which lives in git.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use pgbraid_client::proto;
use pgbraid_config::Time;
use serde::Deserialize;
use toml::Spanned;

use crate::failure::{Failure, OrFail, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Spanned<String>,
    feed: String,
    when: String,
    channel: String,
    reason: String,
    #[serde(default)]
    mode: RawMode,
    #[serde(default)]
    resolve: bool,
    cooldown: Option<Time>,
    version: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum RawMode {
    #[default]
    Edge,
    Level,
}

pub fn read(path: &Path) -> Result<Vec<proto::RulePut>> {
    let text = fs::read_to_string(path)
        .or_fail(|| format!("cannot read the rules from {}", path.display()))?;
    parse(&text, &path.display().to_string())
}

fn parse(text: &str, origin: &str) -> Result<Vec<proto::RulePut>> {
    let raw: RawFile = toml::from_str(text).map_err(|error| {
        let place = error
            .span()
            .map_or(origin.to_owned(), |span| at(text, origin, &span));
        let message = error.message().replace('\n', ", ");
        Failure::new(format!("{place}: {message}")).hint(
            "each [[rule]] has name, feed, when, channel, reason, and may have mode (\"edge\" or \
             \"level\"), resolve (true), cooldown (such as \"10m\") and version",
        )
    })?;
    let mut lines = BTreeMap::new();
    let mut rules = Vec::with_capacity(raw.rule.len());
    for rule in raw.rule {
        let place = at(text, origin, &rule.name.span());
        if let Some(first) = lines.insert(rule.name.get_ref().clone(), place.clone()) {
            let name = rule.name.get_ref();
            return Err(
                Failure::new(format!("{place}: rule {name} stands here again")).hint(format!(
                    "it stands at {first} already: rename or remove one"
                )),
            );
        }
        if let Some(version) = rule
            .version
            .as_ref()
            .filter(|version| *version.get_ref() < 0)
        {
            let place = at(text, origin, &version.span());
            return Err(Failure::new(format!("{place}: version is less than 0")));
        }
        let mode = match rule.mode {
            RawMode::Edge => proto::RuleMode::Edge,
            RawMode::Level => proto::RuleMode::Level,
        };
        rules.push(proto::RulePut {
            rule: Some(proto::Rule {
                name: rule.name.into_inner(),
                feed: rule.feed,
                expression: rule.when,
                channel: rule.channel,
                reason: rule.reason,
                mode: mode.into(),
                resolve: rule.resolve,
                cooldown: rule
                    .cooldown
                    .and_then(|time| time.duration().try_into().ok()),
                ..Default::default()
            }),
            expected_version: rule.version.map(Spanned::into_inner),
        });
    }
    Ok(rules)
}

/// `rules.toml:3:8`
fn at(text: &str, origin: &str, span: &Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[start..].chars().count() + 1;
    format!("{origin}:{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "[[rule]]\nname = \"a\"\nfeed = \"orders\"\nwhen = \"x > 1\"\n\
                        channel = \"c\"\nreason = \"r\"\n";

    fn refusal(text: &str) -> String {
        format!("{:?}", parse(text, "rules.toml").unwrap_err())
    }

    #[test]
    fn rules_are_read() {
        let text = format!(
            "{RULE}resolve = true\ncooldown = \"1500ms\"\n{}mode = \"level\"\nversion = 3\n",
            RULE.replace("\"a\"", "\"b\"")
        );
        let rules = parse(&text, "rules.toml").unwrap();
        let mode = |i: usize| rules[i].rule.as_ref().unwrap().mode();
        assert_eq!(mode(0), proto::RuleMode::Edge);
        assert_eq!(mode(1), proto::RuleMode::Level);
        let edges = |i: usize| {
            let rule = rules[i].rule.as_ref().unwrap();
            (
                rule.resolve,
                rule.cooldown.map(|time| (time.seconds, time.nanos)),
            )
        };
        assert_eq!(edges(0), (true, Some((1, 500_000_000))));
        assert_eq!(edges(1), (false, None));
        assert_eq!(rules[0].expected_version, None);
        assert_eq!(rules[1].expected_version, Some(3));
    }

    #[test]
    fn mistakes_have_their_place() {
        for (text, place) in [
            (format!("{RULE}wen = 1\n"), "rules.toml:7:1"),
            (format!("{RULE}mode = \"both\"\n"), "rules.toml:7:8"),
            (format!("{RULE}version = -1\n"), "rules.toml:7:11"),
            (format!("{RULE}cooldown = \"soon\"\n"), "rules.toml:7:12"),
            (format!("{RULE}{RULE}"), "rules.toml:8:8"),
            ("[[rule]]\nname = 1\n".to_owned(), "rules.toml:2:8"),
        ] {
            let refusal = refusal(&text);
            assert!(refusal.contains(place), "{text}: {refusal}");
        }
        assert!(refusal("").contains("rule"));
    }
}
