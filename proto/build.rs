//! Compiles the protocol with protox, so that no `protoc` needs to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: &[&str] = &[
    "pgbraid/v1/ingest.proto",
    "pgbraid/v1/rows.proto",
    "pgbraid/v1/alerts.proto",
    "pgbraid/v1/changes.proto",
    "pgbraid/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=pgbraid");
    let descriptors = protox::compile(FILES, ["."])?;
    let path = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(path, descriptors.encode_to_vec())?;
    // Columns stay slices of the request's message: nothing is copied on decode.
    tonic_prost_build::configure()
        .bytes(".pgbraid.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
