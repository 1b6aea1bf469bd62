//! What rules that never match cost.

use anyhow::{Context, Result, bail};
use pgbraid_devcluster::DevCluster;
use pgbraid_proto::v1;

use super::{
    Plan,
    fixture::{FEED, Fleet, Router},
    in_turns,
    load::Load,
    outcome::{Outcome, Target},
    say,
};

const COUNTS: [usize; 4] = [0, 1, 10, 100];

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let fleet = Fleet::start(1, "").await?;
    let router = fleet.serve(&[]).await?;
    fleet.store(&router, plan.stored).await?;
    let load = Load::random(plan.stored);
    let mut outcome = Outcome::new("rules", fleet.setting(plan));
    for round in 1..=plan.rounds {
        for count in in_turns(&COUNTS, round) {
            set_rules(&router, count).await?;
            in_force(fleet.cluster(), count).await?;
            let (rows, cpu_ns) = router.measure(&load, plan.time).await?;
            say(format_args!(
                "rules, round {round}, {count}: {rows:.0} rows/s"
            ));
            let label = format!("{count} rules: rows/s");
            outcome.add(key(count), &label, 0, rows);
            let label = format!("{count} rules: router CPU, ns/row");
            outcome.add(format!("cpu_ns_per_row.{count}"), &label, 0, cpu_ns);
        }
    }
    for count in COUNTS.into_iter().filter(|count| *count > 0) {
        let label = format!("{count} rules: throughput to that of none");
        outcome.ratio(&format!("ratio.{count}"), &label, &key(count), &key(0))?;
    }
    outcome.target("ratio.100", Target::AtLeast(0.85));
    outcome.note("No rule matches any row; columnar requests of 1000 rows, random keys.");
    Ok(outcome)
}

fn key(count: usize) -> String {
    format!("rows_per_second.{count}")
}

fn rule(number: usize) -> v1::RulePut {
    let rule = v1::Rule {
        name: format!("never_{number}"),
        feed: FEED.into(),
        // The load's values are below 10000.
        expression: format!("c{} > {}", 1 + number % 2, 20_000 + number),
        channel: format!("channel_{}", number % 10),
        reason: "never".into(),
        ..Default::default()
    };
    v1::RulePut {
        rule: Some(rule),
        expected_version: None,
    }
}

/// Leaves so many rules, and no others.
async fn set_rules(router: &Router, count: usize) -> Result<()> {
    let mut admin = router.admin();
    if count > 0 {
        let request = v1::PutRulesRequest {
            rules: (0..count).map(rule).collect(),
            prune: true,
            dry_run: false,
        };
        let response = admin.put_rules(request).await.context("putting rules")?;
        let pending = response.into_inner().pending;
        if !pending.is_empty() {
            bail!("{} did not take the rules", pending.join(", "));
        }
    } else {
        let listed = admin.list_rules(v1::ListRulesRequest::default()).await?;
        for rule in listed.into_inner().rules {
            let request = v1::RemoveRuleRequest {
                name: rule.name,
                expected_version: None,
            };
            admin.remove_rule(request).await.context("removing rules")?;
        }
    }
    let listed = admin.list_rules(v1::ListRulesRequest::default()).await?;
    let found = listed.into_inner().rules.len();
    if found != count {
        bail!("there are {found} rules, not {count}");
    }
    Ok(())
}

/// A row that meets them all must raise as many alerts: rules that are not in force would cost
/// nothing. It is rolled back.
async fn in_force(cluster: &DevCluster, count: usize) -> Result<()> {
    let mut client = cluster.connect(0, false, "pgbraid").await?;
    let transaction = client.transaction().await?;
    transaction
        .batch_execute("insert into public.feed (id, c1, c2) values (-1, 1000000, 1000000)")
        .await?;
    let row = transaction
        .query_one("select count(*) from pgbraid.alert where key = '-1'", &[])
        .await?;
    transaction.rollback().await?;
    let raised: i64 = row.get(0);
    if usize::try_from(raised)? != count {
        bail!("{count} rules were put, and a row that meets them all raised {raised} alerts");
    }
    Ok(())
}
