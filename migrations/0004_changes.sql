-- The change stream: which feeds tell of inserted, updated and deleted keys, and the triggers that
-- tell. Like rules: the home's settings are the truth, the others' a copy of the version in
-- pgbraid.rule_set.

create table pgbraid.change_feed (
    feed          text primary key,
    table_schema  text not null,
    table_name    text not null,
    key_column    text not null,
    -- On the channel pgbraid_change, many keys a notification.
    stream        bool not null,
    -- I<key>, U<key>, D<key> on <table>_chan, one notification a row.
    table_channel bool not null
);

-- A payload is `<op> <form> <feed> <n> <keys>`. Forms: `list` (keys with commas between), `text`
-- (each key as `<characters>:<key>`), and with the op R `reset` (the rest is the reason).
-- `n` counts a transaction's keys: PostgreSQL drops equal payloads of one transaction, and an
-- insert, a delete and an insert of one key must stay three.

-- Takes note of so many more keys in this transaction. Null if they are too many to be told one by
-- one: then the feed is told to be RESET instead.
create function pgbraid.count_changes(feed text, keys int) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    most constant int := 100000;
    told int := coalesce(nullif(current_setting('pgbraid.changes_told', true), ''), '0');
begin
    if told + keys > most then
        perform pgbraid.reset_changes(feed,
            'more than ' || most || ' keys changed in one transaction');
        perform set_config('pgbraid.changes_told', (most + 1)::text, true);
        return null;
    end if;
    perform set_config('pgbraid.changes_told', (told + keys)::text, true);
    return told;
end $$;

create function pgbraid.reset_changes(feed text, reason text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    select pg_notify('pgbraid_change', 'R reset ' || feed || ' 0 ' || reason)
$$;

-- 370 keys of at most 20 digits, 210 uuids: below the 7999 bytes of a payload.
create function pgbraid.tell_changes(feed text, op text, keys int8[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    told int := pgbraid.count_changes(feed, cardinality(keys));
begin
    for i in 0 .. case when told is null then -1 else (cardinality(keys) + 369) / 370 - 1 end loop
        perform pg_notify('pgbraid_change', op || ' list ' || feed || ' ' || (told + i) || ' '
            || array_to_string(keys[i * 370 + 1 : (i + 1) * 370], ','));
    end loop;
end $$;

create function pgbraid.tell_changes(feed text, op text, keys uuid[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    told int := pgbraid.count_changes(feed, cardinality(keys));
begin
    for i in 0 .. case when told is null then -1 else (cardinality(keys) + 209) / 210 - 1 end loop
        perform pg_notify('pgbraid_change', op || ' list ' || feed || ' ' || (told + i) || ' '
            || array_to_string(keys[i * 210 + 1 : (i + 1) * 210], ','));
    end loop;
end $$;

create function pgbraid.tell_changes(feed text, op text, keys text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    told int := pgbraid.count_changes(feed, cardinality(keys));
    part text;
    i int := 0;
begin
    if told is null or cardinality(keys) = 0 then
        return;
    end if;
    if exists (select from unnest(keys) k where octet_length(k) > 1500) then
        perform pgbraid.reset_changes(feed, 'a key is longer than 1500 bytes');
        return;
    end if;
    -- A part is at most 6000 bytes and the first key of it.
    for part in
        select string_agg(p, '') from (
            select p, sum(octet_length(p)) over (rows unbounded preceding) / 6000 as n
            from (select length(k) || ':' || k as p from unnest(keys) k) each_key
        ) numbered group by n
    loop
        perform pg_notify('pgbraid_change',
            op || ' text ' || feed || ' ' || (told + i) || ' ' || part);
        i := i + 1;
    end loop;
end $$;

-- An update that may have changed keys: what went, what stayed, what came.
create function pgbraid.tell_updates(feed text, old_keys anyarray, new_keys anyarray) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if old_keys = new_keys or cardinality(new_keys) > 100000 then
        perform pgbraid.tell_changes(feed, 'U', new_keys);
        return;
    end if;
    perform pgbraid.tell_changes(feed, 'D',
        array(select unnest(old_keys) except select unnest(new_keys)));
    perform pgbraid.tell_changes(feed, 'U',
        array(select unnest(old_keys) intersect select unnest(new_keys)));
    perform pgbraid.tell_changes(feed, 'I',
        array(select unnest(new_keys) except select unnest(old_keys)));
end $$;

create function pgbraid.make_trigger(name text, on_table regclass, wanted bool, definition text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    there bool := exists (select from pg_trigger where tgrelid = on_table and tgname = name);
begin
    if wanted and not there then
        execute format('create trigger %I %s', name, format(definition, on_table));
    elsif there and not wanted then
        execute format('drop trigger %I on %s', name, on_table);
    end if;
end $$;

-- Gives a table (a leaf, or the feed's parent) the triggers that its feed wants, and takes away
-- others. Statement triggers fire for the table that a statement names only, so that the parent and
-- every leaf have their own. Does nothing, and takes no lock, where all is as it should be.
create function pgbraid.track_table(tracked text, on_table regclass, is_parent bool)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    streams bool := coalesce((select stream from pgbraid.change_feed where feed = tracked), false);
    call text := format('execute function pgbraid.%I()', 'changes_' || tracked);
begin
    perform pgbraid.make_trigger('pgbraid_changes_insert', on_table, streams,
        'after insert on %s referencing new table as new_rows for each statement ' || call);
    -- Through the parent a row may get another key and go to another leaf, which row triggers tell
    -- as a delete and an insert; of a leaf they tell it as it is, and the old rows are not copied.
    perform pgbraid.make_trigger('pgbraid_changes_update', on_table, streams,
        'after update on %s referencing new table as new_rows '
        || case when is_parent then 'old table as old_rows ' else '' end
        || 'for each statement ' || call);
    perform pgbraid.make_trigger('pgbraid_changes_delete', on_table, streams,
        'after delete on %s referencing old table as old_rows for each statement ' || call);
    perform pgbraid.make_trigger('pgbraid_changes_truncate', on_table, streams,
        'after truncate on %s for each statement ' || call);
end $$;

-- The same for the parent and all its leaves, with the feed's own functions.
create function pgbraid.track_feed(tracked text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    of pgbraid.change_feed;
    parent regclass;
    leaf regclass;
    key_type text;
begin
    select * into strict of from pgbraid.change_feed where feed = tracked;
    parent := format('%I.%I', of.table_schema, of.table_name)::regclass;
    select format_type(atttypid, -1) into strict key_type from pg_attribute
        where attrelid = parent and attname = of.key_column;
    if of.stream then
        execute format($make$
            create or replace function pgbraid.%1$I() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp as $body$
            declare
                new_keys %4$s[];
                old_keys %4$s[];
            begin
                if tg_op = 'TRUNCATE' then
                    perform pgbraid.reset_changes(%2$L, 'it was truncated');
                elsif tg_level = 'ROW' then
                    perform pgbraid.tell_changes(%2$L, 'D', array[old.%3$I]);
                elsif tg_op = 'DELETE' then
                    -- One more than can be told is enough to know that there are too many.
                    select array_agg(k) into old_keys from
                        (select %3$I as k from old_rows limit 100001) o;
                    if old_keys is not null then
                        perform pgbraid.tell_changes(%2$L, 'D', old_keys);
                    end if;
                else
                    select array_agg(k) into new_keys from
                        (select %3$I as k from new_rows limit 100001) n;
                    if new_keys is null then
                        return null;
                    end if;
                    if tg_op = 'UPDATE' and tg_relid = %5$s then
                        select array_agg(k) into old_keys from
                            (select %3$I as k from old_rows limit 100001) o;
                        perform pgbraid.tell_updates(%2$L, old_keys, new_keys);
                    else
                        perform pgbraid.tell_changes(%2$L, left(tg_op, 1), new_keys);
                    end if;
                end if;
                return null;
            end $body$ $make$,
            'changes_' || tracked, tracked, of.key_column, key_type, parent::oid);
        execute format('revoke all on function pgbraid.%I() from public', 'changes_' || tracked);
    end if;
    perform pgbraid.make_trigger('pgbraid_changes_key', parent, of.stream, format(
        'after update on %%s for each row when (old.%1$s is distinct from new.%1$s) '
        'execute function pgbraid.%2$I()',
        replace(format('%I', of.key_column), '%', '%%'), 'changes_' || tracked));
    if of.table_channel then
        execute format($make$
            create or replace function pgbraid.%1$I() returns trigger
            language plpgsql set search_path = pg_catalog, pg_temp as $body$
            begin
                if tg_op = 'DELETE' then
                    perform pg_notify(%2$L, 'D' || old.%3$I);
                else
                    perform pg_notify(%2$L, left(tg_op, 1) || new.%3$I);
                end if;
                return null;
            end $body$ $make$,
            'table_channel_' || tracked, of.table_name || '_chan', of.key_column);
    end if;
    perform pgbraid.make_trigger('pgbraid_table_channel', parent, of.table_channel, format(
        'after insert or update or delete on %%s for each row execute function pgbraid.%I()',
        'table_channel_' || tracked));
    perform pgbraid.track_table(tracked, parent, true);
    for leaf in select inhrelid::regclass from pg_inherits where inhparent = parent order by 1 loop
        perform pgbraid.track_table(tracked, leaf, false);
    end loop;
    if not of.stream then
        execute format('drop function if exists pgbraid.%I()', 'changes_' || tracked);
    end if;
    if not of.table_channel then
        execute format('drop function if exists pgbraid.%I()', 'table_channel_' || tracked);
    end if;
end $$;
