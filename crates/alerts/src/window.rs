//! Whether a source's answer fits the question: cursors are only exact if it does.

use crate::{Cursor, Page, SourceError};

/// What is wrong with a page.
#[derive(Debug)]
pub(crate) enum Misread {
    /// The instance's snapshot is behind the cursor: transaction ids went back, because the
    /// instance was restored, or crashed and gave ids anew that had left no trace. What is below
    /// this id is certainly old.
    WentBack {
        /// The oldest transaction then running.
        xmin: u64,
    },
    /// The source does not keep to its contract.
    Broken(SourceError),
}

/// Checks the answer to a read from `from`, and tidies `more`: without alerts there is no more.
pub(crate) fn check(from: &Cursor, mut page: Page) -> Result<Page, Misread> {
    let broken = |what: &str| {
        Err(Misread::Broken(SourceError::new(format!(
            "reading the outbox: {what}"
        ))))
    };
    let next = &page.next;
    if !page.alerts.is_sorted_by(|a, b| a.seq < b.seq) {
        return broken("the alerts are not in the order of their seq");
    }
    if next.page.is_some() && (page.alerts.is_empty() || next.base != from.base) {
        return broken("an unfinished page must have alerts and keep its base");
    }
    match &from.page {
        Some(mark) if next.upper() != &mark.upper => {
            return broken("a page must stay in its window");
        }
        None if !next.upper().covers(&from.base) => {
            let xmin = next.upper().xmin();
            return Err(Misread::WentBack { xmin });
        }
        _ => {}
    }
    page.more &= !page.alerts.is_empty();
    Ok(page)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgbraid_shardmap::InstanceName;

    use super::*;
    use crate::Alert;

    fn alert(seq: i64) -> Alert {
        Alert {
            instance: InstanceName::new(0),
            seq,
            xid: 7,
            feed: "orders".into(),
            rule: "r".into(),
            rule_version: 1,
            channel: "c".into(),
            reason: "why".into(),
            key: "1".into(),
            row: "{}".into(),
            raised_at_us: 0,
            resolved: false,
        }
    }

    fn at(text: &str) -> Cursor {
        Cursor::at(text.parse().unwrap())
    }

    fn empty(next: Cursor) -> Page {
        let alerts = Vec::new();
        let more = true;
        Page {
            alerts,
            next,
            more,
            dropped: None,
        }
    }

    #[test]
    fn an_answer_must_fit_its_question() {
        let window = at("5:5:").inside(at("9:9:").upper(), 3);
        assert!(!check(&at("5:5:"), empty(at("9:9:"))).unwrap().more);
        assert!(check(&window, empty(at("9:9:"))).is_ok());
        let broken =
            |from: &Cursor, next| matches!(check(from, empty(next)), Err(Misread::Broken(_)));
        assert!(broken(&window, at("10:10:")));
        assert!(broken(&at("5:5:"), window.clone()));
        // With an alert, but from another base, or out of order.
        let page = |seqs: &[i64], next: Cursor| Page {
            alerts: seqs.iter().map(|seq| Arc::new(alert(*seq))).collect(),
            ..empty(next)
        };
        let inside = |base: &str| at(base).inside(at("9:9:").upper(), 4);
        assert!(check(&window, page(&[4], inside("5:5:"))).is_ok());
        for wrong in [page(&[4], inside("4:4:")), page(&[4, 4], inside("5:5:"))] {
            assert!(matches!(check(&window, wrong), Err(Misread::Broken(_))));
        }
        let back = check(&at("9:9:"), empty(at("7:8:7")));
        assert!(matches!(back, Err(Misread::WentBack { xmin: 7 })));
    }
}
