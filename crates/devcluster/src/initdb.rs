//! Making an instance's data folder.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::binaries::PgBinaries;
use crate::error::{DevClusterError, OrIo, Result};
use crate::instance::{DevInstance, SUPERUSER};
use crate::procs;
use crate::secrets::{Password, random_hex, write_private};
use crate::up::blocking;

/// An `initdb` takes a second or two; one that hangs must not hang us.
const WAIT_DEADLINE: Duration = Duration::from_secs(30);

/// Makes the data folder if it is missing. It appears under its name only when it is complete:
/// until then it is `data.tmp-…`, which the next `up` removes if this one is killed.
pub(crate) async fn ensure(
    binaries: &PgBinaries,
    account: &Account,
    instance: &DevInstance,
    superuser: &Password,
    durable: bool,
) -> Result<()> {
    let data = instance.data_dir();
    if data.exists() {
        return check_version(binaries, data);
    }
    let folder = instance.paths().dir();
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(DevClusterError::io("make", folder, e));
        }
        _ => {}
    }
    account.give(folder)?;
    let own_folder = folder.to_owned();
    blocking(move || wait_for_running(&own_folder).and_then(|()| remove_drafts(&own_folder)))
        .await?;

    let draft = folder.join(format!("data.tmp-{}", random_hex(4)?));
    let password_file = folder.join("pwfile.tmp");
    write_private(&password_file, superuser.as_str())?;
    account.give(&password_file)?;
    run(binaries, account, instance, &draft, &password_file, durable).await?;
    fs::remove_file(&password_file).or_io("remove", &password_file)?;

    let conf = draft.join("postgresql.conf");
    fs::OpenOptions::new()
        .append(true)
        .open(&conf)
        .and_then(|mut file| file.write_all(b"\ninclude '../pgbraid.conf'\n"))
        .or_io("write", &conf)?;
    fs::rename(&draft, data).or_io("make", data)
}

async fn run(
    binaries: &PgBinaries,
    account: &Account,
    instance: &DevInstance,
    draft: &Path,
    password_file: &Path,
    durable: bool,
) -> Result<()> {
    let mut command = Command::new(binaries.program("initdb"));
    command
        .args([
            "--encoding=UTF8",
            "--locale=C",
            "--auth=scram-sha-256",
            "--no-instructions",
        ])
        .arg(format!("--username={SUPERUSER}"))
        .arg("--pwfile")
        .arg(password_file)
        .arg("--pgdata")
        .arg(draft);
    if !durable {
        command.arg("--no-sync");
    }
    clean_environment(&mut command);
    account
        .run_as(&mut command)
        .current_dir(instance.paths().dir())
        .stdin(Stdio::null());
    // It is never killed half way, not even by Ctrl-C: its servers would leave shared memory.
    let mut command = tokio::process::Command::from(command);
    let program = binaries.program("initdb");
    let output = command
        .process_group(0)
        .output()
        .await
        .or_io("run", &program)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(DevClusterError::Program {
        what: format!("{}: {}", instance.name(), program.display()),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}

/// Variables that would change what PostgreSQL's programs do, or the language they log in.
pub(crate) fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PG") || text.starts_with("LC_") || text.starts_with("LANG") {
            command.env_remove(&name);
        }
    }
    command.env("LC_ALL", "C");
}

/// Blocks until no `initdb` of an interrupted `up` works inside `dir` any more.
pub(crate) fn wait_for_running(dir: &Path) -> Result<()> {
    let end = Instant::now() + WAIT_DEADLINE;
    let runs = || {
        let table = procs::all().or_io("read", Path::new("the process table"))?;
        Ok(table.iter().any(|p| procs::is_initdb_in(p, dir)))
    };
    while runs()? && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Removes what a killed `up` left.
fn remove_drafts(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).or_io("read", folder)? {
        let path = entry.or_io("read", folder)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("data.tmp-") {
            fs::remove_dir_all(&path).or_io("remove", &path)?;
        }
    }
    Ok(())
}

fn check_version(binaries: &PgBinaries, data: &Path) -> Result<()> {
    let path = data.join("PG_VERSION");
    let found = fs::read_to_string(&path)
        .or_io("read", &path)?
        .trim()
        .to_owned();
    if found == binaries.major().to_string() {
        return Ok(());
    }
    Err(DevClusterError::WrongVersion {
        data_dir: data.to_owned(),
        found,
        bin: binaries.bin().to_owned(),
        have: binaries.major(),
    })
}
