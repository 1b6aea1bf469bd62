//! JSON schemas of the two files, for editors and linters.

use schemars::JsonSchema;
use serde_json::Value;

use crate::raw::router::RawRouter;
use crate::raw::shardmap::RawShardMap;

/// The JSON schema (draft 2020-12) of shardmap.toml.
pub fn shardmap_schema() -> Value {
    schema_of::<RawShardMap>()
}

/// The JSON schema (draft 2020-12) of pgbraid.toml, with the defaults.
pub fn router_schema() -> Value {
    schema_of::<RawRouter>()
}

fn schema_of<T: JsonSchema>() -> Value {
    let mut value = Value::from(schemars::schema_for!(T));
    without_null(&mut value);
    value
}

/// TOML has no null: an optional key is there or not.
fn without_null(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(options)) = object.get_mut("anyOf") {
                options.retain(|option| option.get("type") != Some(&Value::from("null")));
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
