//! A check of `log.level` without the crate that will use it.
//!
//! An `EnvFilter` takes any word that is no level for the name of a module, so `level = "inof"`
//! would silently log nothing. Here a directive is a level, or a target with one.

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The first directive that is neither a level nor `target=level`.
pub(crate) fn first_bad_directive(filter: &str) -> Option<&str> {
    directives(filter).find(|directive| {
        let level = match directive.rfind('=') {
            // An '=' inside the brackets of a span filter is none of ours.
            Some(at) if !directive[at..].contains([']', '}']) && at > 0 => &directive[at + 1..],
            Some(_) => return true,
            None => directive,
        };
        !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
    })
}

/// The parts between commas that stand outside of brackets.
fn directives(filter: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    filter.split(move |c| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::first_bad_directive;

    #[test]
    fn levels_and_targets() {
        for good in [
            "info",
            "INFO",
            "off",
            "info,pgbraid_ingest=debug",
            "warn,h2::codec=error,a[span{x=1,y=2}]=trace",
        ] {
            assert_eq!(first_bad_directive(good), None, "{good}");
        }
        for (bad, directive) in [
            ("", ""),
            ("inof", "inof"),
            ("info,", ""),
            ("info,h2", "h2"),
            ("h2=loud", "h2=loud"),
            ("=info", "=info"),
            ("a[s{x=1}]", "a[s{x=1}]"),
        ] {
            assert_eq!(first_bad_directive(bad), Some(directive), "{bad}");
        }
    }
}
