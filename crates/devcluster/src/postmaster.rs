//! The processes of one data folder: finding, signalling, stopping, freezing them. Everything here
//! blocks the thread, so that a `Drop` can use it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{DevClusterError, OrIo, Result};
use crate::procs::{self, Process};

const POLL: Duration = Duration::from_millis(10);

/// For conditions that the kernel brings about: stopped, continued, gone after SIGKILL.
const KERNEL_DEADLINE: Duration = Duration::from_secs(10);

/// How an instance is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Open transactions are rolled back, a checkpoint is written.
    Fast,
    /// No checkpoint: the next start recovers from the WAL, as after a crash.
    Immediate,
}

impl StopMode {
    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::Fast => Signal::SIGINT,
            Self::Immediate => Signal::SIGQUIT,
        }
    }
}

/// The processes that belong to one data folder.
#[derive(Clone, Debug)]
pub(crate) struct Postmaster {
    name: String,
    data_dir: PathBuf,
}

/// What `postmaster.pid` says. The lines come one by one as the server starts.
#[derive(Clone, Debug)]
pub(crate) struct PidFile {
    pub(crate) pid: i32,
    /// The server accepts connections.
    pub(crate) ready: bool,
    /// Key and id of the System V shared memory segment.
    pub(crate) shared_memory: Option<(i64, i64)>,
}

impl Postmaster {
    /// `data_dir` must be canonical.
    pub(crate) fn new(name: String, data_dir: PathBuf) -> Self {
        Self { name, data_dir }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn pid_file_path(&self) -> PathBuf {
        self.data_dir.join("postmaster.pid")
    }

    /// What the pid file says, whether or not it is stale.
    pub(crate) fn pid_file(&self) -> Option<PidFile> {
        let text = fs::read_to_string(self.pid_file_path()).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        let shared_memory = lines.get(6).and_then(|line| {
            let mut words = line.split_whitespace().map(str::parse);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        });
        Some(PidFile {
            pid: lines.first()?.trim().parse().ok().filter(|&pid| pid > 1)?,
            ready: lines.get(7).is_some_and(|line| line.trim() == "ready"),
            shared_memory,
        })
    }

    /// The running postmaster.
    pub(crate) fn pid(&self) -> Option<i32> {
        let pid = self.pid_file()?.pid;
        procs::is_postmaster_of(pid, &self.data_dir).then_some(pid)
    }

    /// The postmaster, its children, and orphans of an earlier postmaster.
    pub(crate) fn processes(&self) -> Result<Vec<Process>> {
        let postmaster = self.pid();
        let mut table = table()?;
        // Only a process whose parent is no PostgreSQL can be an orphan: with 256 instances that
        // spares thousands of looks.
        let servers: HashSet<i32> = table
            .iter()
            .filter(|p| p.program == "postgres")
            .map(|p| p.pid)
            .collect();
        table.retain(|p| {
            postmaster.is_some_and(|pid| p.pid == pid || p.parent == pid)
                || !servers.contains(&p.parent) && procs::works_in(p, &self.data_dir)
        });
        Ok(table)
    }

    /// Whether the postmaster runs but is stopped by a signal.
    pub(crate) fn is_frozen(&self) -> bool {
        self.pid().and_then(procs::get).is_some_and(|p| p.stopped)
    }

    /// Signals one process; that it is gone already is no error.
    pub(crate) fn signal(&self, pid: i32, signal: Signal) -> Result<()> {
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(DevClusterError::Signal {
                name: self.name.clone(),
                pid,
                source: errno.into(),
            }),
        }
    }

    /// Stops and waits until every process is gone. Not running is no error.
    pub(crate) fn stop(&self, mode: StopMode, deadline: Duration) -> Result<()> {
        self.thaw()?;
        if let Some(pid) = self.pid() {
            self.signal(pid, mode.signal())?;
        }
        self.wait("every process has ended", deadline, || self.is_gone())
    }

    /// No process is left.
    pub(crate) fn is_gone(&self) -> Result<bool> {
        Ok(self.pid().is_none() && self.processes()?.is_empty())
    }

    /// SIGKILL for the postmaster and all its children; returns when all are gone.
    pub(crate) fn kill9(&self) -> Result<()> {
        // A stopped postmaster starts no more children, so the list is complete.
        self.halt_postmaster()?;
        let victims = self.processes()?;
        for process in &victims {
            self.signal(process.pid, Signal::SIGKILL)?;
        }
        self.wait("every process has ended", KERNEL_DEADLINE, || {
            Ok(victims
                .iter()
                .all(|victim| procs::get(victim.pid).is_none()))
        })
    }

    /// SIGSTOP for the postmaster and all its children; returns when all stand still.
    pub(crate) fn freeze(&self) -> Result<()> {
        if self.halt_postmaster()?.is_none() {
            return Err(self.not_running());
        }
        for process in self.processes()? {
            self.signal(process.pid, Signal::SIGSTOP)?;
        }
        let all_stopped = || Ok(self.processes()?.iter().all(|p| p.stopped));
        self.wait("every process stands still", KERNEL_DEADLINE, all_stopped)
    }

    /// SIGCONT for all; returns when none stands still. Not frozen is no error.
    pub(crate) fn thaw(&self) -> Result<()> {
        for process in self.processes()?.iter().filter(|p| p.stopped) {
            self.signal(process.pid, Signal::SIGCONT)?;
        }
        let none_stopped = || Ok(self.processes()?.iter().all(|p| !p.stopped));
        self.wait("every process runs again", KERNEL_DEADLINE, none_stopped)
    }

    fn halt_postmaster(&self) -> Result<Option<i32>> {
        let Some(pid) = self.pid() else {
            return Ok(None);
        };
        self.signal(pid, Signal::SIGSTOP)?;
        self.wait("the postmaster stands still", KERNEL_DEADLINE, || {
            Ok(procs::get(pid).is_none_or(|p| p.stopped))
        })?;
        Ok(Some(pid))
    }

    /// Removes a `postmaster.pid` whose number has gone to another process since: PostgreSQL would
    /// take that process for a running postmaster and refuse to start. A zombie counts too, in
    /// containers whose first process does not reap.
    pub(crate) fn clear_stale_pid_file(&self) -> Result<()> {
        let Some(file) = self.pid_file() else {
            return Ok(());
        };
        let number_in_use = kill(Pid::from_raw(file.pid), None) != Err(Errno::ESRCH);
        if number_in_use && self.is_gone()? {
            let path = self.pid_file_path();
            fs::remove_file(&path).or_io("remove the stale", &path)?;
        }
        Ok(())
    }

    pub(crate) fn not_running(&self) -> DevClusterError {
        let (name, data_dir) = (self.name.clone(), self.data_dir.clone());
        DevClusterError::NotRunning { name, data_dir }
    }

    fn wait(
        &self,
        until: &'static str,
        deadline: Duration,
        mut done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + deadline;
        while !done()? {
            if Instant::now() > end {
                let seconds = deadline.as_secs();
                return Err(DevClusterError::Deadline {
                    name: self.name.clone(),
                    until,
                    seconds,
                });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Stops all: each step signals every postmaster that is left and waits for at most its time;
/// what is left after the last step gets SIGKILL. Returns how many had been running.
pub(crate) fn stop_all(
    postmasters: &[Postmaster],
    steps: &[(StopMode, Duration)],
) -> Result<usize> {
    let mut left = still_there(postmasters)?;
    let count = left.len();
    for postmaster in &left {
        postmaster.thaw()?;
    }
    for (mode, time) in steps {
        for postmaster in &left {
            if let Some(pid) = postmaster.pid() {
                postmaster.signal(pid, mode.signal())?;
            }
        }
        let end = Instant::now() + *time;
        while !left.is_empty() && Instant::now() < end {
            thread::sleep(POLL);
            left = still_there(&left)?;
        }
    }
    for postmaster in left {
        postmaster.kill9()?;
    }
    Ok(count)
}

fn table() -> Result<Vec<Process>> {
    procs::all().or_io("read", Path::new("the process table"))
}

fn still_there(postmasters: &[Postmaster]) -> Result<Vec<Postmaster>> {
    let mut left = Vec::new();
    for postmaster in postmasters {
        if !postmaster.is_gone()? {
            left.push(postmaster.clone());
        }
    }
    Ok(left)
}

/// Removes the System V segment that a postmaster killed with SIGKILL leaves behind, if nobody
/// uses it. PostgreSQL would do so at its next start, but before the data are deleted there is
/// none. A few bytes, so failing is no error.
pub(crate) fn drop_shared_memory(postmaster: &Postmaster) {
    let Some((key, id)) = postmaster.pid_file().and_then(|f| f.shared_memory) else {
        return;
    };
    let Ok(table) = fs::read_to_string("/proc/sysvipc/shm") else {
        return;
    };
    let unused = table.lines().skip(1).any(|line| {
        let field: Vec<i64> = line
            .split_whitespace()
            .map_while(|w| w.parse().ok())
            .collect();
        // key shmid perms size cpid lpid nattch …
        field.len() > 6 && field[0] == key && field[1] == id && field[6] == 0
    });
    if unused {
        let removed = std::process::Command::new("ipcrm")
            .args(["-m", &id.to_string()])
            .output();
        if let Err(e) = removed
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!("ipcrm -m {id}: {e}");
        }
    }
}
