//! The system user that the instances run as: ourselves, or for root a user without its powers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User};

use crate::error::{DevClusterError, OrIo, Result};
use crate::paths::Paths;

/// Who runs PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// `None`: we do, with our own uid.
    other: Option<Other>,
}

#[derive(Clone, Debug)]
struct Other {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account for the cluster in `paths`. Root takes the owner of data that are already
    /// there, because PostgreSQL refuses data of another user.
    pub(crate) fn for_cluster(paths: &Paths) -> Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self { other: None });
        }
        if let Ok(data) = fs::metadata(paths.instance(0).data_dir())
            && data.uid() != 0
        {
            let user = User::from_uid(Uid::from_raw(data.uid())).ok().flatten();
            let name = user.map_or_else(|| data.uid().to_string(), |u| u.name);
            return Ok(Self {
                other: Some(Other {
                    name,
                    uid: data.uid(),
                    gid: data.gid(),
                }),
            });
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
                return Ok(Self {
                    other: Some(Other {
                        name: user.name,
                        uid,
                        gid,
                    }),
                });
            }
        }
        Err(DevClusterError::NoAccount)
    }

    /// Lets the command run as this account. It gets no supplementary groups: the standard
    /// library drops root's when it changes the uid.
    pub(crate) fn run_as<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        match &self.other {
            Some(other) => command.uid(other.uid).gid(other.gid),
            None => command,
        }
    }

    /// Gives a file or folder (not what is in it) to the account.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        match &self.other {
            Some(other) => {
                chown(path, Some(other.uid), Some(other.gid)).or_io("change the owner of", path)
            }
            None => Ok(()),
        }
    }

    /// Lets the account pass through a folder on the way to its own, without seeing what else is
    /// in it.
    pub(crate) fn let_pass(&self, folder: &Path) -> Result<()> {
        let mode = fs::metadata(folder)
            .or_io("look at", folder)?
            .permissions()
            .mode();
        if self.other.is_none() || mode & 0o011 == 0o011 {
            return Ok(());
        }
        fs::set_permissions(folder, Permissions::from_mode(mode & 0o7777 | 0o011))
            .or_io("set the permissions of", folder)
    }

    /// Checks that the account can get to `dir`, whose parents exist and are canonical.
    pub(crate) fn check_reachable(&self, dir: &Path) -> Result<()> {
        let Some(other) = &self.other else {
            return Ok(());
        };
        for folder in dir.ancestors().skip(1) {
            let meta = fs::metadata(folder).or_io("look at", folder)?;
            let mode = meta.permissions().mode();
            let enter = if meta.uid() == other.uid {
                mode & 0o100
            } else if meta.gid() == other.gid {
                mode & 0o010
            } else {
                mode & 0o001
            };
            if enter == 0 {
                return Err(DevClusterError::NotReachable {
                    account: other.name.clone(),
                    folder: folder.to_owned(),
                    mode: mode & 0o7777,
                    dir: dir.to_owned(),
                });
            }
        }
        Ok(())
    }
}
