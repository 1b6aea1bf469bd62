//! Rules that can't be right, and what is said about them.

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Refusal, Router, Writer,
    rows::{self, int},
};
use tonic::{Code, Status};

fn rule(name: &str, expression: &str) -> v1::Rule {
    v1::Rule {
        name: name.into(),
        feed: "feed".into(),
        expression: expression.into(),
        channel: "a".into(),
        ..Default::default()
    }
}

fn request(rules: impl IntoIterator<Item = (v1::Rule, Option<i64>)>) -> v1::PutRulesRequest {
    let put = |(rule, expected_version)| v1::RulePut {
        rule: Some(rule),
        expected_version,
    };
    v1::PutRulesRequest {
        rules: rules.into_iter().map(put).collect(),
        ..Default::default()
    }
}

async fn put(
    router: &Router,
    rules: impl IntoIterator<Item = (v1::Rule, Option<i64>)>,
) -> Result<(), Status> {
    let answer = rows::admin(router).await.put_rules(request(rules)).await;
    answer.map(drop)
}

async fn stored(router: &Router) -> Vec<(String, String, i64)> {
    let rules = rows::admin(router)
        .await
        .list_rules(v1::ListRulesRequest::default())
        .await;
    let rules = rules.expect("rules are listed").into_inner().rules;
    rules
        .into_iter()
        .map(|rule| (rule.name, rule.expression, rule.version))
        .collect()
}

#[tokio::test]
async fn a_rule_that_is_not_right_is_refused_with_its_place() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let expressions = [
        ("c1 >", "line 1"),
        ("", "empty"),
        ("(c1 > 1", "line 1"),
        ("c1 > 1; drop table feed", "line 1"),
        ("pg_sleep(1) is null", "pg_sleep"),
        ("now() > '2020-01-01'", "now"),
        ("public.f(c1)", "line 1"),
        ("exists (select 1)", "line 1"),
        ("c1 in (select id from feed)", "line 1"),
        ("count(*) > 1", "count"),
        ("$1 > 1", "line 1"),
        ("c1 + 1", "boolean"),
        ("c1", "boolean"),
        ("c1 > 'x'", "integer"),
        ("c13 > 1", "c13"),
        ("feed2.c1 > 1", "line 1"),
        ("c1 like 5", "line 1"),
    ];
    let mut admin = rows::admin(&router).await;
    for (expression, part) in expressions {
        // All or nothing: the good rule before it is not stored either.
        let rules = [
            (rule("good", "c1 > 0"), None),
            (rule("bad", expression), None),
        ];
        let case = format!("{expression:?}");
        let status = put(&router, rules).await.expect_err(&case);
        let refusal = Refusal::from(&status);
        let field = match expression {
            "" => "rules[1]",
            _ => "rules[1].rule.expression",
        };
        let part = if expression == "c1 like 5" {
            "rule \"bad\""
        } else {
            part
        };
        refusal.assert_bad_field(&case, "BAD_RULE", field, part);
        let request = v1::TestRuleRequest {
            rule: Some(rule("bad", expression)),
            sample: 1,
        };
        let status = admin.test_rule(request).await.expect_err(&case);
        assert_eq!(
            Refusal::from(&status).reason,
            "BAD_RULE",
            "{case}: {status:?}"
        );
        assert_eq!(status.code(), Code::InvalidArgument, "{case}: {status:?}");
    }
    assert_eq!(stored(&router).await, []);
    let mut writer = Writer::open(&router).await;
    writer
        .write(rows::rows("feed", &["c1"], [(int(1), vec![int(1)])]))
        .await;
    assert_eq!(cluster.sum("select count(*) from pgbraid.alert").await, 0);
}

#[tokio::test]
async fn a_rule_with_a_wrong_field_is_refused() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let good = || rule("good", "c1 > 0");
    let cases = [
        (
            "UNKNOWN_FEED",
            "rules[0].rule.feed",
            "fead",
            v1::Rule {
                feed: "fead".into(),
                ..good()
            },
        ),
        ("BAD_RULE", "rules[0]", "name", rule("", "c1 > 0")),
        ("BAD_RULE", "rules[0]", "name", rule("a b", "c1 > 0")),
        (
            "BAD_RULE",
            "rules[0]",
            "name",
            rule(&"x".repeat(64), "c1 > 0"),
        ),
        (
            "BAD_RULE",
            "rules[0]",
            "channel",
            v1::Rule {
                channel: String::new(),
                ..good()
            },
        ),
        (
            "BAD_RULE",
            "rules[0]",
            "pgbraid_",
            v1::Rule {
                channel: "pgbraid_alert".into(),
                ..good()
            },
        ),
        (
            "BAD_RULE",
            "rules[0]",
            "reason",
            v1::Rule {
                reason: "x".repeat(201),
                ..good()
            },
        ),
        (
            "BAD_RULE",
            "rules[0]",
            "4000",
            rule("long", &format!("c1 > {}", "0".repeat(4000))),
        ),
        (
            "UNKNOWN_MODE",
            "rule.mode",
            "9",
            v1::Rule { mode: 9, ..good() },
        ),
    ];
    for (reason, field, part, rule) in cases {
        let case = format!("{rule:?}");
        let status = put(&router, [(rule, None)]).await.expect_err(&case);
        Refusal::from(&status).assert_bad_field(&case, reason, field, part);
    }
    let twice = put(&router, [(good(), None), (good(), None)])
        .await
        .expect_err("twice");
    Refusal::from(&twice).assert_bad_field("twice", "REPEATED_RULE", "rules[1]", "twice");
    assert_eq!(stored(&router).await, []);
}

/// Two editors: the one who has not seen the latest version is refused.
#[tokio::test]
async fn a_rule_that_somebody_else_changed_is_not_overwritten() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let one = |expression| [(rule("one", expression), Some(0))];
    put(&router, one("c1 > 1")).await.expect("it is new");
    let conflicts = [("c1 > 2", Some(0)), ("c1 > 2", Some(7))];
    for (expression, expected) in conflicts {
        let status = put(&router, [(rule("one", expression), expected)]).await;
        let refusal = Refusal::from(&status.expect_err("it is of version 1"));
        assert_eq!(refusal.code, Code::Aborted, "{refusal:?}");
        assert!(refusal.message.contains("version 1"), "{refusal:?}");
        assert!(
            !refusal.retry,
            "the same edit is refused again: {refusal:?}"
        );
    }
    put(&router, [(rule("one", "c1 > 3"), Some(1))])
        .await
        .expect("version 1 was seen");
    let gone = put(&router, [(rule("two", "c1 > 3"), Some(1))]).await;
    assert_eq!(gone.expect_err("there is no two").code(), Code::Aborted);
    let mut admin = rows::admin(&router).await;
    for (name, expected_version) in [("one", Some(1)), ("three", None)] {
        let name = name.to_owned();
        let request = v1::RemoveRuleRequest {
            name,
            expected_version,
        };
        let status = admin
            .remove_rule(request)
            .await
            .expect_err("it can't be removed");
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
    }
    assert_eq!(stored(&router).await, [("one".into(), "c1 > 3".into(), 2)]);
    // Ten editors at once, all of whom have seen version 2.
    let mut editors = tokio::task::JoinSet::new();
    for number in 10..20 {
        let mut admin = rows::admin(&router).await;
        let edit = request([(rule("one", &format!("c1 > {number}")), Some(2))]);
        editors.spawn(async move { admin.put_rules(edit).await });
    }
    let results = editors.join_all().await;
    assert_eq!(
        results.iter().filter(|result| result.is_ok()).count(),
        1,
        "{results:?}"
    );
    assert_eq!(stored(&router).await[0].2, 3);
}
