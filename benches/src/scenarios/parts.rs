//! What claims of a group and reads of a subscriber cost on outboxes in 2, 20 and 200 parts.

use std::time::Instant;

use anyhow::{Context, Result};
use pgbraid_proto::v1;
use tokio_postgres::Client;

use super::{
    Plan,
    fixture::Fleet,
    groups::{alerts, subscriber},
    in_turns,
    outcome::{Outcome, Target},
    say,
};

/// Parts of the outbox of each instance.
const PARTS: [usize; 3] = [2, 20, 200];
/// Alerts of an instance, spread over its parts.
const BACKLOG: usize = 200_000;
/// Claims of a measurement, from the oldest alert on, and alerts of each.
const CLAIMS: usize = 40;
const CLAIM_ALERTS: i32 = 500;

const RAISE: &str = "insert into pgbraid.alert \
     (feed, rule, rule_version, channel, reason, key, \"row\") \
     select 'feed', 'bench', 1, 'bench', 'a benchmark', i::text, \
     json_build_object('id', i, 'note', repeat('x', 100)) from generate_series(1, $1::int8) i";

const CLAIM: &str = "select max(claim), array_agg(seq) \
     from pgbraid.group_claim($1, 'bench', $2, 100000000)";

pub async fn run(plan: &Plan) -> Result<Outcome> {
    // Routers must not rotate or drop anything meanwhile.
    let settings = "[alerts]\nkeep = \"30d\"\npart_time = \"1d\"\n";
    let fleet = Fleet::start(PARTS.len() as u16, settings).await?;
    for (instance, parts) in PARTS.into_iter().enumerate() {
        say(format_args!("raising {BACKLOG} alerts in {parts} parts"));
        fill(&fleet, instance, parts).await?;
    }
    let router = fleet.serve(&[]).await?;
    let mut outcome = Outcome::new("parts", fleet.setting(plan));
    for round in 1..=plan.rounds {
        let name = format!("round-{round}");
        let put = v1::PutGroupRequest {
            group: Some(v1::Group {
                name: name.clone(),
                ..Default::default()
            }),
            expected_version: Some(0),
            start: Some(v1::Position {
                at: Some(v1::position::At::Earliest(v1::Earliest {})),
            }),
        };
        alerts(&router).await?.put_group(put).await?;
        for instance in in_turns(&[0, 1, 2], round) {
            let parts = PARTS[instance];
            let client = fleet.cluster().connect(instance, false, "pgbraid").await?;
            let claim = claims(&client, &name).await?;
            let filter = v1::Filter {
                instances: vec![format!("db{instance}")],
                ..Default::default()
            };
            let rate = subscriber(&router, plan.time, filter, BACKLOG as u64).await?;
            say(format_args!(
                "parts, round {round}, {parts} parts: {claim:.1} ms a claim, {rate:.0} alerts/s read"
            ));
            outcome.add(
                format!("claim_ms.{parts}"),
                &format!("{parts} parts: claim and ack of 500, ms"),
                1,
                claim,
            );
            outcome.add(
                format!("read_per_second.{parts}"),
                &format!("{parts} parts: a subscriber, alerts/s"),
                0,
                rate,
            );
        }
    }
    let (few, many) = (PARTS[0], PARTS[2]);
    outcome.ratio(
        "ratio.claim",
        "claim: 200 parts to 2",
        &format!("claim_ms.{many}"),
        &format!("claim_ms.{few}"),
    )?;
    outcome.ratio(
        "ratio.read",
        "read: 200 parts to 2",
        &format!("read_per_second.{many}"),
        &format!("read_per_second.{few}"),
    )?;
    outcome.target("ratio.claim", Target::AtMost(1.5));
    outcome.target("ratio.read", Target::AtLeast(0.67));
    outcome
        .note("A backlog of 200,000 on each instance, read from its beginning. Claims: SQL alone.");
    Ok(outcome)
}

/// Milliseconds of a claim and its ack.
async fn claims(client: &Client, group: &str) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..CLAIMS {
        let row = client.query_one(CLAIM, &[&group, &CLAIM_ALERTS]).await?;
        let (claim, seqs): (Option<i64>, Vec<Option<i64>>) = (row.get(0), row.get(1));
        let claim = claim.context("the backlog is too small for so many rounds")?;
        client
            .query(
                "select pgbraid.group_settle($1, $2, $3, 'ack', 0, '')",
                &[&group, &claim, &seqs],
            )
            .await?;
    }
    Ok(start.elapsed().as_secs_f64() * 1000.0 / CLAIMS as f64)
}

/// Alerts in so many parts, each sealed but the last: as routers leave them.
async fn fill(fleet: &Fleet, instance: usize, parts: usize) -> Result<()> {
    let client = fleet.cluster().connect(instance, false, "pgbraid").await?;
    let each = (BACKLOG / parts) as i64;
    for part in 1..=parts {
        client.execute(RAISE, &[&each]).await?;
        if part == parts {
            break;
        }
        let next = part + 1;
        let make = match next {
            // It is there from the beginning.
            2 => String::new(),
            _ => format!(
                "create table pgbraid.alert_{next} (like pgbraid.alert including all); \
                 alter table pgbraid.alert attach partition pgbraid.alert_{next} \
                 for values in ({next}); \
                 insert into pgbraid.alert_part (part, waits_for) values ({next}, '{{}}');"
            ),
        };
        client
            .batch_execute(&format!(
                "{make} select setval('pgbraid.alert_current_part', {next}); \
                 update pgbraid.alert_part set closed_at = now(), \
                 closed_xid = pg_current_xact_id() where part = {part}; \
                 update pgbraid.alert_part set opened_at = now() where part = {next}; \
                 update pgbraid.alert_part p set sealed_at = now(), alerts = a.alerts, \
                 first_seq = a.first_seq, last_seq = a.last_seq, first_xid = a.xid, \
                 last_xid = a.xid from (select count(*) as alerts, min(seq) as first_seq, \
                 max(seq) as last_seq, min(xid::text)::xid8 as xid from pgbraid.alert_{part}) a \
                 where p.part = {part}"
            ))
            .await?;
    }
    client.batch_execute("analyze pgbraid.alert").await?;
    Ok(())
}
