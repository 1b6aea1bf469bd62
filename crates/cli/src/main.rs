//! The `pgbraid` binary.

mod args;
mod commands;
mod failure;
mod logs;
mod meter;
mod output;
mod router_args;
mod settings;
mod stop;
mod table;

use std::process::ExitCode;

use clap::Parser;

/// What a request leaves behind goes back to the system within moments, where the system's own
/// allocator keeps most of it after a burst; and small allocations cost less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap would exit with 2 for wrong usage, which here means "there is something to do".
            let wrong = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(u8::from(wrong));
        }
    };
    let runtime = match args.command.is_one_by_one() {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    }
    .enable_all()
    .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(args.command)),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
