-- Numbers that are not given twice by a standby which was behind when it was promoted: it has not
-- heard of the last numbers its primary gave. Above the 40 bits that the sequence counts stands how
-- often the instance was promoted: its timeline, from 0. So numbers still go up, and nothing else
-- has to know of it.

alter table pgbraid.alert alter column seq set default nextval('pgbraid.alert_seq')
    + (((('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32))::int8 - 1) << 40);

create sequence pgbraid.group_claim_number;
select setval('pgbraid.group_claim_number', s.last_value, s.is_called) from pgbraid.group_claim_id_seq s;
alter table pgbraid.group_claim alter column id drop identity;
alter table pgbraid.group_claim alter column id set default nextval('pgbraid.group_claim_number')
    + (((('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32))::int8 - 1) << 40);

-- From which transaction id on a timeline is its own: cursors of the ones before are taken back to
-- there. Noted by the first router that meets it. Before this table nobody took note.
create table pgbraid.timeline (
    timeline  int primary key,
    first_xid xid8 not null
);
insert into pgbraid.timeline
values ((('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32))::int4, '3');

-- Counts of alerts are told by the sequence's part of their numbers.
create function pgbraid.counted(seq bigint) returns bigint
language sql immutable as $$ select seq & 1099511627775 $$;
