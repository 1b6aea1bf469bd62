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
    use super::*;

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
        let back = check(&at("9:9:"), empty(at("7:8:7")));
        assert!(matches!(back, Err(Misread::WentBack { xmin: 7 })));
    }
}
