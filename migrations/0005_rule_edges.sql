-- When a rule's alerts end, and how often they may come.

alter table pgbraid.rule
    add column resolve     bool not null default false,
    add column cooldown_ms bigint not null default 0 check (cooldown_ms >= 0),
    add constraint rule_resolve_is_edge check (mode = 'edge' or not resolve);

-- True: the row has stopped to match.
alter table pgbraid.alert add column resolved bool not null default false;

-- When a key was last told by a rule with a cool-down. Written by the rules' triggers, in the
-- transaction of the row, and only when such a rule fires or is kept from it. `muted`: the row
-- matches, and that was not told because of the cool-down.
-- No index beside the primary key: updates stay within the page. What is past is removed by routers.
create table pgbraid.cooldown (
    rule        text not null,
    key         text not null,
    tbl         text not null,
    told_at     timestamptz not null,
    cooldown_ms bigint not null,
    muted       bool not null default false,
    constraint cooldown_pkey primary key (rule, key)
) with (fillfactor = 70);
