//! How fast alerts reach one subscriber and the members of a group, beside a queue as one would write
//! it with `for update skip locked`; and whether a backlog makes claims slower.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use pgbraid_proto::v1::{
    self, alerts_client::AlertsClient, consume_request::Request as Asked,
    consume_response::Response as Told, settle_result::Outcome as Settled, settlement::How,
    subscribe_request::Start, subscribe_response::Event,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Plan,
    fixture::{Fleet, Router},
    in_turns,
    outcome::{Outcome, Target},
    say,
};

/// Alerts in the outbox, and messages in the queue.
const BACKLOG: i64 = 1_000_000;
const MEMBERS: usize = 4;
const IN_FLIGHT: u32 = 1000;
/// Messages that a worker of the queue takes at once.
const QUEUE_BATCH: i64 = 100;

const RAISE: &str = "insert into pgbraid.alert \
     (feed, rule, rule_version, channel, reason, key, \"row\") \
     select 'feed', 'bench', 1, 'bench', 'a benchmark', i::text, \
     json_build_object('id', i, 'status', 'late', 'amount', i % 1000, 'note', repeat('x', 100)) \
     from generate_series(1, $1::int8) i";

/// The queue of the same messages, with a visibility timeout: read, then delete.
const QUEUE: &str = "drop table if exists public.bench_queue; \
     create table public.bench_queue (id int8 primary key, read_ct int not null default 0, \
     vt timestamptz not null default now(), message json not null); \
     create index on public.bench_queue (vt); \
     insert into public.bench_queue (id, message) select seq, \"row\" from pgbraid.alert; \
     analyze public.bench_queue";
const TAKE: &str = "with next as (select id from public.bench_queue \
     where vt <= clock_timestamp() order by id limit $1 for update skip locked) \
     update public.bench_queue q set vt = clock_timestamp() + interval '30 s', \
     read_ct = read_ct + 1 from next where q.id = next.id returning q.id, q.message::text";
const DONE: &str = "delete from public.bench_queue where id = any ($1)";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Subscriber,
    Group,
    Queue,
}

pub async fn run(plan: &Plan) -> Result<Outcome> {
    let fleet = Fleet::start(1, "").await?;
    let router = fleet.serve(&[]).await?;
    say(format_args!("raising {BACKLOG} alerts"));
    let client = fleet.cluster().connect(0, false, "pgbraid").await?;
    client.execute(RAISE, &[&BACKLOG]).await?;
    client.batch_execute("analyze pgbraid.alert").await?;
    let mut outcome = Outcome::new("groups", fleet.setting(plan));
    for round in 1..=plan.rounds {
        for case in in_turns(&[Case::Subscriber, Case::Group, Case::Queue], round) {
            match case {
                Case::Subscriber => {
                    let all = v1::Filter::default();
                    let rate = subscriber(&router, plan.time, all, BACKLOG as u64).await?;
                    say(format_args!(
                        "groups, round {round}, a subscriber: {rate:.0}/s"
                    ));
                    outcome.add("per_second.subscriber", "one subscriber, alerts/s", 0, rate);
                }
                Case::Group => {
                    let name = format!("round-{round}");
                    let (first, all, last) = group(&router, &name, plan.time).await?;
                    say(format_args!(
                        "groups, round {round}, {MEMBERS} members: {all:.0}/s, {first:.0} at first, {last:.0} at last"
                    ));
                    outcome.add("per_second.group", "4 members, alerts acked/s", 0, all);
                    outcome.add(
                        "ratio.last_quarter",
                        "4 members: last quarter to first",
                        2,
                        last / first,
                    );
                    let dead = dead_tuples(&fleet, "group\\_%").await?;
                    outcome.add(
                        "dead.group",
                        "dead rows for 1000 acked",
                        1,
                        dead / all / plan.time.as_secs_f64() * 1000.0,
                    );
                }
                Case::Queue => {
                    client.batch_execute(QUEUE).await?;
                    let rate = queue(&fleet, plan.time).await?;
                    say(format_args!(
                        "groups, round {round}, the queue: {rate:.0}/s"
                    ));
                    outcome.add(
                        "per_second.queue",
                        "4 workers, skip locked, messages/s",
                        0,
                        rate,
                    );
                    let dead = dead_tuples(&fleet, "bench\\_queue").await?;
                    outcome.add(
                        "dead.queue",
                        "skip locked: dead rows for 1000",
                        1,
                        dead / rate / plan.time.as_secs_f64() * 1000.0,
                    );
                }
            }
        }
    }
    outcome.ratio(
        "ratio.group_vs_queue",
        "4 members to the skip locked queue",
        "per_second.group",
        "per_second.queue",
    )?;
    outcome.target("ratio.group_vs_queue", Target::AtLeast(1.0));
    outcome.target("ratio.last_quarter", Target::AtLeast(0.9));
    outcome
        .note("A backlog of 1,000,000. Members: gRPC, 1000 in flight each, every delivery acked");
    outcome.note("and the ack confirmed. Queue: bare connections, 100 at once, read then deleted.");
    Ok(outcome)
}

pub async fn alerts(router: &Router) -> Result<AlertsClient<tonic::transport::Channel>> {
    let client = AlertsClient::connect(router.grpc.clone()).await?;
    Ok(client.max_decoding_message_size(usize::MAX))
}

/// Alerts that a subscriber gets in a second, from the oldest on; of so many at most.
pub async fn subscriber(
    router: &Router,
    time: Duration,
    filter: v1::Filter,
    backlog: u64,
) -> Result<f64> {
    let request = v1::SubscribeRequest {
        filter: Some(filter),
        start: Some(Start::Earliest(v1::Earliest {})),
        ..Default::default()
    };
    let mut events = alerts(router).await?.subscribe(request).await?.into_inner();
    let (start, mut count) = (Instant::now(), 0_u64);
    while start.elapsed() < time && count < backlog {
        let event = events.message().await?.context("the stream has ended")?;
        count += u64::from(matches!(event.event, Some(Event::Alert(_))));
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Alerts acked in a second: in the first quarter, in all, in the last quarter.
async fn group(router: &Router, name: &str, time: Duration) -> Result<(f64, f64, f64)> {
    let put = v1::PutGroupRequest {
        group: Some(v1::Group {
            name: name.into(),
            ..Default::default()
        }),
        expected_version: Some(0),
        start: Some(v1::Position {
            at: Some(v1::position::At::Earliest(v1::Earliest {})),
        }),
    };
    let mut client = alerts(router).await?;
    client.put_group(put).await?;
    let acked = Arc::new(AtomicU64::new(0));
    let mut members = JoinSet::new();
    for _ in 0..MEMBERS {
        members.spawn(member(
            alerts(router).await?,
            name.to_owned(),
            acked.clone(),
        ));
    }
    let mut quarters = Vec::new();
    for _ in 0..4 {
        let (start, before) = (Instant::now(), acked.load(Ordering::Relaxed));
        tokio::select! {
            () = tokio::time::sleep(time / 4) => {}
            ended = members.join_next() => match ended {
                Some(Ok(Err(error))) => return Err(error.context("a member")),
                other => bail!("a member has ended: {other:?}"),
            },
        }
        let count = acked.load(Ordering::Relaxed) - before;
        quarters.push(count as f64 / start.elapsed().as_secs_f64());
    }
    if acked.load(Ordering::Relaxed) >= BACKLOG as u64 {
        bail!("the backlog was empty before the time was over: take fewer seconds");
    }
    members.shutdown().await;
    let all = quarters.iter().sum::<f64>() / 4.0;
    Ok((quarters[0], all, quarters[3]))
}

/// Takes and acks until it is aborted.
async fn member(
    mut client: AlertsClient<tonic::transport::Channel>,
    group: String,
    acked: Arc<AtomicU64>,
) -> Result<()> {
    let (send, requests) = mpsc::channel(64);
    let ask = |request| v1::ConsumeRequest {
        request: Some(request),
    };
    let join = v1::Join {
        group,
        member: "bench".into(),
        max_in_flight: IN_FLIGHT,
    };
    send.send(ask(Asked::Join(join))).await?;
    let responses = client.consume(ReceiverStream::new(requests)).await?;
    let mut responses = responses.into_inner();
    while let Some(response) = responses.message().await? {
        match response.response {
            Some(Told::Deliveries(some)) => {
                let ids = some.deliveries.into_iter().map(|one| one.id).collect();
                let settlement = v1::Settlement {
                    ids,
                    how: Some(How::Ack(v1::Ack {})),
                };
                send.send(ask(Asked::Settlement(settlement))).await?;
            }
            Some(Told::Settled(some)) => {
                let settled = some.results.iter();
                let done = settled
                    .filter(|one| one.outcome() == Settled::Settled)
                    .count();
                acked.fetch_add(done as u64, Ordering::Relaxed);
            }
            _ => {}
        }
    }
    bail!("the stream has ended")
}

/// Messages read and deleted in a second, by as many workers as there are members.
async fn queue(fleet: &Fleet, time: Duration) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers: JoinSet<Result<u64>> = JoinSet::new();
    for _ in 0..MEMBERS {
        let client = fleet.cluster().connect(0, false, "pgbraid").await?;
        let stop = stop.clone();
        workers.spawn(async move {
            let (take, done) = (client.prepare(TAKE).await?, client.prepare(DONE).await?);
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let rows = client.query(&take, &[&QUEUE_BATCH]).await?;
                let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
                if ids.is_empty() {
                    bail!("the queue was empty before the time was over: take fewer seconds");
                }
                count += client.execute(&done, &[&ids]).await?;
            }
            Ok(count)
        });
    }
    let start = Instant::now();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = 0;
    while let Some(worker) = workers.join_next().await {
        all += worker??;
    }
    Ok(all as f64 / start.elapsed().as_secs_f64())
}

/// Row versions that are dead, or were until a vacuum: updates and deletes of tables like this.
async fn dead_tuples(fleet: &Fleet, tables: &str) -> Result<f64> {
    let client = fleet.cluster().connect(0, false, "pgbraid").await?;
    // Counters are sent when a session has been idle for a moment.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let row = client
        .query_one(
            "select coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 from pg_stat_user_tables \
             where relname like $1 and schemaname in ('pgbraid', 'public')",
            &[&tables],
        )
        .await?;
    client
        .batch_execute("select pg_stat_clear_snapshot()")
        .await?;
    Ok(row.get(0))
}
