use super::*;

fn ourselves(table: Vec<Process>) -> Process {
    let pid = i32::try_from(std::process::id()).unwrap();
    table
        .into_iter()
        .find(|p| p.pid == pid)
        .expect("we are in the process table")
}

#[test]
fn we_are_in_the_table_and_run() {
    let us = ourselves(all().unwrap());
    assert!(!us.stopped);
    assert!(us.parent > 0);
    assert!(!is_postmaster_of(us.pid, &std::env::current_dir().unwrap()));
}

#[test]
fn ps_sees_what_proc_sees() {
    // Slim machines have no ps.
    let Ok(table) = ps::all() else { return };
    assert_eq!(ourselves(table).parent, ourselves(all().unwrap()).parent);
    let us = ourselves(all().unwrap());
    assert_eq!(ps::get(us.pid).map(|p| p.parent), Some(us.parent));
    assert_eq!(get(us.pid).map(|p| p.parent), Some(us.parent));
    assert!(!ps::is_postmaster_of(1, Path::new("/")));
    assert!(!ps::works_in(1, Path::new("/")));
    assert!(!ps::names_inside(1, Path::new("/no such folder")));
}
