-- Moves of tables between instances.

-- What a move keeps beside the truth of who owns a table. `mover_term` is the greatest term of a
-- mover that has touched the row: one with a lesser term is out of date and changes nothing.
alter table pgbraid.ownership
    -- The move that the table takes part in, on its source and on its target.
    add column move_id       uuid,
    add column mover_term    bigint not null default 0,
    -- Counts the fences of cut-overs: one that was undone can't be decided any more.
    add column cut           int not null default 0,
    -- On a target that had the table before: the epoch to go back to when the move is aborted.
    add column before_epoch  bigint,
    -- On a target: the timeline it was on when the copy began. A promoted standby may lack rows.
    add column move_timeline int;

-- In the home only: who carries out moves now. A mover that has died loses its lease.
create table pgbraid.mover (
    only_row    bool primary key default true check (only_row),
    term        bigint not null default 0,
    holder      text,
    lease_until timestamptz,
    paused      bool not null default false
);
insert into pgbraid.mover default values;

-- In the home only: the moves, under way and ended.
create table pgbraid.move (
    id              uuid primary key,
    feed            text not null,
    tbl             int not null,
    source          text not null,
    target          text not null,
    epoch           bigint not null,
    abort_requested bool not null default false,
    outcome         text check (outcome in ('done', 'aborted')),
    phase           text not null default 'claimed',
    -- What was copied, and how long copy and cut-over took.
    bytes           bigint not null default 0,
    copy_ms         bigint not null default 0,
    pause_us        bigint,
    claimed_at      timestamptz not null default now(),
    ended_at        timestamptz
);
-- The claim to move a table: one move of a table at a time.
create unique index move_under_way on pgbraid.move (feed, tbl) where outcome is null;

-- Says who owns a table that this instance does not own.
create function pgbraid.refuse(of_feed text, of_tbl int) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    o pgbraid.ownership;
begin
    select * into o from pgbraid.ownership where feed = of_feed and tbl = of_tbl;
    raise exception using
        errcode = 'PB001',
        message = case o.state
            when 'moving_out' then format('tbl%s of feed %s is moving to %s', o.tbl, o.feed, o.moved_to)
            when 'moved' then format('tbl%s of feed %s moved to %s', o.tbl, o.feed, o.moved_to)
            else format('tbl%s of feed %s is not owned by this instance', of_tbl, of_feed)
        end,
        detail = format('feed=%s table=%s state=%s moved_to=%s epoch=%s', of_feed, of_tbl,
            o.state, coalesce(o.moved_to, ''), o.epoch + 1),
        hint = 'Write to the instance that owns the table, or through a router of pgbraid.';
end
$$;
revoke all on function pgbraid.refuse(text, int) from public;

-- The fence: ordinary triggers on a table that this instance does not own. The apply worker of
-- logical replication passes them, nobody else does.
create function pgbraid.fence() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform pgbraid.refuse(tg_argv[0], tg_argv[1]::int);
    return null;
end
$$;
revoke all on function pgbraid.fence() from public;
