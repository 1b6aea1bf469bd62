//! The settings of an instance: what `pgbraid.conf` holds.

use std::fmt::Write;

use crate::error::{DevClusterError, Result};

#[cfg(test)]
mod tests;

/// Settings that this crate relies on, or that would reach out of the cluster's folder.
const OURS: [&str; 12] = [
    "port",
    "listen_addresses",
    "unix_socket_directories",
    "cluster_name",
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "include",
    "include_dir",
    "include_if_exists",
];

/// Refuses settings that we cannot write, or must not.
pub(crate) fn check(extra: &[(String, String)]) -> Result<()> {
    for (name, value) in extra {
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if name.is_empty() || !name.chars().all(named) {
            return Err(DevClusterError::Invalid(format!(
                "no such setting: {name:?}"
            )));
        }
        if OURS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(DevClusterError::Invalid(format!(
                "the setting {name} is pgbraid's own in a dev cluster and cannot be changed"
            )));
        }
        if value.contains(['\n', '\r', '\0']) {
            return Err(DevClusterError::Invalid(format!(
                "the value of the setting {name} must be one line: {value:?}"
            )));
        }
    }
    Ok(())
}

/// The text of `pgbraid.conf`. Later lines win, so `extra` overrides our defaults.
pub(crate) fn text(name: &str, port: u16, durable: bool, extra: &[(String, String)]) -> String {
    let mut text = String::from("# Written by pgbraid at every `up`: changes here are lost.\n");
    let port = port.to_string();
    let fixed = [
        ("cluster_name", name),
        ("port", &port),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
    ];
    // Many instances share one machine: small caches. Segments of dynamic shared memory live in
    // the data folder, so that a killed instance leaves none behind in /dev/shm.
    let defaults = [
        ("wal_level", "logical"),
        ("max_connections", "120"),
        ("max_prepared_transactions", "16"),
        ("max_wal_senders", "20"),
        ("max_replication_slots", "20"),
        ("max_worker_processes", "16"),
        ("max_logical_replication_workers", "12"),
        ("shared_buffers", "64MB"),
        ("dynamic_shared_memory_type", "mmap"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("lc_messages", "C"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("log_line_prefix", "%m [%p] "),
    ];
    let fast = [
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
    ];
    let fast = if durable { &[][..] } else { &fast[..] };
    let extra = extra
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let all = fixed
        .into_iter()
        .chain(defaults)
        .chain(fast.iter().copied())
        .chain(extra);
    for (name, value) in all {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = '{value}'");
    }
    text
}
