//! How the limit is written: statement, batch, connections.

use std::{fmt, str::FromStr};

/// The statement that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `insert .. on conflict do update`, as the router writes it.
    Upsert,
    /// A bare `update`: right for keys that are stored, as all are here.
    Update,
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Update => "update",
        }
    }

    pub(super) fn sql(self, table: usize) -> String {
        match self {
            Self::Upsert => format!(
                "insert into public.feed_{table} as t (id, c1, c2) \
                 select u.k, u.c0, u.c1 \
                 from unnest($1::int8[], $2::int4[], $3::int4[]) as u(k, c0, c1) \
                 on conflict (id) do update set c1 = excluded.c1, c2 = excluded.c2"
            ),
            Self::Update => format!(
                "update public.feed_{table} as t set c1 = u.c0, c2 = u.c1 \
                 from unnest($1::int8[], $2::int4[], $3::int4[]) as u(k, c0, c1) \
                 where t.id = u.k"
            ),
        }
    }
}

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub form: Form,
    pub rows: usize,
    pub connections: usize,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = self.form.name();
        write!(f, "{form},{},{}", self.rows, self.connections)
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "expected FORM,ROWS,CONNECTIONS, for example update,8000,2, where FORM is \
                      upsert or update, ROWS 1 to 100000 and CONNECTIONS 1 to 64";
        let parts: Vec<&str> = text.split(',').collect();
        let [form, rows, connections] = parts[..] else {
            return Err(wanted.to_owned());
        };
        let form = match form {
            "upsert" => Form::Upsert,
            "update" => Form::Update,
            _ => return Err(wanted.to_owned()),
        };
        let within = |text: &str, most: usize| {
            let number = text.parse().ok();
            number.filter(|number| (1..=most).contains(number))
        };
        match (within(rows, 100_000), within(connections, 64)) {
            (Some(rows), Some(connections)) => Ok(Self {
                form,
                rows,
                connections,
            }),
            _ => Err(wanted.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_and_printed() {
        let choice: Choice = "update,8000,2".parse().unwrap();
        assert_eq!(choice.to_string(), "update,8000,2");
        assert_eq!((choice.rows, choice.connections), (8000, 2));
        for wrong in [
            "",
            "update",
            "merge,1,1",
            "update,0,1",
            "update,1,65",
            "update,1,1,1",
        ] {
            assert!(wrong.parse::<Choice>().is_err(), "{wrong}");
        }
    }
}
