//! The limits of a rule's fields.

use std::time::Duration;

use crate::{Mode, Rule};

fn rule() -> Rule {
    Rule {
        name: "big-order_1.0".to_owned(),
        feed: "orders".to_owned(),
        expression: "total > 1000".to_owned(),
        channel: "sales".to_owned(),
        reason: "a big order".to_owned(),
        mode: Mode::Edge,
        resolve: false,
        cooldown: Duration::ZERO,
    }
}

#[test]
fn fields_have_limits() {
    type Change = fn(&mut Rule);
    let wrong: [(Change, &str); 14] = [
        (|r| r.name = String::new(), "name is empty; give it a value"),
        (
            |r| r.name = "n".repeat(64),
            "name is 64 bytes long; at most 63 are allowed",
        ),
        (
            |r| r.name = "a b".to_owned(),
            "name contains ' '; use only A-Z a-z 0-9 _ . and -",
        ),
        (|r| r.channel = String::new(), "channel is empty"),
        (|r| r.channel = "é".repeat(32), "channel is 64 bytes long"),
        (|r| r.channel = "a\0".to_owned(), "channel contains a NUL"),
        (
            |r| r.channel = "pgbraid_alert".to_owned(),
            "channel starts with \"pgbraid_\"",
        ),
        (
            |r| r.reason = "r".repeat(201),
            "reason is 201 bytes long; at most 200",
        ),
        (|r| r.reason = "\0".to_owned(), "reason contains a NUL"),
        (|r| r.expression = String::new(), "expression is empty"),
        (
            |r| r.expression = "x".repeat(4001),
            "expression is 4001 bytes long; at most 4000",
        ),
        (
            |r| (r.resolve, r.mode) = (true, Mode::Level),
            "resolve needs mode \"edge\"",
        ),
        (
            |r| r.cooldown = Duration::from_micros(1500),
            "cooldown is 1.5ms; give whole milliseconds",
        ),
        (
            |r| r.cooldown = Duration::from_secs(366 * 86400 + 1),
            "cooldown is 31622401s; at most 366 days",
        ),
    ];
    for (change, message) in wrong {
        let mut rule = rule();
        change(&mut rule);
        let error = rule.validate().map_err(|e| e.to_string());
        assert!(
            error.as_ref().is_err_and(|e| e.starts_with(message)),
            "{error:?} is not {message}"
        );
    }
    let mut longest = rule();
    longest.name = "n".repeat(63);
    longest.channel = "c".repeat(63);
    longest.reason = "r".repeat(200);
    longest.cooldown = Duration::from_secs(366 * 86400);
    assert_eq!(longest.validate(), Ok(()));
}

#[test]
fn modes_are_read_as_they_are_shown() {
    for mode in [Mode::Edge, Mode::Level] {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    let error = "Edge".parse::<Mode>().map_err(|e| e.to_string());
    assert!(error.is_err_and(|e| e.starts_with("mode is \"Edge\"; write \"edge\"")));
    assert_eq!(Mode::default(), Mode::Edge);
}

#[test]
fn a_change_cannot_be_resolved() {
    let columns = ["total".to_owned()];
    let mut rule = rule();
    rule.resolve = true;
    assert!(rule.check(&columns).is_ok());
    rule.expression = "old.total < total".to_owned();
    let error = rule.check(&columns).map_err(|e| e.to_string());
    let said = "resolve cannot be asked of an expression that mentions old.";
    assert!(
        error.as_ref().is_err_and(|e| e.starts_with(said)),
        "{error:?}"
    );
    rule.resolve = false;
    assert!(rule.check(&columns).is_ok());
}
