-- What pgbraid keeps on an instance. The schema `pgbraid` and pgbraid.migration exist already.

-- Which cluster this instance belongs to, under which name, and which instance is the home:
-- the one where tables are claimed and rules are edited. One row.
create table pgbraid.cluster (
    only_row    bool primary key default true check (only_row),
    cluster_id  uuid not null,
    instance    text not null check (instance ~ '^db[0-9]{1,3}$'),
    home        text not null check (home ~ '^db[0-9]{1,3}$'),
    joined_at   timestamptz not null default now()
);

-- The feeds whose parent table exists here. The number of tables never changes.
create table pgbraid.feed (
    name         text primary key,
    table_schema text not null,
    table_name   text not null,
    tables       int not null check (tables between 1 and 4096)
);

-- Which tables this instance owns *now*: the truth that routers follow.
create table pgbraid.ownership (
    feed        text not null,
    tbl         int not null check (tbl >= 0),
    epoch       bigint not null check (epoch > 0),
    state       text not null check (state in ('owned', 'moving_out', 'moving_in', 'moved')),
    moved_to    text,
    changed_at  timestamptz not null default now(),
    primary key (feed, tbl)
);

-- In the home only: who may make a table, first come first served. A claim stays: it is what
-- keeps two routers with different files from making the same table twice.
create table pgbraid.claim (
    feed        text not null,
    tbl         int not null,
    instance    text not null,
    claimed_at  timestamptz not null default now(),
    primary key (feed, tbl)
);

-- Rules. The home's are the truth, the others' a copy of the version in rule_set.
create table pgbraid.rule (
    name        text primary key,
    feed        text not null,
    expression  text not null,
    channel     text not null,
    reason      text not null,
    mode        text not null check (mode in ('edge', 'level')),
    version     bigint not null,
    updated_at  timestamptz not null default now()
);
create table pgbraid.rule_set (
    only_row    bool primary key default true check (only_row),
    version     bigint not null
);
insert into pgbraid.rule_set (version) values (0);

-- The outbox: alerts, written by the rules' triggers in the transaction of the row.
-- `xid` is the writing transaction: readers find what is new by snapshot, since ids are given
-- before the commit and an "id greater than the last" would lose rows.
create table pgbraid.alert (
    seq          bigint generated always as identity,
    xid          xid8 not null default pg_current_xact_id(),
    feed         text not null,
    rule         text not null,
    rule_version bigint not null,
    channel      text not null,
    reason       text not null,
    key          text not null,
    "row"        json not null,
    raised_at    timestamptz not null default clock_timestamp(),
    primary key (seq)
);
create index alert_xid on pgbraid.alert (xid);
