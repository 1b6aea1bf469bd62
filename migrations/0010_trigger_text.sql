-- The text of the rules' triggers: which making of it (TRIGGER_TEXT in crates/rules), and for which
-- version of the rules. Whoever makes a newer one replaces an older one; whoever does not know
-- these columns leaves `text_version` behind when he edits the rules.
alter table pgbraid.rule_set
    add column trigger_text int not null default 0,
    add column text_version bigint not null default -1;
