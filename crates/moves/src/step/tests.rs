//! A model of source, target and home under the guards of the SQL, with movers that are killed or
//! stopped anywhere, and routers that come to the rescue.

use pgbraid_instance::Workers;
use proptest::prelude::*;

use super::*;
use crate::Goal;

const E: Epoch = Epoch(7);

/// The table as source and target have it. Guards are those of `pgbraid_instance::moves`.
#[derive(Clone, Debug)]
struct World {
    source: SourceSeen,
    target: TargetSeen,
    fenced: bool,
    target_fenced: bool,
    /// Rows: what the source has, and how many of them the target has.
    written: u64,
    copied: u64,
    /// The target lost rows that its slot does not have any more.
    lost: bool,
    closed: Option<MoveOutcome>,
}

fn row(state: OwnershipState, epoch: Epoch, mine: bool) -> MovingRow {
    MovingRow {
        state,
        epoch,
        mine,
        moved_to: None,
        term: 0,
        cut: 0,
    }
}

impl World {
    fn start() -> Self {
        Self {
            source: SourceSeen {
                row: Some(row(OwnershipState::Owned, E, false)),
                publication: false,
                slot: false,
                lag: None,
                written: 0,
            },
            target: TargetSeen {
                row: None,
                table: false,
                filled: false,
                subscription: false,
                ready: false,
                same_server: true,
                copied_rows: None,
                copied_bytes: None,
                bytes: 0,
                workers: Workers::default(),
            },
            fenced: false,
            target_fenced: false,
            written: 10,
            copied: 0,
            lost: false,
            closed: None,
        }
    }

    fn src(&mut self) -> &mut MovingRow {
        self.source.row.as_mut().unwrap()
    }

    fn src_state(&self) -> OwnershipState {
        self.source.row.as_ref().unwrap().state
    }

    fn arriving(&self) -> bool {
        matches!(&self.target.row, Some(row) if row.mine && row.state == OwnershipState::MovingIn)
    }

    fn owners(&self) -> usize {
        let source = self.src_state() == OwnershipState::Owned;
        let target = matches!(&self.target.row, Some(row) if row.state == OwnershipState::Owned);
        usize::from(source) + usize::from(target)
    }

    fn undo(&mut self) {
        if self.src_state() == OwnershipState::MovingOut {
            self.src().state = OwnershipState::Owned;
            self.fenced = false;
        }
    }

    fn fence(&mut self, term: i64) -> Option<i32> {
        let row = self.src();
        if row.state != OwnershipState::Owned || !row.mine || row.term > term {
            return None;
        }
        row.state = OwnershipState::MovingOut;
        row.cut += 1;
        let cut = row.cut;
        self.fenced = true;
        Some(cut)
    }

    fn decide(&mut self, term: i64, cut: i32) -> bool {
        let row = self.src();
        let may = row.state == OwnershipState::MovingOut
            && row.mine
            && row.term <= term
            && row.cut == cut;
        if may {
            row.state = OwnershipState::Moved;
        }
        may
    }

    fn own(&mut self) {
        if self.arriving() {
            let row = self.target.row.as_mut().unwrap();
            row.state = OwnershipState::Owned;
            row.epoch = E.next();
            self.target_fenced = false;
        }
    }

    fn drop_copy(&mut self, term: i64) {
        if self.arriving() && self.target.row.as_ref().unwrap().term <= term {
            self.target.row = None;
            self.target.table = false;
            self.target.filled = false;
            self.copied = 0;
        }
    }

    fn unsubscribe(&mut self) {
        self.target.subscription = false;
        self.target.ready = false;
    }

    fn replicate(&mut self) {
        if self.target.subscription && self.source.slot {
            self.copied = self.written;
            self.target.filled = true;
            self.target.ready = true;
        }
    }
}

/// What a mover has in mind between two of its statements.
#[derive(Clone, Debug)]
enum Mind {
    Look,
    CatchUp(i32, u64),
    Decide(i32),
    Own,
}

#[derive(Clone, Debug)]
struct MoverModel {
    term: i64,
    goal: Goal,
    mind: Mind,
    started: bool,
}

impl MoverModel {
    fn new(term: i64, goal: Goal) -> Self {
        Self {
            term,
            goal,
            mind: Mind::Look,
            started: false,
        }
    }

    /// One statement. Returns whether the move is over, as this mover sees it.
    fn act(&mut self, world: &mut World) -> bool {
        if !self.started {
            self.started = true;
            let term = self.term;
            let held = world.src_state() != OwnershipState::Moved;
            let row = world.src();
            if row.mine && held && row.term <= term {
                row.term = term;
            }
            if let Some(row) = &mut world.target.row
                && row.mine
                && row.term <= term
            {
                row.term = term;
            }
            return false;
        }
        match self.mind.clone() {
            Mind::Look => return self.look(world),
            Mind::CatchUp(cut, upto) => {
                if world.copied >= upto && world.target.ready {
                    self.mind = Mind::Decide(cut);
                } else {
                    world.undo();
                    self.mind = Mind::Look;
                }
            }
            Mind::Decide(cut) => {
                self.mind = match world.decide(self.term, cut) {
                    true => Mind::Own,
                    false => Mind::Look,
                }
            }
            Mind::Own => {
                world.own();
                self.mind = Mind::Look;
            }
        }
        false
    }

    fn look(&mut self, world: &mut World) -> bool {
        let step = next_step(self.goal, E, &world.source, &world.target);
        let term = self.term;
        match step {
            Step::Mark => {
                let row = world.src();
                if row.state == OwnershipState::Owned && row.term <= term {
                    row.mine = true;
                    row.term = term;
                }
            }
            Step::Make => {
                if world.target.row.is_none() {
                    let mut made = row(OwnershipState::MovingIn, E, true);
                    made.term = term;
                    world.target.row = Some(made);
                    world.target.table = true;
                    world.target.same_server = true;
                    world.target_fenced = true;
                    world.lost = false;
                }
            }
            Step::Publish => {
                world.source.publication = true;
                world.source.slot = true;
            }
            Step::Subscribe => world.target.subscription = world.target.table,
            Step::Wait => world.replicate(),
            Step::CutOver => {
                if let Some(cut) = world.fence(term) {
                    self.mind = Mind::CatchUp(cut, world.written);
                }
            }
            Step::Undo => world.undo(),
            Step::Own => world.own(),
            Step::Restart(_) => {
                world.unsubscribe();
                world.drop_copy(term);
                world.source.slot = false;
                world.source.publication = false;
            }
            Step::Unsubscribe => world.unsubscribe(),
            Step::DropCopy => world.drop_copy(term),
            Step::Unpublish => {
                world.source.publication = false;
                world.source.slot = false;
            }
            Step::Unmark => {
                if let Some(row) = &mut world.target.row
                    && row.state == OwnershipState::Owned
                {
                    row.mine = false;
                }
                if world.src_state() != OwnershipState::MovingOut {
                    world.src().mine = false;
                }
            }
            Step::Close(outcome) => {
                world.closed.get_or_insert(outcome);
                return true;
            }
            Step::TooLate => self.goal = Goal::Forward,
            Step::Stuck(why) => panic!("stuck: {why} in {world:?}"),
        }
        false
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// The current mover goes on.
    Go,
    /// Killed, or stopped for so long that its lease ends; the next one has this goal.
    Replace(Goal),
    /// A mover that was stopped wakes up.
    Wake(usize),
    /// A router takes back an old fence, or carries out an old decision.
    Rescue,
    Write,
    Replicate,
    LoseSlot,
    PromoteTarget,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => Just(Act::Go),
        1 => Just(Act::Replace(Goal::Forward)),
        1 => Just(Act::Replace(Goal::Back)),
        2 => (0..4_usize).prop_map(Act::Wake),
        1 => Just(Act::Rescue),
        2 => Just(Act::Write),
        3 => Just(Act::Replicate),
        1 => Just(Act::LoseSlot),
        1 => Just(Act::PromoteTarget),
    ]
}

/// What must hold after every single statement of anybody.
fn check(world: &World) {
    assert!(world.owners() <= 1, "owned twice: {world:?}");
    let taken = matches!(&world.target.row, Some(row) if row.state == OwnershipState::Owned);
    if taken {
        assert_eq!(world.src_state(), OwnershipState::Moved, "{world:?}");
        assert!(world.fenced, "the old owner takes writes: {world:?}");
        assert_eq!(world.copied, world.written, "rows were lost: {world:?}");
    }
    if world.src_state() == OwnershipState::Moved {
        assert!(
            !world.lost,
            "rows that a promoted standby lacked: {world:?}"
        );
        assert_eq!(world.copied, world.written, "decided too early: {world:?}");
        assert!(taken || world.arriving(), "the copy is gone: {world:?}");
    }
    if world.arriving() {
        assert!(world.target_fenced, "an early write is possible: {world:?}");
    }
}

fn run(acts: Vec<Act>, last: Goal) -> World {
    let mut world = World::start();
    let mut movers = vec![MoverModel::new(1, Goal::Forward)];
    for act in acts {
        if world.closed.is_some() {
            break;
        }
        match act {
            Act::Go => {
                movers.last_mut().unwrap().act(&mut world);
            }
            Act::Replace(goal) => movers.push(MoverModel::new(movers.len() as i64 + 1, goal)),
            Act::Wake(which) => {
                let old = which % movers.len();
                // A stopped mover does the statement it had in mind; before it looks at a new
                // step it finds its lease gone.
                if !matches!(movers[old].mind, Mind::Look) {
                    movers[old].act(&mut world);
                }
            }
            Act::Rescue => match world.src_state() {
                OwnershipState::MovingOut => world.undo(),
                OwnershipState::Moved if world.src().mine => world.own(),
                _ => {}
            },
            Act::Write => {
                if !world.fenced {
                    world.written += 1;
                }
            }
            Act::Replicate => world.replicate(),
            Act::LoseSlot if world.src_state() == OwnershipState::Owned => {
                world.source.slot = false;
            }
            Act::PromoteTarget if world.src_state() == OwnershipState::Owned => {
                if world.arriving() {
                    world.target.same_server = false;
                    world.lost = world.copied > 0;
                }
            }
            Act::LoseSlot | Act::PromoteTarget => {}
        }
        check(&world);
    }
    // Whatever has happened, one mover that is let live ends it.
    let mut mover = MoverModel::new(movers.len() as i64 + 1, last);
    for _ in 0..200 {
        if world.closed.is_some() || mover.act(&mut world) {
            return world;
        }
        world.replicate();
        check(&world);
    }
    panic!("it does not end: {world:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whoever_dies_the_table_has_one_owner_and_all_rows(
        acts in proptest::collection::vec(act(), 0..80),
    ) {
        let world = run(acts, Goal::Forward);
        let done = world.closed == Some(MoveOutcome::Done);
        prop_assert_eq!(world.owners(), 1);
        prop_assert_eq!(done, world.src_state() == OwnershipState::Moved);
    }

    #[test]
    fn an_abort_before_the_decision_leaves_nothing(
        acts in proptest::collection::vec(act(), 0..80),
    ) {
        let world = run(acts, Goal::Back);
        prop_assert_eq!(world.owners(), 1);
        if world.closed == Some(MoveOutcome::Aborted) {
            prop_assert_eq!(world.src_state(), OwnershipState::Owned);
            prop_assert!(!world.fenced && !world.target.table && !world.target.subscription);
            prop_assert!(!world.source.slot && !world.source.publication);
            prop_assert_eq!(&world.target.row, &None);
        }
    }
}

#[test]
fn the_straight_way() {
    let mut world = World::start();
    let mut mover = MoverModel::new(1, Goal::Forward);
    mover.started = true;
    let mut names = Vec::new();
    while world.closed.is_none() {
        let step = next_step(Goal::Forward, E, &world.source, &world.target);
        if matches!(mover.mind, Mind::Look) {
            names.push(step.name());
        }
        mover.act(&mut world);
    }
    let expected = [
        "mark",
        "make",
        "publish",
        "subscribe",
        "copy",
        "cut-over",
        "unsubscribe",
        "unpublish",
        "unmark",
        "close",
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_was_changed_by_hand_is_not_touched() {
    let mut world = World::start();
    world.src().epoch = Epoch(9);
    let step = next_step(Goal::Forward, E, &world.source, &world.target);
    assert!(matches!(step, Step::Stuck(_)), "{step:?}");
    let mut world = World::start();
    world.src().mine = true;
    world.target.row = Some(row(OwnershipState::Owned, E, false));
    let step = next_step(Goal::Forward, E, &world.source, &world.target);
    assert!(matches!(step, Step::Stuck(_)), "{step:?}");
}
