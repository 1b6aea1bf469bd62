//! Logs on stderr.

use pgbraid_config::LogFormat;
use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Result};
use crate::output;

/// Sets up logs at this level, unless RUST_LOG says otherwise.
pub fn init(level: &str, format: LogFormat) -> Result<()> {
    let given = std::env::var("RUST_LOG").ok();
    let given = given.filter(|level| !level.is_empty());
    let level = given.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_new(level)
        .map_err(|error| Failure::from(error).context(format!("RUST_LOG: {level}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::stderr_colour());
    let done = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|error| Failure::new(format!("cannot set up logs: {error}")))
}
