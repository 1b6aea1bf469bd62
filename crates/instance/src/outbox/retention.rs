//! What is to be done to keep the outbox within its limits: decided from its state, without I/O.
//!
//! Parts go from spare to current, closed, sealed, and dropped. Whatever is decided is done in steps
//! of which each can be the last: a killed router's work is gone on with from the state it left.

use std::time::Duration;

use super::state::{Hold, OutboxState, PartState};

/// How much of the outbox is kept, on each instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Alerts are kept for this time ...
    pub keep: Duration,
    /// ... or until they take this much: of the oldest, whole parts go first.
    pub keep_bytes: u64,
    /// As long as a holder needs them they are kept on, but not for longer than this ...
    pub held_keep: Duration,
    /// ... nor beyond this size.
    pub held_keep_bytes: u64,
    /// The next part is opened when the current one has been written to for this time ...
    pub part: Duration,
    /// ... or takes this much.
    pub part_bytes: u64,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make and attach a part.
    Attach(i32),
    /// Note who wrote alerts while the part was attached.
    NoteWriters(i32),
    /// Let alerts be written to the part.
    Open(i32),
    /// Note below which transactions those of the part end.
    Close(i32),
    /// Note what is in the part: nothing is added any more.
    Seal(i32),
    /// Note that the part is dropped, and why; with whose hold was overrun.
    Condemn {
        part: i32,
        reason: String,
        overrun: Vec<String>,
    },
    /// Drop it.
    Drop(i32),
}

impl Hold {
    fn needs(&self, part: &PartState) -> bool {
        part.last_xid.is_some_and(|last| last >= self.xid)
            || part.last_seq.is_some_and(|last| last >= self.seq)
    }
}

/// The next steps, in order.
pub(crate) fn plan(state: &OutboxState, policy: &RetentionPolicy) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in &state.parts {
        if part.part < state.current && part.closed_for.is_none() {
            steps.push(Step::Close(part.part));
        }
        if part.can_be_sealed && !part.sealed {
            steps.push(Step::Seal(part.part));
        }
    }
    match state.parts.iter().find(|part| part.part > state.current) {
        None => steps.push(Step::Attach(state.current + 1)),
        Some(spare) if !spare.writers_noted => steps.push(Step::NoteWriters(spare.part)),
        Some(spare) => {
            if rotation_is_due(state, policy) && !spare.writers_left {
                steps.push(Step::Open(spare.part));
            }
        }
    }
    drops(state, policy, &mut steps);
    steps
}

fn rotation_is_due(state: &OutboxState, policy: &RetentionPolicy) -> bool {
    let current = state.parts.iter().find(|part| part.part == state.current);
    current.is_some_and(|current| {
        let old = current
            .opened_for
            .is_some_and(|age| age >= policy.part.as_secs_f64());
        current.used && (old || current.bytes >= policy.part_bytes)
    })
}

/// Of the oldest parts, those that are past the limits. The first that stays keeps all after it:
/// what is kept has no holes.
fn drops(state: &OutboxState, policy: &RetentionPolicy, steps: &mut Vec<Step>) {
    let mut bytes = state.bytes();
    for part in &state.parts {
        if part.dropping {
            steps.push(Step::Drop(part.part));
            bytes = bytes.saturating_sub(part.bytes);
            continue;
        }
        let Some(age) = part.closed_for.filter(|_| part.sealed) else {
            return;
        };
        let holders: Vec<String> = state
            .holds
            .iter()
            .filter(|hold| hold.needs(part))
            .map(|hold| hold.holder.clone())
            .collect();
        let (keep, keep_bytes) = match holders.is_empty() {
            true => (policy.keep, policy.keep_bytes),
            false => (policy.held_keep, policy.held_keep_bytes),
        };
        let reason = if part.alerts == 0 {
            "it was empty".to_owned()
        } else if age >= keep.as_secs_f64() {
            format!("older than {keep:?}")
        } else if bytes > keep_bytes {
            format!("more than {keep_bytes} bytes were kept")
        } else {
            return;
        };
        bytes = bytes.saturating_sub(part.bytes);
        steps.push(Step::Condemn {
            part: part.part,
            reason,
            overrun: if part.alerts == 0 {
                Vec::new()
            } else {
                holders
            },
        });
        steps.push(Step::Drop(part.part));
    }
}

#[cfg(test)]
mod tests;
