-- Which columns an update changed: for feeds that ask for it, since both copies of every updated row
-- have to be compared. The triggers of all others stay as they are.

alter table pgbraid.change_feed
    add column columns bool not null default false,
    add check (stream or not columns);

-- Such a feed's updates come in two more forms of a payload: `sets` (keys as in `list`) and
-- `textsets` (keys as in `text`). Behind the number there are segments, each of rows that had the
-- same columns changed: `<characters>:<column>` for each of these columns, `=`, the keys, `;`.

-- The columns of a feed, and all that the comparison of two rows depends on. What each statement
-- calls is plpgsql, which keeps its plans.
create function pgbraid.columns_now(parent regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (select string_agg(attname || ' ' || atttypid, ',' order by attnum)
        from pg_attribute where attrelid = parent and attnum > 0 and not attisdropped);
end $$;

-- How two values of a type are compared: a value that reads otherwise has changed, also where `=`
-- says that it has not (1.0 and 1.00).
create function pgbraid.compared_as(value text, of_type oid) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case
        when of_type in ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype,
            'uuid'::regtype, 'date'::regtype, 'time'::regtype, 'timestamp'::regtype,
            'timestamptz'::regtype, 'bytea'::regtype) then value
        when of_type in ('text'::regtype, 'varchar'::regtype) then value || ' collate "C"'
        when of_type = 'float4'::regtype then 'float4send(' || value || ')'
        when of_type = 'float8'::regtype then 'float8send(' || value || ')'
        else value || '::text'
    end
$$;

-- The query over a statement's old_rows and new_rows: operation, the columns as they stand in a
-- segment, and the keys. A row is found by its key: one whose key changed is a D and an I. A full
-- join is never a nested loop, whatever the size of the first statement was, which is planned for.
create function pgbraid.changed_sql(parent regclass, key_column text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with columns as (
        select attname as name, atttypid as type, (row_number() over (order by attnum) - 1) as n
        from pg_attribute where attrelid = parent and attnum > 0 and not attisdropped
            and attname <> key_column
    ), masks as (
        select n / 60 as m, string_agg(format('case when %s is distinct from %s then %s::int8 else 0 end',
            pgbraid.compared_as(format('o.%I', name), type),
            pgbraid.compared_as(format('n.%I', name), type), 1::int8 << (n % 60)::int), ' + ' order by n) as bits
        from columns group by 1
    )
    select format('select case when g.had and g.has then ''U'' when g.has then ''I'' else ''D'' end as op, '
        'concat(%2$s) as names, g.keys from (select o.%1$I is not null as had, n.%1$I is not null as has%3$s, '
        'array_agg(coalesce(n.%1$I, o.%1$I)) as keys '
        'from old_rows o full join new_rows n on o.%1$I = n.%1$I group by 1, 2%4$s) g',
        key_column,
        coalesce((select string_agg(format('case when g.m%s & %s::int8 <> 0 then %L end',
            n / 60, 1::int8 << (n % 60)::int, length(name) || ':' || name), ', ' order by n) from columns), 'null'),
        (select string_agg(format(', case when o.%1$I is not null and n.%1$I is not null then %2$s end as m%3$s',
            key_column, bits, m), '' order by m) from masks),
        (select string_agg(format(', %s', m + 3), '' order by m) from masks))
$$;

-- The parts of a list of keys, each of about so many bytes.
create function pgbraid.key_lists(keys int8[], room int) returns setof text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    for i in 0 .. (cardinality(keys) - 1) / (room / 21) loop
        return next array_to_string(keys[i * (room / 21) + 1 : (i + 1) * (room / 21)], ',');
    end loop;
end $$;

create function pgbraid.key_lists(keys uuid[], room int) returns setof text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    for i in 0 .. (cardinality(keys) - 1) / (room / 37) loop
        return next array_to_string(keys[i * (room / 37) + 1 : (i + 1) * (room / 37)], ',');
    end loop;
end $$;

-- The last key of a part may go beyond its room, and has 1500 bytes at most.
create function pgbraid.key_lists(keys text[], room int) returns setof text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    return query select string_agg(p, '') from (
        select p, sum(octet_length(p)) over (rows unbounded preceding) / (room - 1600) as n
        from (select length(k) || ':' || k as p from unnest(keys) k) each_key
    ) numbered group by n;
end $$;

create function pgbraid.tell_packed(feed text, form text, packed text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if packed <> '' then
        perform pg_notify('pgbraid_change', 'U ' || form || ' ' || feed || ' '
            || current_setting('pgbraid.changes_told') || ' ' || packed);
    end if;
end $$;

-- Puts rows that had these columns changed behind what is packed already, and tells what becomes too
-- much for one payload. Returns what has to be told yet.
create function pgbraid.pack_changes(feed text, op text, names text, keys anyarray, packed text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    most constant int := 7700;
    form text := case when pg_typeof(keys) = 'text[]'::regtype then 'textsets' else 'sets' end;
    list text;
begin
    if form = 'textsets' and exists (select from unnest(keys) k where octet_length(k::text) > 1500) then
        perform pgbraid.reset_changes(feed, 'a key is longer than 1500 bytes');
        return packed;
    end if;
    -- Without its columns a change says that any may be another.
    if op <> 'U' or octet_length(names) > 4000 then
        perform pgbraid.tell_changes(feed, op, keys);
        return packed;
    end if;
    for list in select pgbraid.key_lists(keys, most - octet_length(names)) loop
        if octet_length(packed) + octet_length(names) + octet_length(list) + 2 > most then
            perform pgbraid.tell_packed(feed, form, packed);
            packed := '';
        end if;
        packed := packed || names || '=' || list || ';';
    end loop;
    return packed;
end $$;

create or replace function pgbraid.track_table(tracked text, on_table regclass, is_parent bool)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    of pgbraid.change_feed;
    streams bool;
    compares bool;
    call text := format('execute function pgbraid.%I()', 'changes_' || tracked);
begin
    select * into of from pgbraid.change_feed where feed = tracked;
    streams := coalesce(of.stream, false);
    compares := coalesce(of.columns, false);
    perform pgbraid.make_trigger('pgbraid_changes_insert', on_table, streams,
        'after insert on %s referencing new table as new_rows for each statement ' || call);
    -- Through the parent a row may get another key and go to another leaf, which row triggers tell
    -- as a delete and an insert; of a leaf they tell it as it is, and the old rows are not copied.
    perform pgbraid.make_trigger('pgbraid_changes_update', on_table, streams and not compares,
        'after update on %s referencing new table as new_rows '
        || case when is_parent then 'old table as old_rows ' else '' end
        || 'for each statement ' || call);
    perform pgbraid.make_trigger('pgbraid_changes_columns', on_table, compares,
        'after update on %s referencing new table as new_rows old table as old_rows '
        || 'for each statement ' || call);
    perform pgbraid.make_trigger('pgbraid_changes_delete', on_table, streams,
        'after delete on %s referencing old table as old_rows for each statement ' || call);
    perform pgbraid.make_trigger('pgbraid_changes_truncate', on_table, streams,
        'after truncate on %s for each statement ' || call);
end $$;

create or replace function pgbraid.track_feed(tracked text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    of pgbraid.change_feed;
    parent regclass;
    leaf regclass;
    key_type text;
    updates text;
begin
    select * into strict of from pgbraid.change_feed where feed = tracked;
    parent := format('%I.%I', of.table_schema, of.table_name)::regclass;
    select format_type(atttypid, -1) into strict key_type from pg_attribute
        where attrelid = parent and attname = of.key_column;
    if of.stream then
        updates := format($updates$
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
                    end if;$updates$,
            null, tracked, of.key_column, key_type, parent::oid);
        if of.columns then
            -- Somebody may have altered the table since: then the comparison is made up anew each time,
            -- until the next `pgbraid migrate`.
            updates := format($updates$
                    if tg_op = 'INSERT' then
                        select array_agg(k) into new_keys from
                            (select %3$I as k from new_rows limit 100001) n;
                        if new_keys is not null then
                            perform pgbraid.tell_changes(%2$L, 'I', new_keys);
                        end if;
                        return null;
                    end if;
                    select count(*) into told from (select from new_rows limit 100001) n;
                    if told = 0 or pgbraid.count_changes(%2$L, told) is null then
                        return null;
                    end if;
                    if pgbraid.columns_now(%5$s) = %6$L then
                        for change in %7$s loop
                            packed := pgbraid.pack_changes(%2$L, change.op, change.names, change.keys, packed);
                        end loop;
                    else
                        for change in execute pgbraid.changed_sql(%5$s, %3$L) loop
                            new_keys := change.keys;
                            packed := pgbraid.pack_changes(%2$L, change.op, change.names, new_keys, packed);
                        end loop;
                    end if;
                    perform pgbraid.tell_packed(%2$L, %8$L, packed);$updates$,
                null, tracked, of.key_column, key_type, parent::oid,
                pgbraid.columns_now(parent), pgbraid.changed_sql(parent, of.key_column),
                case key_type when 'text' then 'textsets' else 'sets' end);
        end if;
        execute format($make$
            create or replace function pgbraid.%1$I() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp %6$s as $body$
            declare
                new_keys %4$s[];
                old_keys %4$s[];
                told int;
                packed text := '';
                change record;
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
                else%5$s
                end if;
                return null;
            end $body$ $make$,
            'changes_' || tracked, tracked, of.key_column, key_type, updates,
            -- Where a session has them off, the only way to join is called so dear that it is compiled.
            case when of.columns then 'set enable_hashjoin = on set jit = off' else '' end);
        execute format('revoke all on function pgbraid.%I() from public', 'changes_' || tracked);
    end if;
    -- Who compares the rows sees both keys.
    perform pgbraid.make_trigger('pgbraid_changes_key', parent, of.stream and not of.columns, format(
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
