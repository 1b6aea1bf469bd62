//! Finding the PostgreSQL server programs of this machine.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{DevClusterError, Result};

#[cfg(test)]
mod tests;

/// Oldest major version that we support.
const MIN_MAJOR: u32 = 14;

/// The environment variable that names the folder outright.
const BIN_VARIABLE: &str = "PGBRAID_PG_BIN";

/// Where distributions put the programs, `*` standing for one version folder.
const DISTRIBUTION_FOLDERS: [&str; 7] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/bin",
];

/// A folder with `initdb`, `postgres` and `pg_ctl` of one version, 14 or newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgBinaries {
    bin: PathBuf,
    major: u32,
    version: String,
}

impl PgBinaries {
    /// Looks in `PGBRAID_PG_BIN` (alone, if it is set), then in PATH, then in the folders of the
    /// distributions, newest version first.
    ///
    /// # Errors
    /// [`DevClusterError::NoPostgres`] with every place that was looked at, and how to install.
    pub fn find() -> Result<Self> {
        let mut looked = Vec::new();
        for folder in candidates() {
            match Self::in_folder(&folder) {
                Ok(found) => return Ok(found),
                Err(reason) => {
                    let line = format!("  {}: {reason}", folder.display());
                    if !looked.contains(&line) {
                        looked.push(line);
                    }
                }
            }
        }
        if env::var_os(BIN_VARIABLE).is_some() {
            looked.push(format!("  (nowhere else, because {BIN_VARIABLE} is set)"));
        }
        Err(DevClusterError::NoPostgres {
            min: MIN_MAJOR,
            looked: looked.join("\n"),
        })
    }

    /// The folder's programs, or why it does not do.
    fn in_folder(folder: &Path) -> std::result::Result<Self, String> {
        has_all_three(folder)?;
        // A PATH folder may only hold links: the real folder has the rest of the installation.
        let real = fs::canonicalize(folder.join("postgres")).map_err(|e| e.to_string())?;
        let bin = match real.parent() {
            Some(parent) if has_all_three(parent).is_ok() => parent.to_owned(),
            _ => folder.to_owned(),
        };
        let said = said_by(&bin.join("postgres"), "--version")?;
        let (major, version) =
            parse_version(&said).ok_or_else(|| format!("unknown version {said:?}"))?;
        if major < MIN_MAJOR {
            return Err(format!("version {version} is older than {MIN_MAJOR}"));
        }
        Ok(Self {
            bin,
            major,
            version,
        })
    }

    /// The folder.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The major version, such as 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The version as the server writes it, such as `15.13` or `18beta1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The program `name` of this installation, such as `pgbench`; it need not exist.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// Folders to try, in order.
fn candidates() -> Vec<PathBuf> {
    if let Some(folder) = env::var_os(BIN_VARIABLE) {
        return vec![PathBuf::from(folder)];
    }
    let mut folders = Vec::new();
    if let Ok(folder) = said_by(Path::new("pg_config"), "--bindir") {
        folders.push(PathBuf::from(folder));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    folders.extend(env::split_paths(&path).filter(|f| f.join("postgres").is_file()));
    for pattern in DISTRIBUTION_FOLDERS {
        folders.extend(expand(pattern));
    }
    folders
}

/// The folders that match a pattern with at most one `*`, highest number first; the pattern itself
/// if none does, so that the error can name it.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = leading_number(name.strip_prefix(prefix)?)?;
            let folder = format!("{parent}/{name}{after}");
            Path::new(&folder)
                .is_dir()
                .then(|| (version, PathBuf::from(folder)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    if found.is_empty() {
        return vec![PathBuf::from(pattern)];
    }
    found.into_iter().map(|(_, folder)| folder).collect()
}

fn has_all_three(folder: &Path) -> std::result::Result<(), String> {
    if !folder.is_dir() {
        return Err("no such folder".to_owned());
    }
    for program in ["initdb", "postgres", "pg_ctl"] {
        let runs = fs::metadata(folder.join(program))
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        if !runs {
            return Err(format!("has no {program}"));
        }
    }
    Ok(())
}

/// First line that a program prints for one argument.
fn said_by(program: &Path, argument: impl AsRef<OsStr>) -> std::result::Result<String, String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", program.display(), output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)` → `(15, "15.13")`.
fn parse_version(said: &str) -> Option<(u32, String)> {
    let word = said
        .split_whitespace()
        .find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
    Some((u32::try_from(leading_number(word)?).ok()?, word.to_owned()))
}

fn leading_number(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}
