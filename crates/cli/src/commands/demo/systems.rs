//! The eight business systems. Each has a stream of its own and writes its own columns of an order,
//! some steps after the order came in.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgbraid_client::proto::WriteRequest;
use pgbraid_client::{BuildError, Client, Columns, ProducerConfig};
use tokio::sync::watch;

use super::life::Life;
use crate::meter::{Feeder, Meter};

/// Rows that an order makes over its life.
const ROWS_AN_ORDER: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Storefront,
    Catalog,
    Payments,
    Risk,
    Warehouse,
    Carrier,
    Reviews,
    OrderDesk,
}

/// What a system says of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Ordered,
    Listed,
    Paid,
    Assessed,
    Packed,
    Shipped,
    Delivered,
    Reviewed,
    Created,
    Closed,
}

impl System {
    pub const ALL: [Self; 8] = [
        Self::Storefront,
        Self::Catalog,
        Self::Payments,
        Self::Risk,
        Self::Warehouse,
        Self::Carrier,
        Self::Reviews,
        Self::OrderDesk,
    ];

    /// What it does in each step, and how many steps after the order came in.
    fn acts(self) -> &'static [(i64, Act)] {
        match self {
            Self::Storefront => &[(0, Act::Ordered)],
            Self::Catalog => &[(0, Act::Listed)],
            Self::Payments => &[(1, Act::Paid)],
            Self::Risk => &[(1, Act::Assessed)],
            Self::Warehouse => &[(2, Act::Packed)],
            Self::Carrier => &[(3, Act::Shipped), (5, Act::Delivered)],
            Self::Reviews => &[(6, Act::Reviewed)],
            Self::OrderDesk => &[(0, Act::Created), (6, Act::Closed)],
        }
    }
}

/// Steps of all systems: in each, so many new orders come in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    orders: i64,
    every: Option<Duration>,
}

impl Pace {
    /// For this many rows a second; `None`: as many as go.
    pub fn new(rows_per_second: Option<u64>) -> Self {
        let Some(rate) = rows_per_second else {
            return Self {
                orders: 1000,
                every: None,
            };
        };
        // About twenty steps a second, so that it flows.
        let orders = (rate / ROWS_AN_ORDER / 20).clamp(1, 1000);
        let every = Duration::from_secs_f64((orders * ROWS_AN_ORDER) as f64 / rate as f64);
        Self {
            orders: orders.cast_signed(),
            every: Some(every),
        }
    }
}

/// Works until it is told to end; then waits for its acks.
pub async fn run(
    system: System,
    client: Client,
    pace: Pace,
    meter: Arc<Meter>,
    ended: watch::Receiver<bool>,
) {
    let config = ProducerConfig {
        in_flight: 16,
        retry_refused: Some(Duration::from_secs(10)),
        give_up_after: Some(Duration::from_secs(10)),
        ..ProducerConfig::default()
    };
    let feeder = Feeder::new(client, config, meter);
    let mut next = Instant::now();
    'steps: for step in 0i64.. {
        if let Some(every) = pace.every {
            tokio::time::sleep_until(next.into()).await;
            // A machine that is too slow gets a lower rate, not an ever growing backlog.
            next = (next + every).max(Instant::now() - Duration::from_secs(1));
        }
        if *ended.borrow() {
            break;
        }
        for &(after, act) in system.acts() {
            let first = (step - after) * pace.orders + 1;
            if first < 1 {
                continue;
            }
            let (rows, request) = request(act, first..first + pace.orders);
            // Columns of one length, as all here are, can always be built.
            let Ok(request) = request else { break 'steps };
            if rows > 0 && !feeder.send(request, rows, Instant::now()).await {
                break 'steps;
            }
        }
    }
    feeder.finish().await;
}

fn request(act: Act, orders: Range<i64>) -> (u64, Result<WriteRequest, BuildError>) {
    let lives = orders.map(|order| (order, Life::of(order)));
    // A canceled order is paid and packed, and goes no further.
    let ends = matches!(act, Act::Shipped | Act::Delivered | Act::Reviewed);
    let lives: Vec<(i64, Life)> = lives.filter(|(_, life)| !(ends && life.canceled)).collect();
    let columns = Columns::new("orders").keys_int8(lives.iter().map(|(order, _)| *order));
    let of = || lives.iter().map(|(_, life)| life);
    let columns = match act {
        Act::Ordered => columns
            .texts("customer", of().map(|life| Some(&life.customer)))
            .texts("region", of().map(|life| Some(life.region)))
            .int64s("ordered_at", of().map(|life| life.ordered_at))
            .int64s("estimated_at", of().map(|life| life.estimated_at)),
        Act::Listed => columns
            .texts("category", of().map(|life| Some(life.category)))
            .int32s("items", of().map(|life| life.items))
            .texts("item_total", of().map(|life| Some(money(life.item_cents)))),
        Act::Paid => columns
            .texts("payment_type", of().map(|life| Some(life.payment_type)))
            .int32s("payment_installments", of().map(|life| life.installments))
            .texts("paid_total", of().map(|life| Some(money(life.paid_cents))))
            .int64s("paid_at", of().map(|life| life.paid_at)),
        Act::Assessed => columns
            .int32s("risk_score", of().map(|life| life.risk_score))
            .int64s("risk_checked_at", of().map(|life| life.paid_at)),
        Act::Packed => columns
            .texts("warehouse", of().map(|life| Some(life.warehouse)))
            .int64s("packed_at", of().map(|life| life.packed_at)),
        Act::Shipped => columns
            .texts("carrier", of().map(|life| Some(life.carrier)))
            .texts("tracking_code", of().map(|life| Some(&life.tracking)))
            .int64s("shipped_at", of().map(|life| life.shipped_at)),
        Act::Delivered => columns.int64s("delivered_at", of().map(|life| life.delivered_at)),
        Act::Reviewed => columns
            .int32s("review_score", of().map(|life| life.review_score))
            .texts("review_text", of().map(|life| opinion(life.review_score))),
        Act::Created => columns.texts("status", of().map(|_| Some("created"))),
        Act::Closed => columns
            .texts(
                "status",
                of().map(|life| Some(if life.canceled { "canceled" } else { "done" })),
            )
            .int64s(
                "canceled_at",
                of().map(|life| life.canceled.then_some(life.packed_at)),
            )
            .texts(
                "attrs",
                of().map(|life| Some(format!("{{\"desk\": \"{}\"}}", life.region))),
            ),
    };
    (lives.len() as u64, columns.build())
}

fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn opinion(score: i32) -> Option<&'static str> {
    match score {
        ..=2 => Some("not what I ordered"),
        5.. => Some("very good"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_makes_requests_of_columns_that_exist() {
        let schema = crate::commands::dev::files::DEMO_SCHEMA;
        let mut acts = 0;
        for system in System::ALL {
            for &(_, act) in system.acts() {
                acts += 1;
                let (rows, request) = request(act, 1..1001);
                assert!(rows > 900, "{act:?}");
                let Some(pgbraid_client::proto::write_request::Form::Columnar(form)) =
                    request.unwrap().form
                else {
                    panic!("not columnar")
                };
                for column in form.columns {
                    let line = format!("\n  {} ", column.name);
                    assert!(schema.contains(&line), "{}", column.name);
                }
            }
        }
        assert_eq!(acts, ROWS_AN_ORDER);
    }

    #[test]
    fn paces() {
        let pace = Pace::new(Some(20_000));
        assert_eq!(
            (pace.orders, pace.every),
            (100, Some(Duration::from_millis(50)))
        );
        assert_eq!(Pace::new(Some(10)).every, Some(Duration::from_secs(1)));
        assert_eq!(Pace::new(None).every, None);
    }
}
