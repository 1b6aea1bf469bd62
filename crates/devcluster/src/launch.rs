//! Starting an instance and waiting until it answers.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::binaries::PgBinaries;
use crate::error::{DevClusterError, OrIo, Result};
use crate::initdb::clean_environment;
use crate::instance::{DevInstance, SUPERUSER};
use crate::procs;

/// How long an instance may take to answer, recovery after a crash included.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// How much of the log goes into an error, in bytes.
const LOG_TAIL: u64 = 4096;

/// Starts the program in the background, detached from us, and prints its process id.
const DETACH: &str = r#"log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!"#;

/// Starts the instance, whose settings are written, and returns when it accepts connections.
///
/// # Errors
/// [`DevClusterError::PortTaken`] if somebody else has the port, so that the caller can choose
/// another.
pub(crate) async fn launch(
    binaries: &PgBinaries,
    account: &Account,
    instance: &DevInstance,
) -> Result<()> {
    instance.postmaster().clear_stale_pid_file()?;
    let log_start = fs::metadata(instance.log_file()).map_or(0, |m| m.len());
    let pid = spawn(binaries, account, instance).await?;
    wait_until_ready(instance, pid, log_start).await
}

async fn spawn(binaries: &PgBinaries, account: &Account, instance: &DevInstance) -> Result<i32> {
    let shell = Path::new("/bin/sh");
    let mut command = Command::new(shell);
    command
        .args(["-c", DETACH, "sh"])
        .arg(instance.log_file())
        .arg(binaries.program("postgres"))
        .arg("-D")
        .arg(instance.data_dir());
    clean_environment(&mut command);
    account
        .run_as(&mut command)
        .current_dir(instance.paths().dir())
        .stdin(Stdio::null());
    // A process group of its own: Ctrl-C in the terminal is for us, not for the server.
    let mut command = tokio::process::Command::from(command);
    let output = command
        .process_group(0)
        .output()
        .await
        .or_io("run", shell)?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse();
    pid.map_err(|_| DevClusterError::Program {
        what: format!("starting {}", instance.name()),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Waits for an instance that is starting as process `pid`.
pub(crate) async fn wait_until_ready(
    instance: &DevInstance,
    pid: i32,
    log_start: u64,
) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    let mut last = "it never accepted connections".to_owned();
    loop {
        let file = instance.postmaster().pid_file();
        if file.is_some_and(|file| file.pid == pid && file.ready) {
            let wait = Duration::from_secs(2);
            match instance.connect_within(wait, SUPERUSER, SUPERUSER).await {
                Ok(_) => return Ok(()),
                Err(e) => last = e.to_string(),
            }
        }
        // Just after its start the process may still be called `sh`: only the number counts.
        if procs::get(pid).is_none() {
            return Err(ended(instance, log_start));
        }
        if Instant::now() > end {
            let reason = format!("after {} s: {last}", DEADLINE.as_secs());
            return Err(start_error(instance, reason, log_tail(instance, log_start)));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn ended(instance: &DevInstance, log_start: u64) -> DevClusterError {
    let log = log_tail(instance, log_start);
    if log.contains("could not bind") || log.contains("could not create any TCP/IP sockets") {
        let (name, port) = (instance.name().to_owned(), instance.port());
        return DevClusterError::PortTaken { name, port, log };
    }
    start_error(instance, "the server ended".to_owned(), log)
}

fn start_error(instance: &DevInstance, reason: String, log: String) -> DevClusterError {
    let (name, log_file) = (instance.name().to_owned(), instance.log_file());
    DevClusterError::Start {
        name,
        reason,
        log_file,
        log,
    }
}

/// The last lines of the log, of those written since `start`.
fn log_tail(instance: &DevInstance, start: u64) -> String {
    let read = || {
        let mut file = File::open(instance.log_file())?;
        let from = start.max(file.metadata()?.len().saturating_sub(LOG_TAIL));
        file.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    match read() {
        Ok(text) => String::from_utf8_lossy(&text).trim_end().to_owned(),
        Err(e) => format!("(cannot read the log: {e})"),
    }
}
