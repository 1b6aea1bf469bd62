//! The system's process table, as far as we need it: who is whose child, and who is stopped.

use std::io;
use std::path::Path;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
mod ps;
#[cfg(test)]
mod tests;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use ps as system;

/// One process. Zombies are not listed: they hold nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// Stopped by a signal.
    pub(crate) stopped: bool,
    /// Name of the program, cut off by some systems.
    pub(crate) program: String,
}

/// Every process that we can see.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    system::all()
}

/// The process of this number, if it lives.
pub(crate) fn get(pid: i32) -> Option<Process> {
    system::get(pid)
}

/// Whether the process is a PostgreSQL postmaster that was started for this data folder.
pub(crate) fn is_postmaster_of(pid: i32, data_dir: &Path) -> bool {
    system::is_postmaster_of(pid, data_dir)
}

/// Whether the process is an `initdb` for a folder inside `dir`.
pub(crate) fn is_initdb_in(process: &Process, dir: &Path) -> bool {
    process.program == "initdb" && system::names_inside(process.pid, dir)
}

/// Whether the process is a PostgreSQL one that works in this data folder, to find those whose
/// postmaster is gone. Where the system does not tell, the answer is no.
pub(crate) fn works_in(process: &Process, data_dir: &Path) -> bool {
    process.program == "postgres" && system::works_in(process.pid, data_dir)
}
