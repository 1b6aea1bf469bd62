-- Consumer groups: competing consumers of the outbox. Each instance keeps the groups' state about
-- its own alerts, so that any router serves any member. A delivery is a row per *batch* claimed by a
-- member, not per alert: a claim is one insert, its acks a few updates of one row and a delete.

-- The groups. The home's are the truth, the others' a copy of the version in group_set.
create table pgbraid.consumer_group (
    name            text primary key,
    feeds           text[] not null,
    channels        text[] not null,
    rules           text[] not null,
    instances       text[] not null,
    visibility_ms   bigint not null check (visibility_ms > 0),
    max_deliveries  int not null check (max_deliveries > 0),
    order_by_key    bool not null,
    paused          bool not null,
    -- Where the group starts on an instance that has not heard of it yet.
    -- 'now US', 'earliest', 'time US' or 'token TEXT'.
    start           text not null,
    version         bigint not null,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now()
);
create table pgbraid.group_set (
    only_row    bool primary key default true check (only_row),
    version     bigint not null
);
insert into pgbraid.group_set (version) values (0);

-- How far a group has claimed: everything that `base` sees, and, of what `upper` sees beyond it,
-- everything with a seq up to `after_seq`. Updated by every claim, so there is room for it.
create table pgbraid.group_head (
    name        text primary key references pgbraid.consumer_group on delete cascade,
    base        pg_snapshot not null,
    upper       pg_snapshot,
    after_seq   bigint not null default 0,
    -- The highest seq ever passed, to tell the lag by.
    last_seq    bigint not null default 0,
    -- Alerts that retention dropped before they were delivered, about; and the last part looked at.
    dropped     bigint not null default 0,
    dropped_part int not null default 0
) with (fillfactor = 20);

-- Deliveries that are not settled wholly. Element i of each array is about alert seqs[i].
create table pgbraid.group_claim (
    id          bigint generated always as identity primary key,
    name        text not null references pgbraid.consumer_group on delete cascade,
    member      text not null,
    claimed_at  timestamptz not null,
    -- The earliest deadline of those that are open.
    expires_at  timestamptz not null,
    seqs        bigint[] not null,
    keys        text[],
    deliveries  int[] not null,
    deadlines   timestamptz[] not null,
    open        bool[] not null,
    -- Attempts before this one, by seq.
    history     jsonb
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index group_claim_name on pgbraid.group_claim (name, id);

-- Alerts to be delivered again at a time, or, without one, once no alert of their key is in flight.
create table pgbraid.group_retry (
    name        text not null references pgbraid.consumer_group on delete cascade,
    seq         bigint not null,
    key         text not null,
    due_at      timestamptz,
    deliveries  int not null,
    history     jsonb not null default '[]',
    primary key (name, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index group_retry_due on pgbraid.group_retry (name, due_at) where due_at is not null;
create index group_retry_key on pgbraid.group_retry (name, key, seq) where due_at is null;

-- Alerts that nobody acked, as they were: the outbox may drop its copy.
create table pgbraid.dead_letter (
    name         text not null references pgbraid.consumer_group on delete cascade,
    seq          bigint not null,
    alert        json not null,
    key          text not null,
    reason       text not null,
    deliveries   int not null,
    history      jsonb not null,
    died_at      timestamptz not null default clock_timestamp(),
    primary key (name, seq)
);

-- A snapshot as far as a crash cannot undo it; see `Snapshot::capped`.
create function pgbraid.capped(snap pg_snapshot, newest xid8, base pg_snapshot) returns pg_snapshot
language sql immutable as $$
    select case when cap.xid >= pg_snapshot_xmax(snap)::text::numeric then snap
        else (least(pg_snapshot_xmin(snap)::text::numeric, cap.xid) || ':' || cap.xid || ':' || coalesce(
            (select string_agg(x::text, ',' order by x) from pg_snapshot_xip(snap) x
             where x::text::numeric < cap.xid), ''))::pg_snapshot end
    from (select greatest(pg_snapshot_xmax(base)::text::numeric, coalesce(newest::text::numeric, 0) + 1) as xid) cap
$$;

create function pgbraid.attempt(
    delivery int, member text, delivered_at timestamptz, how text, reason text
) returns jsonb language sql stable as $$
    select jsonb_build_object('delivery', delivery, 'member', member,
        'delivered_us', (extract(epoch from delivered_at) * 1000000)::int8,
        'ended_us', (extract(epoch from clock_timestamp()) * 1000000)::int8,
        'how', how, 'reason', reason)
$$;

-- The last 20 of an array.
create function pgbraid.last_attempts(history jsonb) returns jsonb language sql immutable as $$
    select case when jsonb_array_length(history) <= 20 then history
        else (select jsonb_agg(e order by i) from jsonb_array_elements(history) with ordinality x(e, i)
              where i > jsonb_array_length(history) - 20) end
$$;

-- Ends some open deliveries of a claim (a row that the caller has locked) without an ack: they come
-- again when `p_due`, or are dead letters if they came too often or `p_kill` says so. What was
-- released nobody has tried: that delivery does not count.
create function pgbraid.group_put_back(
    c pgbraid.group_claim, p_seqs bigint[], p_how text, p_due timestamptz, p_reason text, p_kill bool
) returns void language plpgsql as $$
declare
    v_max int;
begin
    select max_deliveries into strict v_max from pgbraid.consumer_group where name = c.name;
    with ended as materialized (
        select u.seq, u.key, u.deliveries, p_kill or u.deliveries >= v_max and p_how <> 'released' as dead,
            pgbraid.last_attempts(coalesce(c.history -> u.seq::text, '[]') || pgbraid.attempt(
                u.deliveries, c.member, c.claimed_at, p_how, p_reason)) as history
        from unnest(c.seqs, c.keys, c.deliveries, c.open) u(seq, key, deliveries, open)
        where u.open and u.seq in (select unnest(p_seqs))
    ), letters as (
        insert into pgbraid.dead_letter (name, seq, alert, key, reason, deliveries, history)
        select c.name, e.seq, coalesce(row_to_json(a), json_build_object('seq', e.seq)),
            coalesce(a.key, e.key, ''),
            case when p_kill then p_how else 'delivered ' || e.deliveries || ' times, last: ' || p_how end
                || case when p_reason = '' then '' else ' (' || p_reason || ')' end,
            e.deliveries, e.history
        from ended e left join pgbraid.alert a on a.seq = e.seq where e.dead
        on conflict (name, seq) do nothing
    )
    insert into pgbraid.group_retry (name, seq, key, due_at, deliveries, history)
    select c.name, e.seq, coalesce(e.key, ''), p_due,
        e.deliveries - (p_how = 'released')::int, e.history
    from ended e where not e.dead
    on conflict (name, seq) do nothing;
    perform pgbraid.group_close(c, p_seqs);
end $$;

-- Marks deliveries of a claim (a row that the caller has locked) as ended, and it with the last.
create function pgbraid.group_close(c pgbraid.group_claim, p_seqs bigint[]) returns void
language plpgsql as $$
declare
    v_open bool[];
    v_expires timestamptz;
begin
    select array_agg(u.open and not (u.seq in (select unnest(p_seqs))) order by u.i)
    into v_open from unnest(c.seqs, c.open) with ordinality u(seq, open, i);
    if not true = any (v_open) then
        delete from pgbraid.group_claim where id = c.id;
        return;
    end if;
    select min(u.deadline) into v_expires from unnest(c.deadlines, v_open) u(deadline, open) where u.open;
    update pgbraid.group_claim set open = v_open, expires_at = v_expires where id = c.id;
end $$;

-- Claims up to `p_limit` alerts for a member: first those that come again, then new ones.
--
-- Returns a row for each, or one row without an alert; `more` says whether another call would find
-- more at once, and `next_at` when something that is in flight or delayed may come again.
create function pgbraid.group_claim(p_group text, p_member text, p_limit int, p_max_bytes bigint)
returns table (
    more bool, next_at timestamptz, claim bigint, deadline timestamptz, delivery int,
    seq bigint, xid text, feed text, rule text, rule_version bigint, channel text, reason text,
    key text, body text, raised_us bigint, resolved bool
) language plpgsql as $$
#variable_conflict use_column
declare
    -- Steps in one call, and alerts that may wait for their key.
    c_steps constant int := 10;
    c_waiting constant int := 5000;
    g pgbraid.consumer_group;
    h pgbraid.group_head;
    c pgbraid.group_claim;
    v_now timestamptz := clock_timestamp();
    v_deadline timestamptz;
    v_claim bigint;
    v_busy text[] := '{}';
    v_waiting int := 0;
    v_again bigint[] := '{}';
    v_again_deliveries int[] := '{}';
    v_again_history jsonb;
    v_again_rows pgbraid.alert[] := '{}';
    v_rows pgbraid.alert[] := '{}';
    v_parked pgbraid.alert[];
    v_page pgbraid.alert[];
    v_left int := p_limit;
    -- Rows looked at in a step: more with each that found too little, so that a filter which lets
    -- little pass costs few steps, and one which lets all pass reads nothing twice.
    v_scan int := greatest(p_limit, 20);
    v_bytes bigint := p_max_bytes;
    v_page_bytes bigint;
    v_scanned int;
    v_consumed int;
    v_cut bigint;
    v_snap pg_snapshot;
    v_newest xid8;
    v_sql text;
    v_more bool := false;
    v_next timestamptz;
    v_part int;
begin
    select * into g from pgbraid.consumer_group where name = p_group;
    if not found then
        raise exception 'there is no group "%"', p_group using errcode = 'PBG01';
    end if;
    if g.paused then
        return query select false, null::timestamptz, null::bigint, null::timestamptz, null::int,
            null::bigint, null::text, null::text, null::text, null::bigint, null::text, null::text,
            null::text, null::text, null::bigint, null::bool;
        return;
    end if;
    -- One claim of a group at a time: what follows is short.
    select * into strict h from pgbraid.group_head where name = p_group for update;

    -- What retention dropped ahead of the position is counted, once.
    select h.dropped + coalesce(sum(d.alerts * (d.last_seq - greatest(h.last_seq, d.first_seq - 1))
            / (d.last_seq - d.first_seq + 1)) filter (where d.last_seq > h.last_seq), 0),
        greatest(h.dropped_part, max(d.part))
    into h.dropped, h.dropped_part
    from pgbraid.outbox_dropped d where d.part > h.dropped_part;

    for c in select * from pgbraid.group_claim
        where name = p_group and expires_at <= v_now order by id limit 16 for update skip locked
    loop
        perform pgbraid.group_put_back(c,
            (select array_agg(u.seq) from unnest(c.seqs, c.deadlines) u(seq, deadline) where u.deadline <= v_now),
            'expired', v_now, '', false);
    end loop;

    if g.order_by_key then
        -- Keys of which an alert is in flight, in one snapshot: a nack takes it from one to the other.
        select coalesce(array_agg(k.key), '{}') into v_busy from (
            select u.key from pgbraid.group_claim o, unnest(o.keys, o.open) u(key, open)
            where o.name = p_group and u.open
            union
            select r.key from pgbraid.group_retry r where r.name = p_group and r.due_at is not null
        ) k;
    end if;

    with due as materialized (
        select r.seq, r.deliveries, r.history from pgbraid.group_retry r
        where r.name = p_group and r.due_at <= v_now
        order by r.due_at, r.seq limit v_left for update skip locked
    ), gone as (
        delete from pgbraid.group_retry r using due where r.name = p_group and r.seq = due.seq
    )
    select coalesce(array_agg(due.seq order by due.seq), '{}'),
        coalesce(array_agg(due.deliveries order by due.seq), '{}'),
        jsonb_object_agg(due.seq::text, due.history) filter (where due.history <> '[]')
    into v_again, v_again_deliveries, v_again_history from due;
    v_left := v_left - cardinality(v_again);

    if g.order_by_key then
        with first as materialized (
            select distinct on (r.key) r.seq, r.deliveries, r.history from pgbraid.group_retry r
            where r.name = p_group and r.due_at is null
                and not r.key in (select unnest(v_busy))
            order by r.key, r.seq
        ), chosen as materialized (
            select * from first order by first.seq limit v_left
        ), gone as (
            delete from pgbraid.group_retry r using chosen where r.name = p_group and r.seq = chosen.seq
            returning r.key
        ), keys as (select array_agg(gone.key) as keys from gone)
        select v_again || coalesce(array_agg(chosen.seq order by chosen.seq), '{}'),
            v_again_deliveries || coalesce(array_agg(chosen.deliveries order by chosen.seq), '{}'),
            coalesce(v_again_history, '{}')
                || coalesce(jsonb_object_agg(chosen.seq::text, chosen.history) filter (where chosen.history <> '[]'), '{}'),
            v_busy || coalesce((select keys.keys from keys), '{}')
        into v_again, v_again_deliveries, v_again_history, v_busy from chosen;
        v_left := p_limit - cardinality(v_again);
        select count(*) into v_waiting from (
            select 1 from pgbraid.group_retry r where r.name = p_group and r.due_at is null limit c_waiting) w;
    end if;

    for v_step in 1 .. c_steps loop
        exit when v_left <= 0 or v_bytes <= 0 or v_waiting >= c_waiting;
        -- Parts that are known to have nothing new are not even planned for.
        select min(p.part) into v_part from pgbraid.alert_part p
        where not coalesce(p.closed_xid <= pg_snapshot_xmin(h.base), false)
            and not coalesce(h.upper is not null and p.sealed_at is not null
                and coalesce(p.last_seq, 0) <= h.after_seq, false);
        v_sql := 'with page as materialized (select a, a.seq, a.key, octet_length(a."row"::text) + 200 as size,'
            || ' (cardinality($6) = 0 or a.feed = any ($6)) and (cardinality($7) = 0 or a.channel = any ($7))'
            || ' and (cardinality($8) = 0 or a.rule = any ($8)) as wanted'
            || ' from pgbraid.alert a where a.part >= ' || coalesce(v_part, 1) || ' and (a.xid >= $1 or a.xid = any ($2))';
        if h.upper is not null then
            v_sql := v_sql || ' and pg_visible_in_snapshot(a.xid, $3) and a.seq > $4';
        end if;
        v_sql := v_sql || ' order by a.seq limit $5), marked as (select page.*,';
        if g.order_by_key then
            v_sql := v_sql || ' wanted and (key in (select unnest($9)) or'
                || ' row_number() over (partition by key, wanted order by seq) > 1) as parked';
        else
            v_sql := v_sql || ' false as parked';
        end if;
        v_sql := v_sql || ' from page), counted as (select marked.*,'
            || ' count(*) filter (where wanted and not parked) over w as n,'
            || ' count(*) filter (where parked) over w as p,'
            || ' coalesce(sum(size) filter (where wanted and not parked) over w, 0) as bytes'
            || ' from marked window w as (order by seq)), taken as ('
            || ' select *, n <= $10 and p <= $11 and (bytes <= $12 or n <= 1) as taken from counted)'
            || ' select pg_current_snapshot(), (select x.xid from pgbraid.alert x'
            || ' where x.part >= ' || coalesce(v_part, 1) || ' order by x.xid desc limit 1),'
            || ' (select count(*) from taken), (select count(*) from taken where taken),'
            || ' (select max(seq) from taken where taken), (select max(bytes) from taken where taken),'
            || ' (select array_agg(a order by seq) from taken where taken and wanted and not parked),'
            || ' (select array_agg(a order by seq) from taken where taken and parked)';
        execute v_sql
        using pg_snapshot_xmax(h.base), array(select pg_snapshot_xip(h.base)), h.upper, h.after_seq,
            v_scan, g.feeds, g.channels, g.rules, v_busy, v_left, c_waiting - v_waiting, v_bytes
        into v_snap, v_newest, v_scanned, v_consumed, v_cut, v_page_bytes, v_page, v_parked;
        v_snap := pgbraid.capped(v_snap, v_newest, h.base);
        v_more := v_consumed < v_scanned or v_scanned = v_scan;
        if v_more then
            h.upper := coalesce(h.upper, v_snap);
            h.after_seq := coalesce(v_cut, h.after_seq);
        else
            -- The end of a window is as old as its beginning: there may be newer ones.
            v_more := h.upper is not null;
            h.base := coalesce(h.upper, v_snap);
            h.upper := null;
            h.after_seq := 0;
        end if;
        h.last_seq := greatest(h.last_seq, v_cut);
        v_left := v_left - cardinality(coalesce(v_page, '{}'));
        v_bytes := v_bytes - coalesce(v_page_bytes, 0);
        v_rows := v_rows || coalesce(v_page, '{}');
        if v_parked is not null then
            insert into pgbraid.group_retry (name, seq, key, due_at, deliveries)
            select p_group, u.seq, u.key, null, 0 from unnest(v_parked) u;
            v_waiting := v_waiting + cardinality(v_parked);
        end if;
        if g.order_by_key then
            v_busy := v_busy || (select coalesce(array_agg(u.key), '{}') from unnest(v_page) u);
        end if;
        exit when not v_more;
        v_scan := least(v_scan * 4, 20000);
    end loop;
    if cardinality(v_again) > 0 then
        select min(p.part) into v_part from pgbraid.alert_part p
        where p.last_seq is null or p.last_seq >= (select min(s) from unnest(v_again) s);
        execute 'select coalesce(array_agg(a order by a.seq), ''{}'') from pgbraid.alert a'
            || ' where a.part >= ' || coalesce(v_part, 1) || ' and a.seq = any ($1)'
        using v_again into v_again_rows;
        -- Those that are missing were dropped by retention meanwhile.
        h.dropped := h.dropped + cardinality(v_again) - cardinality(v_again_rows);
    end if;
    update pgbraid.group_head k
    set base = h.base, upper = h.upper, after_seq = h.after_seq, last_seq = h.last_seq,
        dropped = h.dropped, dropped_part = h.dropped_part
    where k.name = p_group
        and (k.base::text, coalesce(k.upper::text, ''), k.after_seq, k.dropped, k.dropped_part)
        is distinct from (h.base::text, coalesce(h.upper::text, ''), h.after_seq, h.dropped, h.dropped_part);
    v_rows := v_again_rows || v_rows;
    if cardinality(v_rows) > 0 then
        v_deadline := clock_timestamp() + g.visibility_ms * interval '1 ms';
        insert into pgbraid.group_claim as k
            (name, member, claimed_at, expires_at, seqs, keys, deliveries, deadlines, open, history)
        select p_group, p_member, v_now, v_deadline, array_agg(u.seq order by u.seq),
            case when g.order_by_key then array_agg(u.key order by u.seq) end,
            array_agg(coalesce(b.deliveries, 0) + 1 order by u.seq),
            array_agg(v_deadline), array_agg(true), v_again_history
        from unnest(v_rows) u
        left join unnest(v_again, v_again_deliveries) b(seq, deliveries) on b.seq = u.seq
        returning k.id into v_claim;
    end if;
    v_more := v_left <= 0 or v_more;

    -- What retention must keep for this group; behind the truth, never before it.
    insert into pgbraid.outbox_hold as o (holder, needed_xid, needed_seq, updated_at)
    select 'group ' || p_group, pg_snapshot_xmin(h.base), least(h.last_seq + 1, s.seq), clock_timestamp()
    from (select least(
        (select min(u.seq) from pgbraid.group_claim k, unnest(k.seqs, k.open) u(seq, open) where k.name = p_group and u.open),
        (select min(r.seq) from pgbraid.group_retry r where r.name = p_group)) as seq) s
    where not exists (select 1 from pgbraid.outbox_hold x where x.holder = 'group ' || p_group
        and x.updated_at > v_now - interval '5 s')
    on conflict (holder) do update set needed_xid = excluded.needed_xid, needed_seq = excluded.needed_seq,
        updated_at = excluded.updated_at;

    select least(
        (select min(k.expires_at) from pgbraid.group_claim k where k.name = p_group),
        (select min(r.due_at) from pgbraid.group_retry r where r.name = p_group and r.due_at is not null))
    into v_next;
    if v_claim is null then
        return query select v_more, v_next, null::bigint, null::timestamptz, null::int,
            null::bigint, null::text, null::text, null::text, null::bigint, null::text, null::text,
            null::text, null::text, null::bigint, null::bool;
        return;
    end if;
    return query select v_more, v_next, v_claim, v_deadline, coalesce(b.deliveries, 0) + 1,
        u.seq, u.xid::text, u.feed, u.rule, u.rule_version, u.channel, u.reason, u.key, u."row"::text,
        (extract(epoch from u.raised_at) * 1000000)::int8, u.resolved
    from unnest(v_rows) u
    left join unnest(v_again, v_again_deliveries) b(seq, deliveries) on b.seq = u.seq
    order by u.seq;
end $$;

-- Settles deliveries of one claim; returns those that were open in it.
create function pgbraid.group_settle(
    p_group text, p_claim bigint, p_seqs bigint[], p_how text, p_ms bigint, p_reason text
) returns setof bigint language plpgsql as $$
declare
    c pgbraid.group_claim;
    v_seqs bigint[];
    v_deadlines timestamptz[];
    v_expires timestamptz;
begin
    select * into c from pgbraid.group_claim where id = p_claim and name = p_group for update;
    if not found then
        return;
    end if;
    select array_agg(u.seq) into v_seqs from unnest(c.seqs, c.open) u(seq, open)
    where u.open and u.seq in (select unnest(p_seqs));
    if v_seqs is null then
        return;
    end if;
    case p_how
    when 'ack' then
        perform pgbraid.group_close(c, v_seqs);
    when 'nacked', 'released' then
        perform pgbraid.group_put_back(
            c, v_seqs, p_how, clock_timestamp() + p_ms * interval '1 ms', p_reason, false);
    when 'terminated' then
        perform pgbraid.group_put_back(c, v_seqs, p_how, clock_timestamp(), p_reason, true);
    when 'extend' then
        select array_agg(case when u.seq in (select unnest(v_seqs))
                then clock_timestamp() + p_ms * interval '1 ms' else u.deadline end order by u.i),
            min(case when u.seq in (select unnest(v_seqs))
                then clock_timestamp() + p_ms * interval '1 ms' else u.deadline end) filter (where u.open)
        into v_deadlines, v_expires
        from unnest(c.seqs, c.deadlines, c.open) with ordinality u(seq, deadline, open, i);
        update pgbraid.group_claim set deadlines = v_deadlines, expires_at = v_expires where id = c.id;
    end case;
    -- Others may have waited for these: their members are woken at once, wherever they are.
    if p_how <> 'extend' and p_ms = 0 and (p_how <> 'ack' or c.keys is not null and exists (
        select 1 from pgbraid.group_retry r where r.name = p_group and r.due_at is null
            and r.key in (select u.key from unnest(c.seqs, c.keys) u(seq, key) where u.seq in (select unnest(v_seqs)))))
    then
        perform pg_notify('pgbraid_alert', '');
    end if;
    return query select unnest(v_seqs);
end $$;
