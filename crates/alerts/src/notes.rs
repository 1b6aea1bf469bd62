//! The last messages of one instance's plain channels.
//!
//! They are not durable: whoever falls behind the ring, or loses the connection, is told that
//! there is a gap.

use std::collections::VecDeque;
use std::sync::Arc;

/// A message on a plain channel, or the place of lost ones.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    Message {
        channel: Arc<str>,
        payload: Arc<str>,
        pid: i32,
        at_us: i64,
    },
    Gap {
        reason: Arc<str>,
    },
}

impl Note {
    fn bytes(&self) -> usize {
        match self {
            Self::Message {
                channel, payload, ..
            } => channel.len() + payload.len(),
            Self::Gap { reason } => reason.len(),
        }
    }
}

/// Notes numbered from 0, of which the last ones are kept.
#[derive(Debug)]
pub(crate) struct Notes {
    kept: VecDeque<Note>,
    first: u64,
    bytes: usize,
    max_notes: usize,
    max_bytes: usize,
}

impl Notes {
    pub(crate) fn new(max_notes: usize, max_bytes: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            first: 0,
            bytes: 0,
            max_notes,
            max_bytes,
        }
    }

    /// The number of the next note to come.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    pub(crate) fn push(&mut self, note: Note) {
        self.bytes += note.bytes();
        self.kept.push_back(note);
        while self.kept.len() > self.max_notes || self.bytes > self.max_bytes {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
            self.first += 1;
        }
    }

    /// The note with number `next`, which is then counted on; or how many were lost before the
    /// oldest that is left, which is then the next.
    pub(crate) fn take(&self, next: &mut u64) -> Option<Result<Note, u64>> {
        if *next < self.first {
            let lost = self.first - *next;
            *next = self.first;
            return Some(Err(lost));
        }
        let note = self.kept.get((*next - self.first) as usize)?;
        *next += 1;
        Some(Ok(note.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(text: &str) -> Note {
        Note::Gap {
            reason: text.into(),
        }
    }

    fn taken(notes: &Notes, next: &mut u64) -> Option<Result<String, u64>> {
        let taken = notes.take(next)?;
        Some(taken.map(|note| match note {
            Note::Gap { reason } => reason.to_string(),
            Note::Message { payload, .. } => payload.to_string(),
        }))
    }

    #[test]
    fn who_falls_behind_is_told_how_much_is_lost() {
        let mut notes = Notes::new(2, 100);
        let mut next = notes.end();
        for text in ["a", "b", "c"] {
            notes.push(gap(text));
        }
        assert_eq!(taken(&notes, &mut next), Some(Err(1)));
        assert_eq!(taken(&notes, &mut next), Some(Ok("b".into())));
        assert_eq!(taken(&notes, &mut next), Some(Ok("c".into())));
        assert_eq!(taken(&notes, &mut next), None);
        assert_eq!(next, notes.end());
    }

    #[test]
    fn bytes_are_bounded() {
        let mut notes = Notes::new(100, 10);
        notes.push(gap("12345678"));
        notes.push(gap("12345678"));
        assert_eq!((notes.first, notes.bytes), (1, 8));
        notes.push(gap("longer than everything"));
        assert_eq!((notes.first, notes.bytes, notes.end()), (3, 0, 3));
    }
}
