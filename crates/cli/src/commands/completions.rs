//! `pgbraid completions`: a script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::failure::Result;
use crate::output;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: Args) -> Result<()> {
    // By way of a buffer: clap_complete panics when stdout is closed.
    let mut script = Vec::new();
    let mut command = crate::args::Args::command();
    clap_complete::generate(args.shell, &mut command, "pgbraid", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}
