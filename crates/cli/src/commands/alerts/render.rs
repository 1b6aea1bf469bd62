//! Events as lines: for people, and as JSON.

use std::fmt;

use pgbraid_client::{Event, Message, Received, proto};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::output::shorten;

/// An alert on one line. With a width, NULLs are left out and the row is cut to fit.
pub fn alert(alert: &proto::Alert, width: Option<usize>) -> String {
    let raised = alert.raised_at.as_ref().map(ToString::to_string);
    let raised = raised.unwrap_or_default();
    let (instance, rule, key) = (&alert.instance, &alert.rule, &alert.key);
    let mut reason = plain(&alert.reason);
    if alert.resolved {
        reason.insert_str(0, "resolved: ");
    }
    let key = plain(key);
    match width {
        None => format!(
            "{raised} {instance} {} {rule} {key} {reason} {}",
            alert.channel,
            plain(&alert.row)
        ),
        Some(width) => {
            let time = raised.get(11..19).unwrap_or("--:--:--");
            let line = format!(
                "{time} {instance:<5} {rule} {key}: {reason} {}",
                brief(&alert.row, &alert.key)
            );
            shorten(&line, width)
        }
    }
}

pub fn notification(event: &proto::Notification, width: Option<usize>) -> String {
    let payload = plain(&event.payload);
    let line = format!(
        "{} {} (notification) {payload}",
        event.instance, event.channel
    );
    width.map_or(line.clone(), |width| shorten(&line, width))
}

/// What people should know about the stream itself.
pub fn remark(event: &Event) -> Option<String> {
    match event {
        Event::Gap(gap) => Some(format!(
            "{}: notifications of plain channels may have been lost: {}",
            gap.instance, gap.reason
        )),
        Event::InstanceStatus(status) if status.readable => {
            Some(format!("{}: can be read again", status.instance))
        }
        Event::InstanceStatus(status) => Some(format!(
            "{}: cannot be read: {}",
            status.instance, status.reason
        )),
        Event::Rewound(rewound) => Some(format!(
            "{}: read again from an earlier point, alerts may repeat: {}",
            rewound.instance, rewound.reason
        )),
        Event::Dropped(dropped) => Some(format!(
            "{}: up to {} alerts raised before {} are lost to this subscription: {}",
            dropped.instance,
            dropped.alerts,
            dropped
                .raised_until
                .as_ref()
                .map_or_else(|| "?".to_owned(), ToString::to_string),
            dropped.reason
        )),
        _ => None,
    }
}

/// The columns that are not NULL, in the table's order, without quotes and without the key, which
/// has been shown.
fn brief(row: &str, key: &str) -> String {
    let Ok(Columns(columns)) = serde_json::from_str(row) else {
        return plain(row);
    };
    let mut shown = Vec::new();
    for (i, (name, value)) in columns.iter().enumerate() {
        let value = value.get();
        // Anything but a string is shown as it is written, so that numbers keep their digits.
        let value = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
        if value != "null" && !(i == 0 && value == key) {
            shown.push(format!("{name}={}", plain(&value)));
        }
    }
    shown.join(" ")
}

/// A JSON object in its own order.
struct Columns(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// One line, and nothing in it that a terminal would obey.
pub fn plain(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(visible).collect()
}

/// An event as a JSON object.
#[derive(Serialize)]
pub struct Line<'a> {
    #[serde(flatten)]
    event: Kind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

/// A delivery as a JSON object: the alert, and which delivery of it this is.
#[derive(Serialize)]
pub struct Delivered<'a> {
    #[serde(flatten)]
    alert: Kind<'a>,
    group: &'a str,
    delivery: u32,
    deadline: Option<String>,
}

impl<'a> Delivered<'a> {
    pub fn of(group: &'a str, message: &'a Message) -> Self {
        let deadline = message.deadline.map(prost_types::Timestamp::from);
        Self {
            alert: Kind::alert(&message.alert),
            group,
            delivery: message.delivery,
            deadline: deadline.as_ref().map(ToString::to_string),
        }
    }
}

/// A dead letter as a JSON object.
#[derive(Serialize)]
pub struct Letter<'a> {
    id: &'a str,
    group: &'a str,
    reason: &'a str,
    deliveries: u32,
    died_at: Option<String>,
    history: Vec<Attempt<'a>>,
    alert: Option<Kind<'a>>,
}

#[derive(Serialize)]
struct Attempt<'a> {
    delivery: u32,
    member: &'a str,
    delivered_at: Option<String>,
    ended_at: Option<String>,
    how: &'a str,
    reason: &'a str,
}

impl<'a> Letter<'a> {
    pub fn of(letter: &'a proto::DeadLetter) -> Self {
        let attempt = |one: &'a proto::Attempt| Attempt {
            delivery: one.delivery,
            member: &one.member,
            delivered_at: one.delivered_at.as_ref().map(ToString::to_string),
            ended_at: one.ended_at.as_ref().map(ToString::to_string),
            how: &one.how,
            reason: &one.reason,
        };
        Self {
            id: &letter.id,
            group: &letter.group,
            reason: &letter.reason,
            deliveries: letter.deliveries,
            died_at: letter.died_at.as_ref().map(ToString::to_string),
            history: letter.history.iter().map(attempt).collect(),
            alert: letter.alert.as_ref().map(Kind::alert),
        }
    }
}

/// A dead letter on one line.
pub fn letter(letter: &proto::DeadLetter, width: Option<usize>) -> String {
    let died = letter.died_at.as_ref().map(ToString::to_string);
    let died = died.unwrap_or_default();
    let reason = plain(&letter.reason);
    let (rule, key, row) = match &letter.alert {
        Some(alert) => (alert.rule.as_str(), plain(&alert.key), plain(&alert.row)),
        None => ("?", "?".into(), String::new()),
    };
    let (id, times) = (&letter.id, letter.deliveries);
    match width {
        None => format!("{id} {died} {rule} {key} deliveries={times} {reason} {row}"),
        Some(width) => {
            let time = died.get(5..19).unwrap_or("--").replace('T', " ");
            shorten(&format!("{id:<9} {time} {rule} {key}: {reason}"), width)
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Kind<'a> {
    Alert {
        instance: &'a str,
        seq: i64,
        feed: &'a str,
        rule: &'a str,
        rule_version: i64,
        channel: &'a str,
        reason: &'a str,
        key: &'a str,
        /// As PostgreSQL wrote it: numbers keep their digits.
        row: Box<RawValue>,
        raised_at: Option<String>,
        resolved: bool,
    },
    Notification {
        instance: &'a str,
        channel: &'a str,
        payload: &'a str,
        pid: i32,
    },
    Gap {
        instance: &'a str,
        reason: &'a str,
    },
    InstanceStatus {
        instance: &'a str,
        readable: bool,
        reason: &'a str,
    },
    Rewound {
        instance: &'a str,
        reason: &'a str,
    },
    Dropped {
        instance: &'a str,
        alerts: u64,
        raised_until: Option<String>,
        reason: &'a str,
    },
    Heartbeat {
        progress: Vec<Progress<'a>>,
    },
    Unknown {},
}

#[derive(Serialize)]
struct Progress<'a> {
    instance: &'a str,
    state: &'static str,
    read_at: Option<String>,
}

impl<'a> Line<'a> {
    pub fn of(received: &'a Received) -> Self {
        Self {
            event: Kind::of(&received.event),
            token: received.token.as_deref(),
        }
    }
}

impl<'a> Kind<'a> {
    fn alert(alert: &'a proto::Alert) -> Self {
        Self::Alert {
            instance: &alert.instance,
            seq: alert.seq,
            feed: &alert.feed,
            rule: &alert.rule,
            rule_version: alert.rule_version,
            channel: &alert.channel,
            reason: &alert.reason,
            key: &alert.key,
            row: raw(&alert.row),
            raised_at: alert.raised_at.as_ref().map(ToString::to_string),
            resolved: alert.resolved,
        }
    }

    fn of(event: &'a Event) -> Self {
        match event {
            Event::Alert(alert) => Self::alert(alert),
            Event::Notification(event) => Self::Notification {
                instance: &event.instance,
                channel: &event.channel,
                payload: &event.payload,
                pid: event.pid,
            },
            Event::Gap(event) => Self::Gap {
                instance: &event.instance,
                reason: &event.reason,
            },
            Event::InstanceStatus(event) => Self::InstanceStatus {
                instance: &event.instance,
                readable: event.readable,
                reason: &event.reason,
            },
            Event::Rewound(event) => Self::Rewound {
                instance: &event.instance,
                reason: &event.reason,
            },
            Event::Dropped(event) => Self::Dropped {
                instance: &event.instance,
                alerts: event.alerts,
                raised_until: event.raised_until.as_ref().map(ToString::to_string),
                reason: &event.reason,
            },
            Event::Heartbeat(event) => Self::Heartbeat {
                progress: event.progress.iter().map(Progress::of).collect(),
            },
            _ => Self::Unknown {},
        }
    }
}

impl<'a> Progress<'a> {
    fn of(progress: &'a proto::Progress) -> Self {
        use proto::progress::State;
        Self {
            instance: &progress.instance,
            state: match progress.state() {
                State::Live => "live",
                State::CatchingUp => "catching_up",
                State::Down => "down",
            },
            read_at: progress.read_at.as_ref().map(ToString::to_string),
        }
    }
}

fn raw(row: &str) -> Box<RawValue> {
    // The row of an alert is always JSON; should it not be, it is shown as the text it is.
    let one_line: Result<Box<RawValue>, _> = serde_json::from_str(row);
    one_line.unwrap_or_else(|_| {
        serde_json::value::to_raw_value(row).unwrap_or_else(|_| RawValue::NULL.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> proto::Alert {
        let seconds = 1_700_000_000;
        proto::Alert {
            instance: "db3".into(),
            seq: 7,
            feed: "orders".into(),
            rule: "paid_over_1000".into(),
            rule_version: 2,
            channel: "payments".into(),
            reason: "paid_total over 1000".into(),
            key: "1000234".into(),
            row: r#"{"order_id":1000234,"status":null,"paid_total":1234.50,"customer":"a\nb","region":"north"}"#
                .into(),
            raised_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            resolved: false,
        }
    }

    #[test]
    fn an_end_is_shown_as_one() {
        let mut end = example();
        end.resolved = true;
        let said = "paid_over_1000 1000234: resolved: paid_total over 1000 paid_total=";
        assert!(alert(&end, Some(200)).contains(said));
        assert!(alert(&end, None).contains(" 1000234 resolved: paid_total over 1000 {"));
        let received = Received {
            event: Event::Alert(end),
            token: None,
        };
        let json = serde_json::to_string(&Line::of(&received)).unwrap();
        assert!(json.contains(r#""resolved":true"#), "{json}");
    }

    #[test]
    fn alerts_fit_80_columns() {
        let line = alert(&example(), Some(80));
        assert_eq!(line.chars().count(), 80, "{line}");
        let start = "22:13:20 db3   paid_over_1000 1000234: paid_total over 1000 paid_total=1234.5";
        assert!(line.starts_with(start), "{line}");
        assert!(line.ends_with('…'));
        let wide = alert(&example(), Some(200));
        assert!(
            wide.ends_with("1000 paid_total=1234.50 customer=a b region=north"),
            "{wide}"
        );
    }

    #[test]
    fn elsewhere_nothing_is_cut() {
        let line = alert(&example(), None);
        assert!(line.starts_with("2023-11-14T22:13:20Z db3 payments paid_over_1000 1000234 "));
        assert!(line.contains("1234.50"));
    }

    #[test]
    fn json_keeps_the_digits_and_the_token() {
        let received = Received {
            event: Event::Alert(example()),
            token: Some("t".into()),
        };
        let text = serde_json::to_string(&Line::of(&received)).unwrap();
        assert!(
            text.starts_with(r#"{"event":"alert","instance":"db3","seq":7,"#),
            "{text}"
        );
        assert!(text.contains(r#""paid_total":1234.50"#), "{text}");
        assert!(text.ends_with(r#""token":"t"}"#), "{text}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        let mut hostile = example();
        hostile.reason = "\u{1b}[31mred".into();
        hostile.key = "a\nb".into();
        let line = alert(&hostile, Some(80));
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}
