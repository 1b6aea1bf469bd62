//! The process table from `/proc`: slim containers have no `ps`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Process;

pub(super) fn all() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // A process that ended since the folder was read is no error.
        found.extend(get(pid));
    }
    Ok(found)
}

pub(super) fn get(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &String::from_utf8_lossy(&stat))
}

/// `pid (program) state parent …`; the program's name may hold spaces and brackets.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, program) = before.split_once('(')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    let stopped = matches!(state, "T" | "t");
    Some(Process {
        pid,
        parent,
        stopped,
        program: program.to_owned(),
    })
}

pub(super) fn is_postmaster_of(pid: i32, data_dir: &Path) -> bool {
    // A zombie's command line is empty. A server process that was forked by the postmaster
    // overwrites its own with a title, so only the postmaster's names the folder.
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut words = line.split(|&byte| byte == 0).map(OsStr::from_bytes);
    let program = words.next().and_then(|p| Path::new(p).file_name());
    program.is_some_and(|p| p == "postgres") && words.any(|word| word == data_dir.as_os_str())
}

pub(super) fn names_inside(pid: i32, dir: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|&byte| byte == 0).map(OsStr::from_bytes);
    words.any(|word| Path::new(word).starts_with(dir))
}

pub(super) fn works_in(pid: i32, data_dir: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data_dir)
}
