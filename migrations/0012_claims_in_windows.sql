-- Claims inside a window read in the order of seq, whatever the planner knows of the outbox: on one
-- of half a million alerts that was never analyzed finding a hundred took 170 ms, and takes 0.2.

create or replace function pgbraid.group_claim(p_group text, p_member text, p_limit int, p_max_bytes bigint)
returns table (
    more bool, next_at timestamptz, claim bigint, deadline timestamptz, delivery int,
    seq bigint, xid text, feed text, rule text, rule_version bigint, channel text, reason text,
    key text, body text, raised_us bigint, resolved bool
) language plpgsql
set enable_bitmapscan = on set enable_seqscan = on set enable_sort = on as $$
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
    -- The first part that is not sealed. Of many, the ones from v_part to v_high are read, below the
    -- first number of all that follow.
    v_open int;
    v_high int;
    v_below bigint;
    v_all bool := false;
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
    select h.dropped + coalesce(sum(d.alerts::numeric
            * (pgbraid.counted(d.last_seq) - greatest(pgbraid.counted(h.last_seq), pgbraid.counted(d.first_seq) - 1))
            / (pgbraid.counted(d.last_seq) - pgbraid.counted(d.first_seq) + 1)) filter (where d.last_seq > h.last_seq), 0),
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
        select coalesce(min(p.part), 1) into v_open from pgbraid.alert_part p where p.sealed_at is null;
        v_high := null;
        if not v_all and v_open - v_part > 16 then
            select n.part, n.below into v_high, v_below from (
                select p.part, (select min(q.first_seq) from pgbraid.alert_part q
                    where q.part > p.part and q.part < v_open) as below
                from pgbraid.alert_part p where p.part >= v_part + 7 and p.part < v_open) n
            where n.below > h.after_seq + 1 order by n.part limit 1;
        end if;
        v_sql := 'with page as materialized (select a, a.seq, a.key, octet_length(a."row"::text) + 200 as size,'
            || ' (cardinality($6) = 0 or a.feed = any ($6)) and (cardinality($7) = 0 or a.channel = any ($7))'
            || ' and (cardinality($8) = 0 or a.rule = any ($8)) as wanted'
            || ' from pgbraid.alert a where a.part >= ' || coalesce(v_part, 1) || ' and (a.xid >= $1 or a.xid = any ($2))';
        if v_high is not null then
            v_sql := v_sql || ' and a.part <= ' || v_high || ' and a.seq < least(' || v_below
                || ', (select o.seq from pgbraid.alert o where o.part >= ' || v_open || ' order by o.seq limit 1))';
        end if;
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
            || ' select pg_current_snapshot(), greatest((select x.xid from pgbraid.alert x'
            || ' where x.part >= ' || v_open || ' order by x.xid desc limit 1),'
            || ' (select p.last_xid from pgbraid.alert_part p where p.last_xid is not null'
            || ' order by p.last_xid desc limit 1)),'
            || ' (select count(*) from taken), (select count(*) from taken where taken),'
            || ' (select max(seq) from taken where taken), (select max(bytes) from taken where taken),'
            || ' (select array_agg(a order by seq) from taken where taken and wanted and not parked),'
            || ' (select array_agg(a order by seq) from taken where taken and parked)';
        -- Inside a window the next ones stand side by side in the order of seq. Without statistics, as
        -- behind a crash, the planner would take all that follow and sort them. Elsewhere the new ones
        -- are few, and found by their transactions.
        perform set_config(how, case when h.upper is null then 'on' else 'off' end, true)
        from unnest('{enable_bitmapscan, enable_seqscan, enable_sort}'::text[]) how;
        execute v_sql
        using pg_snapshot_xmax(h.base), array(select pg_snapshot_xip(h.base)), h.upper, h.after_seq,
            v_scan, g.feeds, g.channels, g.rules, v_busy, v_left, c_waiting - v_waiting, v_bytes
        into v_snap, v_newest, v_scanned, v_consumed, v_cut, v_page_bytes, v_page, v_parked;
        v_snap := pgbraid.capped(v_snap, v_newest, h.base);
        v_all := v_high is not null and v_scanned = 0;
        continue when v_all;
        v_more := v_consumed < v_scanned or v_scanned = v_scan or v_high is not null;
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
        execute 'select coalesce(array_agg(a order by a.seq), ''{}'') from pgbraid.alert a'
            || ' where a.part in (' || pgbraid.parts_of(v_again) || ') and a.seq = any ($1)'
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
