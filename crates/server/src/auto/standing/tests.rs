use proptest::prelude::*;

use super::*;

#[test]
fn an_edit_of_the_agreed_file_is_proposed_once_and_others_follow() {
    let (mut one, mut two) = (Standing::new("a".into()), Standing::new("a".into()));
    assert_eq!(one.judge(None, false), Verdict::Nothing);
    assert_eq!(one.judge(None, true), Verdict::Propose(None));
    assert_eq!(one.judge(Some("a"), true), Verdict::Agrees);
    assert_eq!(two.judge(Some("a"), false), Verdict::Agrees);
    one.file_wants("b");
    assert_eq!(
        one.judge(Some("a"), false),
        Verdict::Propose(Some("a".into()))
    );
    assert_eq!(one.judge(Some("b"), false), Verdict::Agrees);
    // Its file has not changed yet: it takes no part, and does not take it back.
    assert_eq!(two.judge(Some("b"), false), Verdict::Differs);
    two.file_wants("b");
    assert_eq!(two.judge(Some("b"), false), Verdict::Agrees);
}

#[test]
fn a_start_is_no_edit() {
    let mut stale = Standing::new("old".into());
    assert_eq!(stale.judge(Some("new"), true), Verdict::Differs);
    // Nor does it become one when its file is edited to a third: nobody who edits it can know.
    stale.file_wants("third");
    assert_eq!(stale.judge(Some("new"), false), Verdict::Differs);
    stale.file_wants("new");
    assert_eq!(stale.judge(Some("new"), false), Verdict::Agrees);
}

#[test]
fn an_edit_that_comes_late_does_not_undo_a_later_one() {
    let (mut fast, mut slow) = (Standing::new("a".into()), Standing::new("a".into()));
    fast.judge(Some("a"), true);
    slow.judge(Some("a"), true);
    for (file, agreed) in [("b", "a"), ("c", "b")] {
        fast.file_wants(file);
        assert_eq!(
            fast.judge(Some(agreed), false),
            Verdict::Propose(Some(agreed.into()))
        );
        fast.judge(Some(file), false);
    }
    slow.file_wants("b");
    assert_eq!(slow.judge(Some("c"), false), Verdict::Differs);
    slow.file_wants("c");
    assert_eq!(slow.judge(Some("c"), false), Verdict::Agrees);
}

#[test]
fn an_edit_that_was_undone_elsewhere_does_not_come_again() {
    let (mut one, mut two) = (Standing::new("a".into()), Standing::new("a".into()));
    one.judge(Some("a"), true);
    two.judge(Some("a"), true);
    one.file_wants("b");
    assert_eq!(
        one.judge(Some("a"), false),
        Verdict::Propose(Some("a".into()))
    );
    one.proposed(true);
    two.file_wants("b");
    assert_eq!(two.judge(Some("b"), false), Verdict::Agrees);
    two.file_wants("a");
    assert_eq!(
        two.judge(Some("b"), false),
        Verdict::Propose(Some("b".into()))
    );
    two.proposed(true);
    // It has not looked since it proposed.
    assert_eq!(one.judge(Some("a"), false), Verdict::Differs);
}

#[derive(Clone, Debug)]
enum Act {
    Edit(usize, u8),
    Restart(usize),
    Look(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..3_usize, 0..4_u8).prop_map(|(router, file)| Act::Edit(router, file)),
        (0..3_usize).prop_map(Act::Restart),
        (0..3_usize).prop_map(Act::Look),
    ];
    proptest::collection::vec(act, 0..200)
}

proptest! {
    /// Whatever routers see of their files, and whenever: what is agreed on changes no more often than
    /// files are edited, and no more at all once they are not.
    #[test]
    fn tables_never_go_to_and_fro(acts in acts(), files in proptest::array::uniform3(0..4_u8)) {
        let mut files = files;
        let name = |file: u8| file.to_string();
        let mut routers: Vec<Standing> =
            files.iter().map(|file| Standing::new(name(*file))).collect();
        let (mut agreed, mut changes, mut edits) = (None::<String>, 0, 0);
        let look = |routers: &mut Vec<Standing>, files: &[u8; 3], at: usize,
                        agreed: &mut Option<String>| {
            routers[at].file_wants(&name(files[at]));
            let found = agreed.clone();
            // Where tables are is where they were agreed on, or anywhere.
            match routers[at].judge(found.as_deref(), found.is_none()) {
                Verdict::Propose(instead_of) => {
                    let is_first = instead_of == *agreed;
                    if is_first {
                        *agreed = Some(name(files[at]));
                    }
                    routers[at].proposed(is_first);
                    is_first
                }
                _ => false,
            }
        };
        for act in acts {
            match act {
                Act::Edit(at, file) => {
                    edits += usize::from(files[at] != file);
                    files[at] = file;
                }
                Act::Restart(at) => routers[at] = Standing::new(name(files[at])),
                Act::Look(at) => {
                    changes += usize::from(look(&mut routers, &files, at, &mut agreed));
                }
            }
        }
        // One more for the first of all.
        prop_assert!(changes <= edits + 1, "{changes} changes by {edits} edits");
        // Each looks at an edit that it has not seen yet, once; then all is quiet.
        let rounds: Vec<usize> = (0..4)
            .map(|_| (0..3).filter(|at| look(&mut routers, &files, *at, &mut agreed)).count())
            .collect();
        prop_assert_eq!(&rounds[1..], [0, 0, 0]);
    }
}
