//! How groups stand, for people and as JSON.

use std::time::Duration;

use pgbraid_client::proto;
use serde_json::{Value, json};

use crate::output::{grouped, shorten};
use crate::table::Table;

/// Longest name in a table of 80 columns.
const NAME: usize = 18;

/// A line a group.
pub fn overview(groups: &[proto::GroupState]) -> Vec<String> {
    let mut table = Table::new(&[
        "group", ">behind", ">age", ">held", ">delayed", ">waiting", ">dead", "state",
    ]);
    for state in groups {
        let group = state.group.clone().unwrap_or_default();
        let sum = |of: fn(&proto::GroupInstance) -> u64| {
            let sum: u64 = state.instances.iter().map(of).sum();
            grouped(sum)
        };
        let ages = state.instances.iter().map(|one| seconds(one.lag.as_ref()));
        table.row([
            shorten(&group.name, NAME),
            sum(|one| one.lag_alerts),
            age(ages.fold(0.0, f64::max)),
            sum(|one| one.in_flight),
            sum(|one| one.delayed),
            sum(|one| one.waiting),
            sum(|one| one.dead),
            if group.paused { "paused" } else { "" }.to_owned(),
        ]);
    }
    let mut lines = table.lines();
    lines.extend(groups.iter().filter_map(lost));
    lines
}

/// One group: its settings, and a line an instance.
pub fn details(state: &proto::GroupState) -> Vec<String> {
    let group = state.group.clone().unwrap_or_default();
    let paused = if group.paused { ", paused" } else { "" };
    let mut lines = vec![format!(
        "{} (version {}{paused})",
        group.name, group.version
    )];
    let order = if group.order_by_key {
        ", in order of each key"
    } else {
        ""
    };
    let visible = duration(group.visibility_timeout.as_ref());
    let times = match group.max_deliveries {
        1 => "delivered once".to_owned(),
        some => format!("delivered {some} times at most"),
    };
    lines.push(format!("  {visible:?} to ack, {times}{order}"));
    let filter = group.filter.unwrap_or_default();
    for (what, names) in [
        ("feeds", &filter.feeds),
        ("channels", &filter.channels),
        ("rules", &filter.rules),
        ("instances", &filter.instances),
    ] {
        if !names.is_empty() {
            lines.push(format!("  {what}: {}", names.join(", ")));
        }
    }
    lines.push(String::new());
    let mut table = Table::new(&[
        "instance", ">behind", ">age", ">held", ">oldest", ">delayed", ">waiting", ">dead",
    ]);
    for one in &state.instances {
        table.row([
            one.instance.clone(),
            grouped(one.lag_alerts),
            age(seconds(one.lag.as_ref())),
            grouped(one.in_flight),
            age(seconds(one.oldest_unacked.as_ref())),
            grouped(one.delayed),
            grouped(one.waiting),
            grouped(one.dead),
        ]);
    }
    lines.extend(table.lines());
    lines.extend(lost(state));
    lines
}

fn lost(state: &proto::GroupState) -> Option<String> {
    let dropped: u64 = state.instances.iter().map(|one| one.dropped).sum();
    let name = state.group.as_ref().map(|group| group.name.as_str());
    (dropped > 0).then(|| {
        let name = shorten(name.unwrap_or_default(), NAME);
        let dropped = grouped(dropped);
        format!("{name}: {dropped} alerts were not kept until they could be delivered")
    })
}

pub fn as_json(state: &proto::GroupState) -> Value {
    let instance = |one: &proto::GroupInstance| {
        json!({
            "instance": one.instance, "lag_alerts": one.lag_alerts,
            "lag_seconds": seconds(one.lag.as_ref()), "in_flight": one.in_flight,
            "delayed": one.delayed, "waiting": one.waiting, "dead": one.dead,
            "oldest_unacked_seconds": seconds(one.oldest_unacked.as_ref()),
            "dropped": one.dropped,
        })
    };
    let mut value = settings(&state.group.clone().unwrap_or_default());
    value["instances"] = state.instances.iter().map(instance).collect();
    value
}

pub fn settings(group: &proto::Group) -> Value {
    let filter = group.filter.clone().unwrap_or_default();
    json!({
        "name": group.name, "version": group.version, "paused": group.paused,
        "visibility_timeout_seconds": duration(group.visibility_timeout.as_ref()).as_secs_f64(),
        "max_deliveries": group.max_deliveries, "order_by_key": group.order_by_key,
        "filter": {
            "feeds": filter.feeds, "channels": filter.channels, "rules": filter.rules,
            "instances": filter.instances,
        },
        "created_at": group.created_at.as_ref().map(ToString::to_string),
        "updated_at": group.updated_at.as_ref().map(ToString::to_string),
    })
}

fn duration(wire: Option<&prost_types::Duration>) -> Duration {
    let wire = wire.copied().unwrap_or_default();
    wire.try_into().unwrap_or_default()
}

fn seconds(wire: Option<&prost_types::Duration>) -> f64 {
    duration(wire).as_secs_f64()
}

/// At most four characters, for less than 27 years.
fn age(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0 if seconds < 0.001 => "0s".into(),
        0 => format!("{}ms", (seconds * 1000.0) as u64),
        1..120 => format!("{whole}s"),
        120..7_200 => format!("{}m", whole / 60),
        7_200..172_800 => format!("{}h", whole / 3_600),
        _ => format!("{}d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(name: &str) -> proto::GroupState {
        let instance = |number: usize| proto::GroupInstance {
            instance: format!("db{number}"),
            lag_alerts: 12_345_678,
            lag: Some(prost_types::Duration {
                seconds: 7_000,
                nanos: 0,
            }),
            in_flight: 9_999,
            delayed: 123_456,
            waiting: 5_000,
            dead: 100_000,
            oldest_unacked: None,
            dropped: 4,
        };
        proto::GroupState {
            group: Some(proto::Group {
                name: name.into(),
                paused: true,
                version: 3,
                max_deliveries: 5,
                visibility_timeout: Some(prost_types::Duration {
                    seconds: 30,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            instances: (254..256).map(instance).collect(),
        }
    }

    #[test]
    fn it_fits_80_columns() {
        let long = "n".repeat(63);
        for lines in [
            overview(&[example("mail"), example(&long)]),
            details(&example("mail")),
        ] {
            let longest = lines.iter().map(|line| line.chars().count()).max();
            assert!(longest <= Some(80), "{}", lines.join("\n"));
        }
        let lines = overview(&[example("mail")]);
        assert!(
            lines[1].starts_with("mail   24 691 356  116m  "),
            "{lines:?}"
        );
        assert!(lines[1].ends_with("  paused"), "{lines:?}");
        assert!(lines[2].starts_with("mail: 8 alerts"), "{lines:?}");
    }

    #[test]
    fn ages_are_short() {
        let shown: Vec<String> = [0.0, 0.25, 1.9, 119.0, 120.0, 7_200.0, 172_800.0]
            .map(age)
            .into();
        assert_eq!(shown, ["0s", "250ms", "1s", "119s", "2m", "2h", "2d"]);
    }
}
