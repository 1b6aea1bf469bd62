//! What the trigger function does: first what ends, then what starts.
//!
//! All rules share a statement: PostgreSQL plans it once, where a statement for each rule would be
//! planned and kept a hundred times in each connection for each partition. Rules with a cool-down
//! have statements of their own, so that the others do not pay for the look at its state. That
//! look is exact without a lock: whoever writes the state of (rule, key) holds the lock on the
//! feed's row with that key until his transaction ends.

use super::{Conditions, OnUpdate, Stops, function_name};
use crate::quote;
use crate::rule::{Rule, StoredRule, Target};

/// The writes that call the function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Insert,
    Update,
    Delete,
}

pub(super) fn function_ddl(target: &Target, conditions: &[Conditions]) -> String {
    let cools = conditions.iter().any(|c| cools(c.stored));
    let stops = conditions.iter().any(|c| c.stops.is_some());
    let writer = Writer { target, conditions };
    let branch = |event| {
        let text = writer.branch(event);
        match text.is_empty() {
            true => "\n    return null;".to_owned(),
            false => text,
        }
    };
    // `old` must not even be named while the trigger runs for an insert, nor `new` for a delete.
    let mut branches = format!("\n  if tg_op = 'INSERT' then{}", branch(Event::Insert));
    if stops {
        branches.push_str("\n  elsif tg_op = 'DELETE' then");
        branches.push_str(&branch(Event::Delete));
    }
    branches.push_str("\n  else");
    branches.push_str(&branch(Event::Update));
    let notify = "perform pg_catalog.pg_notify('pgbraid_alert', '');";
    let moment = match cools {
        true => "\n  moment timestamptz := pg_catalog.clock_timestamp();",
        false => "",
    };
    let body = format!(
        "\ndeclare\n  told bool := false;{moment}\n\
         begin{branches}\n  end if;\n  if told then\n    {notify}\n  end if;\n  return null;\nend\n"
    );
    format!(
        "create or replace function {}() returns trigger\nlanguage plpgsql security definer\n\
         set search_path = pg_catalog, pg_temp\nas {}",
        function_name(&target.feed),
        quote::dollar(&body)
    )
}

fn cools(stored: &StoredRule) -> bool {
    !stored.rule.cooldown.is_zero()
}

/// A rule's part of each alert, as the first columns of a row of VALUES.
fn told(StoredRule { rule, version }: &StoredRule) -> String {
    let Rule {
        name,
        channel,
        reason,
        ..
    } = rule;
    format!(
        "{}, {version}::int8, {}, {}",
        quote::literal(name),
        quote::literal(channel),
        quote::literal(reason),
    )
}

struct Writer<'a> {
    target: &'a Target,
    conditions: &'a [Conditions<'a>],
}

impl Writer<'_> {
    fn branch(&self, event: Event) -> String {
        let parts = [
            self.stops(event),
            self.stops_told_only(event),
            self.starts(event),
            self.starts_but_rarely(event),
        ];
        let counted = |statement| format!("{statement}\n    told := told or found;");
        parts.into_iter().flatten().map(counted).collect()
    }

    /// `insert into pgbraid.alert .. select .. from m`, with the columns of `row`.
    fn alert(&self, row: &str, key: &str, more: Option<(&str, &str)>) -> String {
        let (column, value) = more.map_or_else(Default::default, |(column, value)| {
            (format!(", {column}"), format!(", {value}"))
        });
        format!(
            "\n    insert into pgbraid.alert \
             (feed, rule, rule_version, channel, reason, key, \"row\"{column})\n    \
             select {}, m.rule, m.version, m.channel, m.reason, {key}, \
             pg_catalog.row_to_json({row}){value}\n    from ",
            quote::literal(&self.target.feed),
        )
    }

    fn key(&self, row: &str) -> String {
        format!("{row}.{}::text", quote::ident(&self.target.key_column))
    }

    fn rows<'b>(&self, rows: impl Iterator<Item = (&'b StoredRule, String)>) -> Option<String> {
        let rows: Vec<String> = rows
            .map(|(stored, more)| format!("      ({}, {more})", told(stored)))
            .collect();
        (!rows.is_empty()).then(|| rows.join(",\n"))
    }

    /// Rules that fire whenever they start to match.
    fn starts(&self, event: Event) -> Option<String> {
        let hit = |c: &Conditions| match event {
            Event::Insert => c.insert.as_ref().map(|term| term.sql.clone()),
            Event::Update => Some(c.update.fires.clone()),
            Event::Delete => None,
        };
        let plain = self.conditions.iter().filter(|c| !cools(c.stored));
        let rows = self.rows(plain.filter_map(|c| Some((c.stored, hit(c)?))))?;
        Some(format!(
            "{}(values\n{rows}\n    ) m (rule, version, channel, reason, hit)\n    where m.hit;",
            self.alert("new", &self.key("new"), None)
        ))
    }

    /// Rules with a cool-down, which begins at the very time that the alert says it was raised at.
    /// A start within it is noted as muted; the first write after it that finds the row still
    /// matching tells it.
    fn starts_but_rarely(&self, event: Event) -> Option<String> {
        let more = |c: &Conditions| {
            let OnUpdate {
                matches, matched, ..
            } = &c.update;
            let lasting = matched.is_some();
            let ms = c.stored.rule.cooldown_ms();
            let (hit, was) = match event {
                Event::Insert => (c.insert.as_ref()?.sql.as_str(), "false"),
                Event::Update => (matches.as_str(), matched.as_deref().unwrap_or("false")),
                Event::Delete => return None,
            };
            Some(format!("{ms}::int8, {lasting}, {was}, {hit}"))
        };
        let cool = self.conditions.iter().filter(|c| cools(c.stored));
        let rows = self.rows(cool.filter_map(|c| Some((c.stored, more(c)?))))?;
        let key = self.key("new");
        Some(format!(
            "\n    with hit as (\n    select v.*, coalesce(s.muted, false) as muted,\n      \
             coalesce(s.told_at + v.cooldown_ms * interval '1 millisecond' <= moment, true) as over\n    \
             from (values\n{rows}\n    ) \
             v (rule, version, channel, reason, cooldown_ms, lasting, matched, hit)\n    \
             left join pgbraid.cooldown s on s.rule = v.rule and s.key = {key}\n    \
             where v.hit\n    ), mute as (\n    \
             update pgbraid.cooldown s set muted = true from hit h\n    \
             where s.rule = h.rule and s.key = {key}\n      \
             and h.lasting and not (h.matched or h.over or h.muted)\n    ), m as (\n    \
             select h.* from hit h where h.over and (h.muted or not h.matched)\n    \
             ), started as (\n    \
             insert into pgbraid.cooldown as s (rule, key, tbl, told_at, cooldown_ms)\n    \
             select m.rule, {key}, tg_table_name, moment, m.cooldown_ms from m\n    \
             on conflict on constraint cooldown_pkey do update set told_at = excluded.told_at,\n      \
             cooldown_ms = excluded.cooldown_ms, muted = false\n    ){}m;",
            self.alert("new", &key, Some(("raised_at", "moment")))
        ))
    }

    /// The condition, the row that is told, and its key.
    fn stop<'b>(&self, event: Event, stops: &'b Stops) -> Option<&'b str> {
        match event {
            Event::Insert => None,
            Event::Update => Some(&stops.update),
            Event::Delete => Some(&stops.delete.sql),
        }
    }

    fn stopped(&self, event: Event, cooling: bool) -> Option<(String, String)> {
        let some = self
            .conditions
            .iter()
            .filter(|c| cools(c.stored) == cooling);
        let rows = self.rows(some.filter_map(|c| {
            let condition = self.stop(event, c.stops.as_ref()?)?;
            Some((c.stored, condition.to_owned()))
        }))?;
        let key = quote::ident(&self.target.key_column);
        let row = match event {
            // The row as it is now, unless now it is another's.
            Event::Update => {
                format!("case when old.{key} is distinct from new.{key} then old else new end")
            }
            Event::Insert | Event::Delete => "old".to_owned(),
        };
        Some((
            rows,
            self.alert(&row, &self.key("old"), Some(("resolved", "true"))),
        ))
    }

    fn stops(&self, event: Event) -> Option<String> {
        let (rows, alert) = self.stopped(event, false)?;
        Some(format!(
            "{alert}(values\n{rows}\n    ) m (rule, version, channel, reason, hit)\n    where m.hit;"
        ))
    }

    /// The end of what was not told is not told either.
    fn stops_told_only(&self, event: Event) -> Option<String> {
        let (rows, alert) = self.stopped(event, true)?;
        Some(format!(
            "\n    with m as (\n    select v.* from (values\n{rows}\n    ) \
             v (rule, version, channel, reason, hit)\n    where v.hit\n    ), untold as (\n    \
             update pgbraid.cooldown s set muted = false from m\n    \
             where s.rule = m.rule and s.key = {} and s.muted\n    returning s.rule\n    )\
             {alert}m where not exists (select from untold u where u.rule = m.rule);",
            self.key("old")
        ))
    }
}
