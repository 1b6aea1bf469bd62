//! The command line.

use clap::{Parser, Subcommand};

use crate::commands::{
    alerts, changes, check, completions, demo, dev, load, map, migrate, rules, serve, status,
};

/// Routes order feeds to sharded PostgreSQL, and follows what happens there.
#[derive(Parser, Debug)]
#[command(name = "pgbraid", version, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a router
    Serve(serve::Args),
    /// Show it all on this machine: instances, a router, orders, alerts
    Demo(demo::Args),
    /// Run local PostgreSQL instances for development
    #[command(subcommand)]
    Dev(dev::Command),
    /// Check pgbraid.toml and the shard map
    Check(check::Args),
    /// Bring every instance's schema up to date
    Migrate(migrate::Args),
    /// Show, plan and carry out where tables live
    #[command(subcommand)]
    Map(map::Command),
    /// Put, list, remove and test rules
    #[command(subcommand)]
    Rules(rules::Command),
    /// Follow alerts; consumer groups and dead letters
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// Follow which rows change
    #[command(subcommand)]
    Changes(changes::Command),
    /// Write random rows, and measure
    Load(load::Args),
    /// Show how the cluster of a router is
    Status(status::Args),
    /// Write a completion script for a shell
    Completions(completions::Args),
}

impl Command {
    /// Whether nothing in it can be done at once: a second thread would only cost its wake-ups.
    pub fn is_one_by_one(&self) -> bool {
        matches!(self, Self::Load(args) if args.is_one_by_one())
    }
}

#[cfg(test)]
mod tests;
