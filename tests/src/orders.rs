//! The published orders: 68,516 real events of eight business systems, and what must become of
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
};

use flate2::read::GzDecoder;
use pgbraid_proto::v1;
use serde_json::{Map, Value, value::RawValue};

use crate::rows::{absent, int, text};

/// How the values of a column are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Money,
    Time,
    Text,
}

impl Kind {
    fn sql(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Money => "numeric(12,2)",
            Self::Time => "timestamp",
            Self::Text => "text",
        }
    }

    /// Equal values have equal texts, whatever form they came in.
    fn normal(self, text: String) -> String {
        match self {
            Self::Int | Self::Text => text,
            Self::Time => text.replace(' ', "T"),
            Self::Money => {
                let (whole, cents) = text.split_once('.').unwrap_or((&text, ""));
                assert!(cents.len() <= 2, "{text} has parts of a cent");
                format!("{whole}.{cents:0<2}")
            }
        }
    }
}

const COLUMNS: [(&str, Kind); 23] = [
    ("customer_id", Kind::Text),
    ("customer_city", Kind::Text),
    ("customer_state", Kind::Text),
    ("order_purchase_timestamp", Kind::Time),
    ("order_estimated_delivery_date", Kind::Time),
    ("order_approved_at", Kind::Time),
    ("order_delivered_carrier_date", Kind::Time),
    ("order_delivered_customer_date", Kind::Time),
    ("order_status", Kind::Text),
    ("item_count", Kind::Int),
    ("seller_count", Kind::Int),
    ("items_value", Kind::Money),
    ("freight_value", Kind::Money),
    ("shipping_limit_date", Kind::Time),
    ("payment_sequential", Kind::Int),
    ("payment_type", Kind::Text),
    ("payment_installments", Kind::Int),
    ("payment_value", Kind::Money),
    ("paid_total", Kind::Money),
    ("review_id", Kind::Text),
    ("review_creation_date", Kind::Time),
    ("review_score", Kind::Int),
    ("review_answer_timestamp", Kind::Time),
];

fn kind(column: &str) -> Kind {
    let found = COLUMNS.iter().find(|(name, _)| *name == column);
    found
        .unwrap_or_else(|| panic!("there is no column {column}"))
        .1
}

/// A row without its key: the columns that are not null, by name, in the form of [`Kind::normal`].
pub type OrderRow = BTreeMap<String, String>;

/// The stored row, from its JSON: its key and the rest.
///
/// # Panics
/// If it is not a row of an order.
pub fn stored_row(json: &str) -> (String, OrderRow) {
    let cells: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).expect("a JSON object");
    let plain = |raw: &str| match raw.starts_with('"') {
        true => serde_json::from_str(raw).expect("a JSON string"),
        false => raw.to_owned(),
    };
    let mut row = OrderRow::new();
    let mut key = None;
    for (name, raw) in cells {
        match (name.as_str(), raw.get()) {
            ("order_id", raw) => key = Some(plain(raw)),
            (_, "null") => {}
            (_, raw) => {
                let cell = kind(&name).normal(plain(raw));
                row.insert(name, cell);
            }
        }
    }
    (key.expect("a row has its key"), row)
}

/// A rule over orders.
pub struct OrderRule {
    /// Its name.
    pub name: &'static str,
    /// As SQL.
    pub expression: &'static str,
    /// The name of the number of alerts in expected.json.
    published: &'static str,
    /// The number of alerts.
    pub alerts: usize,
    /// As Rust.
    pub matches: fn(&OrderRow) -> bool,
}

fn after(row: &OrderRow, later: &str, earlier: &str) -> bool {
    row.get(later)
        .zip(row.get(earlier))
        .is_some_and(|(later, earlier)| later > earlier)
}

fn number(row: &OrderRow, column: &str) -> Option<f64> {
    Some(row.get(column)?.parse().expect("a number"))
}

/// The rules, all in edge mode.
pub const RULES: [OrderRule; 6] = [
    OrderRule {
        name: "late",
        expression: "order_delivered_customer_date > order_estimated_delivery_date",
        published: "late_delivery: delivered_customer > estimated (timestamp compare)",
        alerts: 415,
        matches: |row| {
            after(
                row,
                "order_delivered_customer_date",
                "order_estimated_delivery_date",
            )
        },
    },
    OrderRule {
        name: "high_value",
        expression: "paid_total > 1000",
        published: "high_value: paid_total > 1000",
        alerts: 122,
        matches: |row| number(row, "paid_total").is_some_and(|paid| paid > 1000.0),
    },
    OrderRule {
        name: "canceled_paid",
        expression: "order_status = 'canceled' and paid_total > 500",
        published: "canceled_and_paid_over_500",
        alerts: 53,
        matches: |row| {
            row.get("order_status")
                .is_some_and(|status| status == "canceled")
                && number(row, "paid_total").is_some_and(|paid| paid > 500.0)
        },
    },
    OrderRule {
        name: "installments",
        expression: "payment_installments >= 10",
        published: "installments_ge_10: any payment with >= 10 installments",
        alerts: 476,
        matches: |row| number(row, "payment_installments").is_some_and(|count| count >= 10.0),
    },
    OrderRule {
        name: "missed_limit",
        expression: "order_delivered_carrier_date > shipping_limit_date",
        published: "seller_missed_limit: carrier > max(shipping_limit_date)",
        alerts: 605,
        matches: |row| after(row, "order_delivered_carrier_date", "shipping_limit_date"),
    },
    OrderRule {
        name: "low_review",
        expression: "review_score <= 2",
        published: "low_review: any review_score <= 2",
        alerts: 3009,
        matches: |row| number(row, "review_score").is_some_and(|score| score <= 2.0),
    },
];

/// One event: the columns that a business system sets.
pub struct OrderEvent {
    /// 32 hexadecimal digits.
    pub key: String,
    /// The business system.
    pub source: String,
    set: Map<String, Value>,
}

impl OrderEvent {
    fn apply(&self, row: &mut OrderRow) {
        for (name, value) in &self.set {
            let plain = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            row.insert(name.clone(), kind(name).normal(plain));
        }
    }
}

/// All events, in the order of time.
pub struct Orders {
    /// The events.
    pub events: Vec<OrderEvent>,
}

impl Orders {
    /// The schema of the feed `orders`, with a key of this type.
    pub fn schema(key_type: &str) -> String {
        let columns: Vec<String> = COLUMNS
            .iter()
            .map(|(name, kind)| format!("{name} {}", kind.sql()))
            .collect();
        format!(
            "create table orders (order_id {key_type} primary key, {}) \
             partition by hash (order_id);",
            columns.join(", ")
        )
    }

    /// Reads the events, where they are there; says so where they are not.
    ///
    /// # Panics
    /// If a file is broken, or its numbers are not those that the rules expect.
    pub fn load() -> Option<Self> {
        let folder = crate::shared_folder()?.join("data/olist");
        let Ok(file) = std::fs::File::open(folder.join("events.jsonl.gz")) else {
            eprintln!("skipped: the published orders are not there");
            return None;
        };
        let expected = std::fs::read(folder.join("expected.json")).expect("expected.json is there");
        let expected: Value = serde_json::from_slice(&expected).expect("expected.json is JSON");
        for rule in &RULES {
            assert_eq!(
                expected["rules"][rule.published], rule.alerts,
                "rule {}",
                rule.name
            );
        }
        let events: Vec<OrderEvent> = BufReader::new(GzDecoder::new(file))
            .lines()
            .map(|line| {
                let line = line.expect("the events are gzip");
                let event: Value = serde_json::from_str(&line).expect("an event is JSON");
                let part = |name: &str| event[name].as_str().expect("a text").to_owned();
                OrderEvent {
                    key: part("order_id"),
                    source: part("source"),
                    set: event["set"].as_object().expect("an object").clone(),
                }
            })
            .collect();
        assert_eq!(expected["events_total"], events.len());
        Some(Self { events })
    }

    /// The events of each business system, in its order.
    pub fn by_source(&self) -> BTreeMap<String, Vec<&OrderEvent>> {
        let mut sources: BTreeMap<String, Vec<&OrderEvent>> = BTreeMap::new();
        for event in &self.events {
            sources.entry(event.source.clone()).or_default().push(event);
        }
        sources
    }

    /// The final rows by key, and the alerts as rule and key, with repeats: a plain fold. Each
    /// system owns its columns, so that the order between systems changes neither.
    pub fn fold(&self) -> (BTreeMap<String, OrderRow>, Vec<(&'static str, String)>) {
        let mut rows: BTreeMap<String, OrderRow> = BTreeMap::new();
        let mut alerts = Vec::new();
        for event in &self.events {
            let row = rows.entry(event.key.clone()).or_default();
            let before = RULES.map(|rule| (rule.matches)(row));
            event.apply(row);
            for (rule, before) in RULES.iter().zip(before) {
                if !before && (rule.matches)(row) {
                    alerts.push((rule.name, event.key.clone()));
                }
            }
        }
        alerts.sort();
        (rows, alerts)
    }
}

/// A request of these events: it names the columns that any of them sets.
pub fn request(events: &[&OrderEvent], key: impl Fn(&str) -> v1::Value) -> v1::WriteRequest {
    let columns: BTreeSet<&str> = events
        .iter()
        .flat_map(|event| event.set.keys().map(String::as_str))
        .collect();
    let columns: Vec<&str> = columns.into_iter().collect();
    let rows = events.iter().map(|event| {
        let values = columns.iter().map(|column| match event.set.get(*column) {
            None => absent(),
            Some(Value::Number(number)) => int(number.as_i64().expect("a whole number")),
            Some(Value::String(value)) => text(value.clone()),
            Some(other) => panic!("{column} is {other}"),
        });
        (key(&event.key), values.collect())
    });
    crate::rows::rows("orders", &columns, rows)
}
