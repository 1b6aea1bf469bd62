//! The two files of settings, as commands use them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use pgbraid_config::{ConfigError, RouterConfig, ShardMap};
use pgbraid_server::fleet::Fleet;

use crate::failure::{Failure, Result};

#[derive(Args, Debug, Clone)]
pub struct ConfigArg {
    /// The settings of the router
    #[arg(long, short, value_name = "FILE", default_value = "pgbraid.toml")]
    pub config: PathBuf,
}

impl ConfigArg {
    /// Both files, checked against each other.
    pub fn load(&self) -> Result<(RouterConfig, ShardMap)> {
        load(&self.config).map_err(|error| {
            let missing = matches!(&error, ConfigError::Read { path, .. } if *path == self.config);
            let failure = Failure::from(error);
            if missing {
                failure.hint("name the file with --config, or make a cluster with `pgbraid dev up`")
            } else {
                failure
            }
        })
    }

    pub fn fleet(&self) -> Result<Fleet> {
        let (config, map) = self.load()?;
        Ok(Fleet::new(Arc::new(config), Arc::new(map))?)
    }
}

pub fn load(path: &Path) -> Result<(RouterConfig, ShardMap), ConfigError> {
    let config = RouterConfig::load(path)?;
    let map = ShardMap::load(&config.shardmap)?;
    config.check_map(&map)?;
    Ok((config, map))
}
