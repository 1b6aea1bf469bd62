//! The life of an order, made from its number: every system tells its own part of the same story.

use pgbraid_client::proto;

/// One order in this many has an anomaly. An order makes ten rows: one anomaly in 10,000 rows.
pub const ANOMALY_ONE_IN: u64 = 1000;

/// 2026-01-01 00:00 UTC, in µs since 1970.
const BEGIN_US: i64 = 1_767_225_600_000_000;
const HOUR_US: i64 = 3_600_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anomaly {
    Expensive,
    Late,
    BadReview,
    CanceledPaid,
    ManyInstallments,
}

/// What happens to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    pub customer: String,
    pub region: &'static str,
    pub category: &'static str,
    pub items: i32,
    /// In cents.
    pub item_cents: i64,
    pub paid_cents: i64,
    pub payment_type: &'static str,
    pub installments: i32,
    pub risk_score: i32,
    pub warehouse: &'static str,
    pub carrier: &'static str,
    pub tracking: String,
    pub review_score: i32,
    pub canceled: bool,
    /// µs since 1970.
    pub ordered_at: i64,
    pub paid_at: i64,
    pub packed_at: i64,
    pub shipped_at: i64,
    pub delivered_at: i64,
    pub estimated_at: i64,
}

impl Life {
    pub fn of(order: i64) -> Self {
        let mut dice = Dice(order.cast_unsigned());
        let anomaly = Self::anomaly(&mut dice);
        let item_cents = dice.between(500, 40_000);
        let freight = dice.between(300, 3000);
        let canceled = match anomaly {
            None => dice.between(0, 100) == 0,
            Some(anomaly) => anomaly == Anomaly::CanceledPaid,
        };
        let paid_cents = match anomaly {
            Some(Anomaly::Expensive) => dice.between(100_001, 900_000),
            Some(Anomaly::CanceledPaid) => dice.between(50_001, 99_000),
            _ => item_cents + freight,
        };
        let ordered_at = BEGIN_US + order * 1_000_000;
        let paid_at = ordered_at + dice.between(1, 60) * 60_000_000;
        let packed_at = paid_at + dice.between(2, 48) * HOUR_US;
        let shipped_at = packed_at + dice.between(1, 24) * HOUR_US;
        let delivered_at = shipped_at + dice.between(24, 240) * HOUR_US;
        let slack = dice.between(1, 200) * HOUR_US;
        let late = anomaly == Some(Anomaly::Late);
        Self {
            customer: format!("c{:07}", dice.between(0, 10_000_000)),
            region: dice.pick(&["north", "south", "east", "west", "islands"]),
            category: dice.pick(&["books", "toys", "garden", "kitchen", "music", "sports"]),
            items: dice.between(1, 6) as i32,
            item_cents,
            paid_cents,
            payment_type: dice.pick(&["card", "transfer", "voucher", "wallet"]),
            installments: match anomaly {
                Some(Anomaly::ManyInstallments) => dice.between(10, 25),
                _ => dice.between(1, 7),
            } as i32,
            risk_score: dice.between(0, 100) as i32,
            warehouse: dice.pick(&["w1", "w2", "w3"]),
            carrier: dice.pick(&["swift", "parcel", "post"]),
            tracking: format!("T{:010X}", dice.between(0, 1 << 40)),
            review_score: match anomaly {
                Some(Anomaly::BadReview) => dice.between(1, 3),
                _ => dice.between(3, 6),
            } as i32,
            canceled,
            ordered_at,
            paid_at,
            packed_at,
            shipped_at,
            delivered_at,
            estimated_at: if late {
                delivered_at - slack
            } else {
                delivered_at + slack
            },
        }
    }

    fn anomaly(dice: &mut Dice) -> Option<Anomaly> {
        if dice.below(ANOMALY_ONE_IN) != 0 {
            return None;
        }
        Some(dice.pick(&[
            Anomaly::Expensive,
            Anomaly::Late,
            Anomaly::BadReview,
            Anomaly::CanceledPaid,
            Anomaly::ManyInstallments,
        ]))
    }
}

/// What finds the anomalies.
pub fn rules() -> Vec<proto::RulePut> {
    [
        (
            "expensive",
            "paid_total > 1000",
            "payments",
            "paid more than 1000",
        ),
        (
            "late",
            "delivered_at > estimated_at",
            "delivery",
            "delivered late",
        ),
        ("low_review", "review_score <= 2", "reviews", "low review"),
        (
            "canceled_paid",
            "status = 'canceled' and paid_total > 500",
            "order_desk",
            "canceled, paid over 500",
        ),
        (
            "installments",
            "payment_installments >= 10",
            "payments",
            "10 or more installments",
        ),
    ]
    .into_iter()
    .map(|(name, expression, channel, reason)| proto::RulePut {
        rule: Some(proto::Rule {
            name: name.into(),
            feed: "orders".into(),
            expression: expression.into(),
            channel: channel.into(),
            reason: reason.into(),
            mode: proto::RuleMode::Edge.into(),
            ..Default::default()
        }),
        expected_version: None,
    })
    .collect()
}

/// SplitMix64, seeded with the order's number.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((u128::from(z) * u128::from(bound)) >> 64) as u64
    }

    /// From `low` to less than `high`.
    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low).cast_unsigned()).cast_signed()
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_finds_each_anomaly_and_nothing_else() {
        let orders = 200_000;
        let (mut anomalies, mut found) = (0, 0);
        for order in 0..orders {
            let life = Life::of(order);
            let mut dice = Dice(order.cast_unsigned());
            anomalies += usize::from(Life::anomaly(&mut dice).is_some());
            let rules = [
                life.paid_cents > 100_000,
                life.delivered_at > life.estimated_at,
                life.review_score <= 2,
                life.canceled && life.paid_cents > 50_000,
                life.installments >= 10,
            ];
            let fired = rules.iter().filter(|fired| **fired).count();
            assert!(fired <= 1, "{life:?}");
            found += fired;
        }
        let expected = orders as usize / ANOMALY_ONE_IN as usize;
        assert!(anomalies.abs_diff(expected) < expected / 4, "{anomalies}");
        assert_eq!(found, anomalies);
    }
}
