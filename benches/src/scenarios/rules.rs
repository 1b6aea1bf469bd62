//! What rules that never match cost.

use anyhow::{Context, Result, bail};
use pgbraid_devcluster::DevCluster;
use pgbraid_proto::v1;

use super::{
    Plan,
    fixture::{Fleet, Router},
    in_turns,
    load::Load,
    outcome::{Outcome, Target},
    say,
};

mod sets;

/// A table, and sets of rules for it by name, each measured beside none.
struct Case {
    schema: &'static str,
    sets: Vec<(&'static str, Vec<v1::RulePut>)>,
    /// A row that many of the rules match.
    row: &'static str,
}

fn cases() -> [Case; 2] {
    [
        Case {
            schema: include_str!("../../workloads/pgbraid_schema.sql"),
            sets: vec![
                ("0", Vec::new()),
                ("1", sets::alike(1)),
                ("10", sets::alike(10)),
                ("100", sets::alike(100)),
            ],
            row: "(id, c1, c2) values (-1, 1000000, 1000000)",
        },
        Case {
            schema: include_str!("../../workloads/orders_schema.sql"),
            sets: vec![("mixed_0", Vec::new()), ("mixed", sets::mixed())],
            row: "(id, c1, c2, quantity, price, total, status, country, customer, paid, weight, \
                  note, created) values (-1, 1000000, 1000000, 1000, 120, 1000000, 'lost', 'US', \
                  1000, false, 1000, 'urgent0', '2000-01-01')",
        },
    ]
}

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let mut outcome = None;
    for case in cases() {
        let fleet = Fleet::with_schema(case.schema).await?;
        let outcome = outcome.get_or_insert_with(|| Outcome::new("rules", fleet.setting(plan)));
        measure(plan, &fleet, case, outcome).await?;
    }
    let mut outcome = outcome.context("there are cases")?;
    outcome.target("ratio.100", Target::AtLeast(0.85));
    outcome.target("ratio.mixed", Target::AtLeast(0.85));
    outcome.note("No rule matches any row; columnar requests of 1000 rows, random keys.");
    outcome.note("0 to 100 rules compare two columns, both written, with constants; the 100");
    outcome.note("mixed ones are of 13 columns and many forms; two columns are written.");
    Ok(outcome)
}

async fn measure(plan: &Plan, fleet: &Fleet, case: Case, outcome: &mut Outcome) -> Result<()> {
    let router = fleet.serve(&[]).await?;
    fleet.store(&router, plan.stored).await?;
    let load = Load::random(plan.stored);
    for round in 1..=plan.rounds {
        for (name, rules) in in_turns(&case.sets, round) {
            set_rules(&router, &rules).await?;
            in_force(fleet.cluster(), &rules, case.row).await?;
            let (rows, cpu_ns) = router.measure(&load, plan.time).await?;
            say(format_args!(
                "rules, round {round}, {name}: {rows:.0} rows/s"
            ));
            let label = format!("{} rules: rows/s", title(name));
            outcome.add(key(name), &label, 0, rows);
            let label = format!("{} rules: router CPU, ns/row", title(name));
            outcome.add(format!("cpu_ns_per_row.{name}"), &label, 0, cpu_ns);
        }
    }
    let mut sets = case.sets.iter();
    let (none, _) = sets.next().context("the first set has no rules")?;
    for (name, _) in sets {
        let label = format!("{} rules: throughput to that of none", title(name));
        outcome.ratio(&format!("ratio.{name}"), &label, &key(name), &key(none))?;
    }
    Ok(())
}

fn key(set: &str) -> String {
    format!("rows_per_second.{set}")
}

fn title(set: &str) -> &str {
    match set {
        "mixed_0" => "0 (orders)",
        "mixed" => "100 mixed",
        count => count,
    }
}

/// Leaves these rules, and no others.
async fn set_rules(router: &Router, rules: &[v1::RulePut]) -> Result<()> {
    let mut admin = router.admin();
    if rules.is_empty() {
        let listed = admin.list_rules(v1::ListRulesRequest::default()).await?;
        for rule in listed.into_inner().rules {
            let request = v1::RemoveRuleRequest {
                name: rule.name,
                expected_version: None,
            };
            admin.remove_rule(request).await.context("removing rules")?;
        }
    } else {
        let request = v1::PutRulesRequest {
            rules: rules.to_vec(),
            prune: true,
            dry_run: false,
        };
        let response = admin.put_rules(request).await.context("putting rules")?;
        let pending = response.into_inner().pending;
        if !pending.is_empty() {
            bail!("{} did not take the rules", pending.join(", "));
        }
    }
    let listed = admin.list_rules(v1::ListRulesRequest::default()).await?;
    let found = listed.into_inner().rules.len();
    if found != rules.len() {
        bail!("there are {found} rules, not {}", rules.len());
    }
    Ok(())
}

/// A row must raise an alert for each rule that it matches: rules that are not in force would cost
/// nothing. It is rolled back.
async fn in_force(cluster: &DevCluster, rules: &[v1::RulePut], row: &str) -> Result<()> {
    let mut client = cluster.connect(0, false, "pgbraid").await?;
    let transaction = client.transaction().await?;
    let insert = format!("insert into public.feed {row}");
    transaction.batch_execute(&insert).await?;
    let mut matching = 0_i64;
    let expressions = rules.iter().filter_map(|put| put.rule.as_ref());
    let expressions = expressions.map(|rule| rule.expression.as_str());
    for expression in expressions.filter(|text| !text.contains("old.")) {
        let query = format!("select ({expression}) is true from public.feed where id = -1");
        let matches: bool = transaction.query_one(&query, &[]).await?.get(0);
        matching += i64::from(matches);
    }
    let query = "select count(*) from pgbraid.alert where key = '-1'";
    let raised: i64 = transaction.query_one(query, &[]).await?.get(0);
    transaction.rollback().await?;
    if raised != matching || (matching == 0) != rules.is_empty() {
        bail!("a row that matches {matching} rules raised {raised} alerts");
    }
    Ok(())
}
