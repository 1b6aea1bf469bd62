use std::path::{Path, PathBuf};
use std::{env, fs};

use super::*;

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("schema")
        .join(name)
}

/// Fails when the shape of a file changed without its committed schema.
#[test]
fn the_committed_schemas_are_current() {
    for (name, current) in [
        ("shardmap.schema.json", shardmap_schema()),
        ("pgbraid.schema.json", router_schema()),
    ] {
        let path = committed(name);
        if env::var_os("PGBRAID_REGENERATE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("{current:#}\n")).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        // Compared as values: the order of keys depends on the features of serde_json.
        let stored: Value = serde_json::from_str(&text).unwrap_or_default();
        assert!(
            stored == current,
            "crates/config/schema/{name} is stale: run `PGBRAID_REGENERATE=1 cargo test -p pgbraid-config schema` and commit it"
        );
    }
}

#[test]
fn schemas_carry_defaults_and_refuse_unknown_keys() {
    let schema = router_schema();
    let ingest = &schema["$defs"]["Ingest"];
    assert_eq!(ingest["properties"]["linger"]["default"], "20ms");
    assert_eq!(ingest["properties"]["batch_rows"]["default"], 8000);
    assert_eq!(ingest["additionalProperties"], false);
    assert_eq!(shardmap_schema()["additionalProperties"], false);
    assert!(!schema.to_string().contains("\"null\""));
}
