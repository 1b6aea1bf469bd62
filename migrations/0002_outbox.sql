-- The outbox in parts, one of them current: rotated and dropped whole, never a row at a time.
--
-- Which part is current is a sequence, read as each alert is written: inserts depend on no clock
-- and on no part made in time. The order of the first two columns and the place of `part` behind
-- them matter: defaults are evaluated in that order, so that whoever has read a part's number has
-- had a transaction id before. When the next part is opened, an id is taken after the sequence has
-- moved on: every alert of the closed part is of a transaction below it (alert_part.closed_xid).

alter table pgbraid.alert rename to alert_unparted;
alter index pgbraid.alert_pkey rename to alert_unparted_pkey;
alter index pgbraid.alert_xid rename to alert_unparted_xid;

-- Without a cache: alerts of one key must be numbered in the order of their commits.
create sequence pgbraid.alert_seq cache 1;
select setval('pgbraid.alert_seq', s.last_value, s.is_called) from pgbraid.alert_seq_seq s;
create sequence pgbraid.alert_current_part as int cache 1;
select setval('pgbraid.alert_current_part', 1);

create table pgbraid.alert (
    xid          xid8 not null default pg_current_xact_id(),
    seq          bigint not null default nextval('pgbraid.alert_seq'),
    feed         text not null,
    rule         text not null,
    rule_version bigint not null,
    channel      text not null,
    reason       text not null,
    key          text not null,
    "row"        json not null,
    raised_at    timestamptz not null default clock_timestamp(),
    part         int not null default pg_sequence_last_value('pgbraid.alert_current_part'),
    primary key (seq, part)
) partition by list (part);
create index alert_xid on pgbraid.alert (xid);

create table pgbraid.alert_1 partition of pgbraid.alert for values in (1);
create table pgbraid.alert_2 partition of pgbraid.alert for values in (2);

-- The parts there are: sealed ones, closed ones that are still being written to by transactions
-- which began before, the current one, and a spare, attached long before it is needed.
create table pgbraid.alert_part (
    part       int primary key check (part > 0),
    -- The transactions (as in pg_locks) that wrote alerts while the part was attached: they may
    -- not know it, so that it is not opened before they have ended. Null: not looked yet.
    waits_for  text[],
    opened_at  timestamptz,
    closed_at  timestamptz,
    closed_xid xid8,
    -- Set once every transaction below closed_xid has ended.
    sealed_at  timestamptz,
    alerts     bigint,
    first_seq  bigint,
    last_seq   bigint,
    first_xid  xid8,
    last_xid   xid8,
    -- Why it is being dropped; what is in it is in outbox_dropped then.
    dropping   text
);
insert into pgbraid.alert_part (part, waits_for, opened_at) values (1, '{}', now()), (2, '{}', null);

insert into pgbraid.alert
    (xid, seq, feed, rule, rule_version, channel, reason, key, "row", raised_at)
select xid, seq, feed, rule, rule_version, channel, reason, key, "row", raised_at
from pgbraid.alert_unparted order by seq;
drop table pgbraid.alert_unparted;

-- What a consumer that is not connected all the time still needs: every alert of transactions
-- from needed_xid on, and every alert numbered from needed_seq on. Written conservatively.
create table pgbraid.outbox_hold (
    holder     text primary key,
    needed_xid xid8 not null,
    needed_seq bigint not null,
    updated_at timestamptz not null default now()
);

-- What was dropped, a row a part, for good: subscribers that come back later are told.
create table pgbraid.outbox_dropped (
    part         int primary key,
    alerts       bigint not null,
    first_seq    bigint not null,
    last_seq     bigint not null,
    first_xid    xid8 not null,
    last_xid     xid8 not null,
    -- All of them were raised before.
    raised_until timestamptz not null,
    dropped_at   timestamptz not null default now(),
    reason       text not null,
    -- Holders that still needed some of them.
    overrun      text[] not null default '{}'
);
create index outbox_dropped_xid on pgbraid.outbox_dropped (last_xid);

-- Snapshots from time to time: an alert raised after `at` is of a transaction that the snapshot
-- does not see. Where to start to look for a time.
create table pgbraid.outbox_tick (
    at       timestamptz primary key,
    snapshot pg_snapshot not null,
    last_seq bigint not null
);
create index outbox_tick_seq on pgbraid.outbox_tick (last_seq);
