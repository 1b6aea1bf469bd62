//! The `pgbraid` binary.
fn main() {}
