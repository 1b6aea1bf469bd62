//! One file a command.

pub mod alerts;
pub mod changes;
pub mod check;
pub mod completions;
pub mod demo;
pub mod dev;
pub mod load;
pub mod map;
pub mod migrate;
pub mod rules;
pub mod serve;
pub mod status;

use crate::args::Command;
use crate::failure::Result;

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Dev(command) => dev::run(command).await,
        Command::Check(args) => check::run(args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Map(command) => map::run(command).await,
        Command::Rules(command) => rules::run(command).await,
        Command::Alerts(command) => alerts::run(command).await,
        Command::Changes(command) => changes::run(command).await,
        Command::Load(args) => load::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Completions(args) => completions::run(args),
    }
}
