use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn policy() -> RetentionPolicy {
    RetentionPolicy {
        keep: 24 * HOUR,
        keep_bytes: 1000,
        held_keep: 48 * HOUR,
        held_keep_bytes: 2000,
        part: HOUR,
        part_bytes: 100,
    }
}

fn hours(hours: f64) -> f64 {
    hours * 3600.0
}

/// A sealed part of 10 alerts and 50 bytes, closed so many hours ago.
fn sealed(number: i32, closed_for: f64) -> PartState {
    PartState {
        part: number,
        writers_noted: true,
        closed_for: Some(hours(closed_for)),
        opened_for: Some(hours(closed_for + 1.0)),
        can_be_sealed: true,
        sealed: true,
        bytes: 50,
        used: true,
        alerts: 10,
        first_seq: Some(i64::from(number) * 10),
        last_seq: Some(i64::from(number) * 10 + 9),
        last_xid: Some(number as u64 * 100),
        ..PartState::default()
    }
}

fn current(number: i32, opened_for: f64, bytes: u64) -> PartState {
    PartState {
        part: number,
        writers_noted: true,
        opened_for: Some(hours(opened_for)),
        bytes,
        used: bytes > 0,
        ..PartState::default()
    }
}

fn spare(number: i32) -> PartState {
    PartState {
        part: number,
        writers_noted: true,
        ..PartState::default()
    }
}

fn state(parts: Vec<PartState>, current: i32) -> OutboxState {
    OutboxState {
        parts,
        current,
        ..OutboxState::default()
    }
}

fn hold(xid: u64, seq: i64) -> Hold {
    let holder = "group late".to_owned();
    Hold { holder, xid, seq }
}

fn condemned(steps: &[Step]) -> Vec<(i32, bool)> {
    let of = |step: &Step| match step {
        Step::Condemn { part, overrun, .. } => Some((*part, !overrun.is_empty())),
        _ => None,
    };
    steps.iter().filter_map(of).collect()
}

#[test]
fn the_next_part_is_opened_by_age_or_size_and_never_for_nothing() {
    let plan = |opened, bytes| {
        plan(
            &state(vec![current(4, opened, bytes), spare(5)], 4),
            &policy(),
        )
    };
    assert_eq!(plan(0.5, 50), []);
    assert_eq!(plan(1.0, 50), [Step::Open(5)]);
    assert_eq!(plan(0.5, 100), [Step::Open(5)]);
    assert_eq!(plan(30.0, 0), []);
}

#[test]
fn a_part_is_opened_only_when_everybody_knows_it() {
    let of = |spare: Option<PartState>| {
        let parts = std::iter::once(current(4, 2.0, 50)).chain(spare);
        plan(&state(parts.collect(), 4), &policy())
    };
    assert_eq!(of(None), [Step::Attach(5)]);
    let unknown = PartState {
        writers_noted: false,
        ..spare(5)
    };
    assert_eq!(of(Some(unknown)), [Step::NoteWriters(5)]);
    let written = PartState {
        writers_left: true,
        ..spare(5)
    };
    assert_eq!(of(Some(written)), []);
    assert_eq!(of(Some(spare(5))), [Step::Open(5)]);
}

#[test]
fn what_a_killed_router_left_is_gone_on_with() {
    // The sequence has moved on, and nothing else.
    let parts = vec![current(4, 2.0, 50), spare(5)];
    assert_eq!(
        plan(&state(parts, 5), &policy()),
        [Step::Close(4), Step::Attach(6)]
    );
    let closed = PartState {
        sealed: false,
        ..sealed(4, 0.0)
    };
    let parts = vec![closed, current(5, 0.0, 0), spare(6)];
    assert_eq!(plan(&state(parts, 5), &policy()), [Step::Seal(4)]);
    let dropping = PartState {
        dropping: true,
        ..sealed(3, 30.0)
    };
    let parts = vec![dropping, sealed(4, 2.0), current(5, 0.0, 0), spare(6)];
    assert_eq!(plan(&state(parts, 5), &policy()), [Step::Drop(3)]);
}

#[test]
fn the_oldest_go_first_and_no_hole_is_made() {
    let parts = |ages: &[f64]| {
        let sealed = ages.iter().zip(1..).map(|(age, part)| sealed(part, *age));
        let last = ages.len() as i32 + 1;
        let all = sealed.chain([current(last, 0.0, 10), spare(last + 1)]);
        state(all.collect(), last)
    };
    let by_age = plan(&parts(&[26.0, 24.0, 23.0]), &policy());
    assert_eq!(condemned(&by_age), [(1, false), (2, false)]);
    // 23 parts of 50 bytes and one of 10: four too many.
    let by_size = plan(&parts(&[1.0; 23]), &policy());
    assert_eq!(
        condemned(&by_size),
        [(1, false), (2, false), (3, false), (4, false)]
    );
    let mut unsealed = parts(&[26.0, 26.0]);
    unsealed.parts[0].sealed = false;
    unsealed.parts[0].can_be_sealed = false;
    assert_eq!(condemned(&plan(&unsealed, &policy())), []);
}

#[test]
fn a_hold_keeps_what_it_needs_up_to_the_limit_and_no_further() {
    let parts = |ages: [f64; 3], holds: Vec<Hold>| OutboxState {
        holds,
        ..state(
            ages.iter()
                .zip(1..)
                .map(|(age, part)| sealed(part, *age))
                .chain([current(4, 0.0, 10), spare(5)])
                .collect(),
            4,
        )
    };
    let old = [30.0, 29.0, 28.0];
    let of = |ages, holds| condemned(&plan(&parts(ages, holds), &policy()));
    assert_eq!(of(old, vec![]), [(1, false), (2, false), (3, false)]);
    // By transaction, and by number.
    assert_eq!(of(old, vec![hold(200, i64::MAX)]), [(1, false)]);
    assert_eq!(of(old, vec![hold(201, i64::MAX)]), [(1, false), (2, false)]);
    assert_eq!(of(old, vec![hold(u64::MAX, 20)]), [(1, false)]);
    assert_eq!(of(old, vec![hold(u64::MAX, 19)]), []);
    assert_eq!(of([48.0, 47.0, 2.0], vec![hold(1, 1)]), [(1, true)]);
    let tight = RetentionPolicy {
        held_keep_bytes: 110,
        ..policy()
    };
    let held = parts([3.0, 2.0, 1.0], vec![hold(1, 1)]);
    assert_eq!(condemned(&plan(&held, &tight)), [(1, true)]);
}

#[test]
fn what_is_kept_is_counted() {
    let mut kept = state(vec![sealed(1, 2.0), current(2, 1.0, 30), spare(3)], 2);
    kept.last_seq = 25;
    assert_eq!((kept.alerts(), kept.bytes(), kept.parts()), (16, 80, 3));
    kept.parts[1].used = false;
    assert_eq!(kept.alerts(), 10);
}
