//! The statements for PostgreSQL.

use std::time::Duration;

use super::{accept, kinds};
use crate::{
    Mode, Rule, StoredRule, Target, dry_run_sample_sql, dry_run_sql, probe_sql, trigger_ddl,
};

pub(crate) fn target() -> Target {
    Target {
        feed: "orders".to_owned(),
        schema: "public".to_owned(),
        table: "Orders".to_owned(),
        key_column: "id".to_owned(),
    }
}

fn stored(name: &str, expression: &str, mode: Mode, version: i64) -> StoredRule {
    StoredRule {
        rule: Rule {
            name: name.to_owned(),
            feed: "orders".to_owned(),
            expression: expression.to_owned(),
            channel: "sales".to_owned(),
            reason: "it's $pgbraid$ \\big".to_owned(),
            mode,
            resolve: false,
            cooldown: Duration::ZERO,
        },
        version,
    }
}

fn ddl(rules: &[StoredRule]) -> Vec<String> {
    trigger_ddl(&target(), rules, &kinds()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_triggers_of_three_rules() {
    let rules = [
        stored("moved", "old.status <> status", Mode::Edge, 3),
        stored("edge", "total > 1000", Mode::Edge, 1),
        stored("level", "c1 < 0", Mode::Level, 2),
    ];
    let ddl = ddl(&rules);
    assert_eq!(
        ddl[..4],
        [
            "set local search_path = pg_catalog, pg_temp",
            r#"drop trigger if exists pgbraid_rules_insert on "public"."Orders""#,
            r#"drop trigger if exists pgbraid_rules_update on "public"."Orders""#,
            r#"drop trigger if exists pgbraid_rules_delete on "public"."Orders""#,
        ]
    );
    assert_eq!(
        ddl[4],
        r#"create or replace function pgbraid."rules_orders"() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $pgbraid1$
declare
  told bool := false;
begin
  if tg_op = 'INSERT' then
    insert into pgbraid.alert (feed, rule, rule_version, channel, reason, key, "row")
    select 'orders', m.rule, m.version, m.channel, m.reason, new."id"::text, pg_catalog.row_to_json(new)
    from (values
      ('edge', 1::int8, 'sales', E'it''s $pgbraid$ \\big', ((new."total" > 1000) is true)),
      ('level', 2::int8, 'sales', E'it''s $pgbraid$ \\big', ((new."c1" < 0) is true))
    ) m (rule, version, channel, reason, hit)
    where m.hit;
    told := told or found;
  else
    insert into pgbraid.alert (feed, rule, rule_version, channel, reason, key, "row")
    select 'orders', m.rule, m.version, m.channel, m.reason, new."id"::text, pg_catalog.row_to_json(new)
    from (values
      ('edge', 1::int8, 'sales', E'it''s $pgbraid$ \\big', ((new."total" > 1000) is true and ((old."total" > 1000) is not true or old."id" is distinct from new."id"))),
      ('level', 2::int8, 'sales', E'it''s $pgbraid$ \\big', ((new."c1" < 0) is true)),
      ('moved', 3::int8, 'sales', E'it''s $pgbraid$ \\big', ((old."status" <> new."status") is true and old."id" is not distinct from new."id"))
    ) m (rule, version, channel, reason, hit)
    where m.hit;
    told := told or found;
  end if;
  if told then
    perform pg_catalog.pg_notify('pgbraid_alert', '');
  end if;
  return null;
end
$pgbraid1$"#
    );
    assert_eq!(
        ddl[5..],
        [
            r#"revoke all on function pgbraid."rules_orders"() from public"#,
            r#"create trigger pgbraid_rules_insert after insert on "public"."Orders" for each row
when (((new."total" > 1000) is true)
   or ((new."c1" < 0) is true))
execute function pgbraid."rules_orders"()"#,
            r#"create trigger pgbraid_rules_update after update on "public"."Orders" for each row
when (((new."total" > 1000) is true and (old."total" > 1000) is not true)
   or ((new."c1" < 0) is true)
   or ((old."status" <> new."status") is true)
   or old."id" is distinct from new."id")
execute function pgbraid."rules_orders"()"#,
        ]
    );
}

#[test]
fn no_rules_remove_everything() {
    assert_eq!(
        ddl(&[]).last().map(String::as_str),
        Some(r#"drop function if exists pgbraid."rules_orders"()"#)
    );
    assert_eq!(ddl(&[]).len(), 5);
}

#[test]
fn transition_rules_alone_make_no_insert_trigger() {
    let all = ddl(&[stored("moved", "old.c1 < c1", Mode::Level, 1)]).join(";\n");
    assert!(!all.contains("after insert"), "{all}");
    assert!(all.contains("after update"), "{all}");
}

#[test]
fn the_order_of_the_rules_does_not_matter() {
    let a = stored("a", "c1 > 1", Mode::Edge, 1);
    let b = stored("b", "c2 > 1", Mode::Edge, 1);
    assert_eq!(ddl(&[a.clone(), b.clone()]), ddl(&[b, a]));
}

#[test]
fn a_wrong_set_is_refused() {
    let refuse = |target: &Target, rules: &[StoredRule]| match trigger_ddl(target, rules, &kinds())
    {
        Err(e) => e.to_string(),
        Ok(ddl) => panic!("accepted: {ddl:?}"),
    };
    let good = stored("a", "c1 > 1", Mode::Edge, 1);
    let twice = refuse(&target(), &[good.clone(), good.clone()]);
    assert_eq!(twice, "rule \"a\": name is used by two rules; rename one");
    let gone = refuse(&target(), &[stored("b", "gone > 1", Mode::Edge, 1)]);
    assert!(gone.starts_with("rule \"b\": line 1, column 1: the feed has no column gone"));
    let other = Target {
        feed: "returns".to_owned(),
        ..target()
    };
    assert!(refuse(&other, std::slice::from_ref(&good)).contains("feed is \"orders\""));
    let long = Target {
        feed: "f".repeat(58),
        ..target()
    };
    assert!(refuse(&long, &[]).starts_with("feed is 58 bytes long; with rules at most 57"));
    let keyless = Target {
        key_column: "nokey".to_owned(),
        ..target()
    };
    assert!(refuse(&keyless, &[good]).starts_with("key_column \"nokey\" is not a column"));
}

#[test]
fn queries_about_a_rule() {
    let plain = accept("c1 > 1");
    assert_eq!(
        probe_sql(&target(), &plain),
        r#"select (new."c1" > 1) is true from (select * from only "public"."Orders" limit 0) new"#
    );
    assert_eq!(
        dry_run_sql(&target(), &plain).as_deref(),
        Some(
            r#"select pg_catalog.count(*)::int8 from "public"."Orders" r where (r."c1" > 1) is true"#
        )
    );
    assert_eq!(
        dry_run_sample_sql(&target(), &plain).as_deref(),
        Some(
            r#"select r."id"::text from "public"."Orders" r where (r."c1" > 1) is true limit $1::int8"#
        )
    );
    let transition = accept("old.c1 < c1");
    assert!(probe_sql(&target(), &transition).ends_with("limit 0) old"));
    assert_eq!(dry_run_sql(&target(), &transition), None);
    assert_eq!(dry_run_sample_sql(&target(), &transition), None);
}

/// What rules that neither resolve nor cool down cost does not grow with those that do.
#[test]
fn a_trigger_looks_at_no_more_than_its_rules_ask_for() {
    let plain = stored("plain", "c1 > 1", Mode::Edge, 1);
    let all = ddl(std::slice::from_ref(&plain)).join(";\n");
    for word in ["resolved", "cooldown", "'DELETE'", "after delete", "moment"] {
        assert!(!all.contains(word), "{word}: {all}");
    }
    let mut resolving = stored("resolving", "c2 > 2", Mode::Edge, 1);
    resolving.rule.resolve = true;
    let all = ddl(&[plain.clone(), resolving.clone()]).join(";\n");
    assert!(!all.contains("cooldown"), "{all}");
    let (_, triggers) = all.split_once("create trigger").unwrap();
    assert_eq!(
        triggers,
        r#" pgbraid_rules_insert after insert on "public"."Orders" for each row
when (((new."c1" > 1) is true)
   or ((new."c2" > 2) is true))
execute function pgbraid."rules_orders"();
create trigger pgbraid_rules_update after update on "public"."Orders" for each row
when (((new."c1" > 1) is true and (old."c1" > 1) is not true)
   or (((new."c2" > 2) is true) <> ((old."c2" > 2) is true))
   or old."id" is distinct from new."id")
execute function pgbraid."rules_orders"();
create trigger pgbraid_rules_delete after delete on "public"."Orders" for each row
when (((old."c2" > 2) is true))
execute function pgbraid."rules_orders"()"#
    );
    // One that cools down has its own statement, and the plain one keeps its own.
    resolving.rule.cooldown = Duration::from_millis(1500);
    let all = ddl(&[plain, resolving]).join(";\n");
    assert!(all.contains("1500::int8"), "{all}");
    let hit = r#"('plain', 1::int8, 'sales', E'it''s $pgbraid$ \\big', ((new."c1" > 1) is true))
    ) m (rule, version, channel, reason, hit)"#;
    assert!(all.contains(hit), "{all}");
}

fn update_when(rules: &[StoredRule]) -> String {
    let all = ddl(rules).join(";\n");
    let (_, update) = all.split_once("after update").unwrap();
    let (_, when) = update.split_once("when (").unwrap();
    when.split_once(")\nexecute").unwrap().0.to_owned()
}

/// What rules have in common is asked once, before them.
#[test]
fn rules_that_have_something_in_common_are_looked_at_together() {
    let of = |expressions: &[&str]| {
        let edge = |(n, text): (usize, &&str)| stored(&format!("r{n}"), text, Mode::Edge, 1);
        let rules: Vec<StoredRule> = expressions.iter().enumerate().map(edge).collect();
        update_when(&rules)
    };
    assert_eq!(
        of(&["c1 > 5", "c1 > 7.5", "c1 > -1"]),
        r#"((new."c1" > -1) is true and pg_catalog.width_bucket(new."c1", '{0,6,8}'::pg_catalog.int4[]) > coalesce(pg_catalog.width_bucket(old."c1", '{0,6,8}'::pg_catalog.int4[]), 0))
   or old."id" is distinct from new."id""#
    );
    assert_eq!(
        of(&["status = 'a'", "status in ('b\"\\')", "status = 'a'"]),
        r#"((new."status" = any (E'{"a","b\\"\\\\"}'::pg_catalog.text[])) is true and new."status" is distinct from old."status")
   or old."id" is distinct from new."id""#
    );
    assert_eq!(
        of(&["c1 % 2 = 0", "c1 % 3 = 0", "c1 % 5 = 0"]),
        r#"(new."c1" is distinct from old."c1"
    and ((((new."c1" % 2) = 0) is true and ((old."c1" % 2) = 0) is not true)
     or (((new."c1" % 3) = 0) is true and ((old."c1" % 3) = 0) is not true)
     or (((new."c1" % 5) = 0) is true and ((old."c1" % 5) = 0) is not true)))
   or old."id" is distinct from new."id""#
    );
    // No columns, no change.
    assert!(of(&["1 < 2", "1 < 3", "1 < 4"]).starts_with("((1 < 2) is true and"));
    // Equal numbers may differ in their digits, and texts of one sort in their letters.
    let digits = [
        "total::text = '1.0'",
        "total / 3 > 1",
        "length(total::text) > 3",
    ];
    assert!(!of(&digits).contains("new.\"total\" is distinct"));
    let letters = ["status like 'a%'", "status ~ 'b'", "lower(status) = 'c'"];
    assert!(
        of(&letters)
            .starts_with(r#"((new."status" collate pg_catalog."C") is distinct from old."status""#)
    );
}
