//! The process table from `ps`, for systems without `/proc`.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Process;

pub(super) fn all() -> io::Result<Vec<Process>> {
    let table = ps(&["-axo", "pid=,ppid=,state=,comm="])?;
    Ok(table.lines().filter_map(parse).collect())
}

pub(super) fn get(pid: i32) -> Option<Process> {
    let line = ps(&["-o", "pid=,ppid=,state=,comm=", "-p", &pid.to_string()]).ok()?;
    parse(line.trim_end())
}

/// `pid parent state program`; the program may be a whole path with spaces.
fn parse(line: &str) -> Option<Process> {
    let mut rest = line;
    let mut word = || {
        let text = rest.trim_start();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, after) = text.split_at(end);
        rest = after;
        word
    };
    let (pid, parent) = (word().parse().ok()?, word().parse().ok()?);
    let state = word();
    if state.starts_with('Z') {
        return None;
    }
    let program = rest.trim().rsplit('/').next()?.to_owned();
    Some(Process {
        pid,
        parent,
        stopped: state.starts_with('T'),
        program,
    })
}

pub(super) fn is_postmaster_of(pid: i32, data_dir: &Path) -> bool {
    let Ok(line) = ps(&["-o", "args=", "-p", &pid.to_string()]) else {
        return false;
    };
    let folder = format!(" -D {}", data_dir.display());
    line.trim_end().contains("/postgres ") && line.trim_end().ends_with(&folder)
}

pub(super) fn names_inside(pid: i32, dir: &Path) -> bool {
    let line = ps(&["-o", "args=", "-p", &pid.to_string()]).unwrap_or_default();
    line.contains(&format!(" {}/", dir.display()))
}

pub(super) fn works_in(_pid: i32, _data_dir: &Path) -> bool {
    false
}

fn ps(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("ps")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
