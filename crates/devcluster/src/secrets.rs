//! Passwords: random, one pair for a cluster.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{DevClusterError, OrIo, Result};
use crate::paths::Paths;

/// A password that does not show in debug output.
#[derive(Clone)]
pub(crate) struct Password(String);

impl Password {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// The passwords of the two roles.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    /// Of the role `pgbraid`.
    pub(crate) password: Password,
    /// Of the superuser `postgres`.
    pub(crate) superuser: Password,
}

impl Secrets {
    /// Reads them.
    pub(crate) fn load(paths: &Paths) -> Result<Self> {
        let read = |name: &str| {
            let path = paths.secrets().join(name);
            read_password(&path)?
                .ok_or_else(|| DevClusterError::io("read", &path, io::ErrorKind::NotFound.into()))
        };
        Ok(Self {
            password: read("password")?,
            superuser: read("superuser")?,
        })
    }

    /// Reads them, or makes what is missing. The superuser's cannot be made again once there are
    /// data; that of `pgbraid` can, see `roles`.
    pub(crate) fn load_or_make(paths: &Paths) -> Result<Self> {
        let folder = paths.secrets();
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(DevClusterError::io("make", &folder, e));
            }
            _ => {}
        }
        let superuser = folder.join("superuser");
        if !superuser.exists() && paths.instance(0).data_dir().exists() {
            return Err(DevClusterError::Invalid(format!(
                "{} is gone, and without it nobody can manage the cluster; remove the cluster \
                 and start anew",
                superuser.display()
            )));
        }
        for name in ["password", "superuser"] {
            let path = folder.join(name);
            if read_password(&path)?.is_none() {
                let draft = folder.join(format!("{name}.tmp"));
                write_private(&draft, &random_hex(16)?)?;
                fs::rename(&draft, &path).or_io("write", &path)?;
            }
        }
        Self::load(paths)
    }
}

fn read_password(path: &Path) -> Result<Option<Password>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Password(text.trim().to_owned()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DevClusterError::io("read", path, e)),
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(DevClusterError::io("replace", path, e));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .or_io("make", path)?;
    file.write_all(text.as_bytes()).or_io("write", path)
}

/// `bytes` random bytes as hexadecimal digits.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    Ok(random(bytes)?.iter().map(|b| format!("{b:02x}")).collect())
}

/// Random bytes from the system.
pub(crate) fn random(bytes: usize) -> Result<Vec<u8>> {
    let source = Path::new("/dev/urandom");
    let mut buffer = vec![0; bytes];
    File::open(source)
        .and_then(|mut f| f.read_exact(&mut buffer))
        .or_io("read", source)?;
    Ok(buffer)
}
